//! Random stacks of layers against a model that is too simple to be wrong.
//!
//! The model keeps maps from path to file. Unpacking a layer gives one map; stacking two maps is the
//! overlay's rule word by word.

use proptest::prelude::*;

use super::*;

/// One tar entry.
#[derive(Clone, Debug)]
enum Op {
    Dir(String, u32),
    File(String, u8),
    Symlink(String),
    HardLink(String, String),
    Whiteout(String),
    Opaque(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Item {
    Dir {
        mode: u32,
        implied: bool,
        opaque: bool,
    },
    File(u8),
    Symlink,
    Whiteout,
}

type Files = BTreeMap<String, Item>;

const PLAIN: Item = Item::Dir {
    mode: 0o755,
    implied: true,
    opaque: false,
};

fn parents(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').map(|(place, _)| &path[..place])
}

fn remove(files: &mut Files, path: &str) {
    let below = format!("{path}/");
    files.retain(|name, _| name != path && !name.starts_with(&below));
}

/// Makes the folders above `path`; `None` when something else is in the way.
fn make_parents(files: &mut Files, path: &str) -> Option<()> {
    for parent in parents(path) {
        match files.get(parent) {
            Some(Item::Dir { .. }) => {}
            None => {
                files.insert(parent.into(), PLAIN);
            }
            Some(Item::Whiteout) => {
                let opaque = Item::Dir {
                    mode: 0o755,
                    implied: true,
                    opaque: true,
                };
                files.insert(parent.into(), opaque);
            }
            Some(Item::File(_) | Item::Symlink) => return None,
        }
    }
    Some(())
}

/// What one layer unpacks to; `None` when it must be refused.
fn unpack(layer: &[Op]) -> Option<Files> {
    let mut files = Files::new();
    for op in layer {
        match op {
            Op::Dir(path, mode) => {
                make_parents(&mut files, path)?;
                let opaque = match files.get(path) {
                    Some(Item::Dir { opaque, .. }) => *opaque,
                    other => {
                        let opaque = other == Some(&Item::Whiteout);
                        remove(&mut files, path);
                        opaque
                    }
                };
                files.insert(
                    path.clone(),
                    Item::Dir {
                        mode: *mode,
                        implied: false,
                        opaque,
                    },
                );
            }
            Op::File(path, byte) => {
                make_parents(&mut files, path)?;
                remove(&mut files, path);
                files.insert(path.clone(), Item::File(*byte));
            }
            Op::Symlink(path) => {
                make_parents(&mut files, path)?;
                remove(&mut files, path);
                files.insert(path.clone(), Item::Symlink);
            }
            Op::HardLink(path, target) => {
                make_parents(&mut files, path)?;
                remove(&mut files, path);
                match files.get(target) {
                    Some(item @ (Item::File(_) | Item::Symlink)) => {
                        let item = item.clone();
                        files.insert(path.clone(), item);
                    }
                    _ => return None,
                }
            }
            Op::Whiteout(path) => {
                make_parents(&mut files, path)?;
                match files.get_mut(path) {
                    None => {
                        files.insert(path.clone(), Item::Whiteout);
                    }
                    Some(Item::Dir { opaque, .. }) => *opaque = true,
                    Some(_) => {}
                }
            }
            Op::Opaque(path) => {
                make_parents(&mut files, &format!("{path}/x"))?;
                if let Some(Item::Dir { opaque, .. }) = files.get_mut(path) {
                    *opaque = true;
                }
            }
        }
    }
    Some(files)
}

fn stack(merged: &mut Files, layer: Files) {
    for (path, item) in layer {
        match item {
            Item::Whiteout => remove(merged, &path),
            Item::Dir {
                mode,
                implied,
                opaque,
            } => match merged.get(&path) {
                Some(Item::Dir { mode: old, .. }) => {
                    let mode = if implied { *old } else { mode };
                    if opaque {
                        remove(merged, &path);
                    }
                    merged.insert(
                        path,
                        Item::Dir {
                            mode,
                            implied: false,
                            opaque: false,
                        },
                    );
                }
                _ => {
                    remove(merged, &path);
                    merged.insert(
                        path,
                        Item::Dir {
                            mode,
                            implied: false,
                            opaque: false,
                        },
                    );
                }
            },
            other => {
                remove(merged, &path);
                merged.insert(path, other);
            }
        }
    }
}

fn path() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(&["a", "b", "c"][..]), 1..4)
        .prop_map(|names| names.join("/"))
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => (path(), prop::sample::select(&[0o700, 0o755, 0o1777][..]))
            .prop_map(|(path, mode)| Op::Dir(path, mode)),
        3 => (path(), any::<u8>()).prop_map(|(path, byte)| Op::File(path, byte)),
        1 => path().prop_map(Op::Symlink),
        1 => (path(), path()).prop_map(|(path, target)| Op::HardLink(path, target)),
        2 => path().prop_map(Op::Whiteout),
        1 => path().prop_map(Op::Opaque),
    ]
}

fn to_tar(layer: &[Op]) -> Vec<u8> {
    let mut tar = Archive::new();
    for op in layer {
        match op {
            Op::Dir(path, mode) => tar.dir(&format!("{path}/"), *mode),
            Op::File(path, byte) => tar.file(path, &[*byte; 3]),
            // A target through which nothing can be reached: the model follows no links.
            Op::Symlink(path) => tar.symlink(path, "/nowhere/at/all"),
            Op::HardLink(path, target) => tar.entry(b'1', path, target, b""),
            Op::Whiteout(path) => {
                let (folder, name) = path.rsplit_once('/').unwrap_or((".", path));
                tar.file(&format!("{folder}/.wh.{name}"), b"")
            }
            Op::Opaque(path) => tar.file(&format!("{path}/.wh..wh..opq"), b""),
        };
    }
    tar.build()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn stacks_of_layers_merge_as_the_model_says(
        layers in prop::collection::vec(prop::collection::vec(op(), 0..8), 1..4),
    ) {
        // A link to a file only a lower layer has is accepted, which the model does not know.
        let unpacked: Option<Vec<Files>> = layers.iter().map(|layer| unpack(layer)).collect();
        let tars: Vec<Vec<u8>> = layers.iter().map(|layer| to_tar(layer)).collect();
        let Some(unpacked) = unpacked else {
            let _ = pack(&tars);
            return Ok(());
        };
        let mut merged = Files::new();
        for layer in unpacked {
            stack(&mut merged, layer);
        }
        let mut seen = image(&tars);
        seen.retain(|path, _| !path.is_empty() && !path.starts_with("/etc"));
        let found: Vec<(String, Item)> = seen
            .into_iter()
            .map(|(path, seen)| {
                let item = match seen.attributes.file_type {
                    FileType::Directory => Item::Dir {
                        mode: u32::from(seen.attributes.mode),
                        implied: false,
                        opaque: false,
                    },
                    FileType::Symlink => Item::Symlink,
                    _ => Item::File(seen.content[0]),
                };
                (path[1..].to_owned(), item)
            })
            .collect();
        prop_assert_eq!(found, merged.into_iter().collect::<Vec<_>>());
    }
}
