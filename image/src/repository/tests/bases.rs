//! Squashfs files that begin with layers of another image's: found, verified, passed over, cleaned.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Seek};
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use super::receiving::{sink, watched};
use super::*;
use crate::error::Result;
use crate::ingest::Options;
use crate::oci::Layer;
use crate::transfer::{self, Context, Layout};
use pcocc_layers::DiffId;
use pcocc_layers::squashfs::{Attributes, BlockCache, FileType, Squashfs};

/// A layer with files of its own, one that all have, and one that hides the layer before.
fn layer(number: u32) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut add = |name: &str, content: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(u64::from(number));
        archive.append_data(&mut header, name, content).unwrap();
    };
    let mut state = number.wrapping_mul(2_654_435_761) | 1;
    let big: Vec<u8> = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as u8
    })
    .take(200_000)
    .collect();
    add(&format!("dir/{number}"), &number.to_le_bytes());
    add(&format!("big/{number}"), &big);
    add("same", &number.to_le_bytes());
    if number > 0 {
        add(&format!("dir/.wh.{}", number - 1), b"");
    }
    archive.into_inner().unwrap()
}

/// An image of plain layers in memory.
struct Stack {
    image: Image,
    layers: Vec<Vec<u8>>,
}

impl Stack {
    fn new(numbers: &[u32]) -> Self {
        let layers: Vec<Vec<u8>> = numbers.iter().map(|number| layer(*number)).collect();
        let slices: Vec<&[u8]> = layers.iter().map(Vec::as_slice).collect();
        Self {
            image: image_of(&slices),
            layers,
        }
    }

    fn key(&self) -> CacheKey {
        CacheKey::of_image(self.image.id())
    }

    /// The squashfs file that is made of nothing but the layers.
    fn fresh(&self) -> Vec<u8> {
        let site = Site::new(&["user"]);
        import(&site, self, "x");
        cached(&site, self).unwrap()
    }
}

impl Layout for Stack {
    fn image(&self, _: &Context) -> Result<Image> {
        Ok(self.image.clone())
    }

    fn open_layer<'a>(&'a self, layer: &Layer) -> Result<Box<dyn Read + Send + 'a>> {
        let is_it = |content: &&Vec<u8>| Digest::of(content) == layer.digest;
        Ok(Box::new(self.layers.iter().find(is_it).unwrap().as_slice()))
    }

    fn layer_file(&self, _: &Layer) -> Option<fs::File> {
        None
    }
}

/// Imports an image; returns the warnings.
fn import(site: &Site, stack: &Stack, name: &str) -> Vec<String> {
    let (context, warnings) = watched();
    transfer::copy(stack, &sink(site, name), &context).unwrap();
    warnings.texts()
}

fn cache(site: &Site) -> &Cache {
    site.repositories.cache().unwrap()
}

/// The cached squashfs file of an image.
fn cached(site: &Site, stack: &Stack) -> Option<Vec<u8>> {
    let file = cache(site).open(&stack.key(), &Context::silent().progress);
    let mut bytes = Vec::new();
    file.unwrap()?.read_to_end(&mut bytes).unwrap();
    Some(bytes)
}

/// All files of a squashfs file: path, attributes, and content's digest.
fn entries(squashfs: &[u8]) -> BTreeMap<Vec<u8>, (Attributes, Digest)> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(squashfs).unwrap();
    let squashfs = Squashfs::open(Arc::new(file), BlockCache::new(1 << 20)).unwrap();
    let mut all = BTreeMap::new();
    let mut pending = vec![(Vec::new(), squashfs.root())];
    while let Some((path, inode)) = pending.pop() {
        let found = squashfs.attributes(inode).unwrap();
        let mut content = vec![0; found.size as usize];
        if found.file_type == FileType::Directory {
            content.clear();
            for entry in squashfs.read_dir(inode).unwrap() {
                pending.push(([&path, &b"/"[..], &*entry.name].concat(), entry.inode));
            }
        } else {
            squashfs.read_at(inode, 0, &mut content).unwrap();
        }
        all.insert(path, (found, Digest::of(&content)));
    }
    all
}

/// Takes away the blobs of an image's lowest layers: who reads them fails.
fn forget_blobs(site: &Site, stack: &Stack, count: usize) {
    for layer in &stack.image.layers()[..count] {
        let hex = layer.digest.hex();
        let blob = site.repo().path().join("data").join(&hex[..2]).join(&hex);
        fs::remove_file(blob).unwrap();
    }
}

/// Puts an image into the repository without a squashfs file.
fn put(site: &Site, stack: &Stack, name: &str) {
    let layers: Vec<&[u8]> = stack.layers.iter().map(Vec::as_slice).collect();
    assert_eq!(put_image(site.repo(), name, &layers).id(), stack.image.id());
}

/// Makes the squashfs file of an image of the repository.
fn make(site: &Site, name: &str) -> Result<Vec<u8>> {
    let meta = site.repo().meta(name, None).unwrap();
    let mut file = site.repositories.root_filesystem(
        site.repo(),
        &meta,
        Options::default(),
        &Context::silent(),
    )?;
    let mut bytes = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut bytes).unwrap();
    Ok(bytes)
}

/// Files of one kind below `.layers`.
fn small_files(site: &Site, kind: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let layers = cache(site).path().join(".layers");
    for folder in fs::read_dir(layers).into_iter().flatten() {
        for file in fs::read_dir(folder.unwrap().path()).unwrap() {
            files.push(file.unwrap().path());
        }
    }
    files.retain(|path| path.extension().is_some_and(|ending| ending == kind));
    files
}

#[test]
fn an_import_begins_with_the_squashfs_of_its_base() {
    let site = Site::new(&["user"]);
    let (base, top) = (Stack::new(&[0, 1]), Stack::new(&[0, 1, 2]));
    assert!(
        cache(&site)
            .base(&top.image.diff_ids(), &Context::silent().progress)
            .is_none()
    );
    assert!(import(&site, &base, "base").is_empty());
    let found = cache(&site).base(&top.image.diff_ids(), &Context::silent().progress);
    assert_eq!(found.unwrap().path, cache(&site).entry_path(&base.key()));
    assert!(import(&site, &top, "top").is_empty());
    assert!(cached(&site, &top).unwrap() == top.fresh());
    // Of all layers but the last, nothing is read when the squashfs is made: they are not there.
    let (more, other) = (Stack::new(&[0, 1, 2, 3]), Stack::new(&[0, 1, 4]));
    put(&site, &more, "more");
    put(&site, &other, "other");
    forget_blobs(&site, &top, 3);
    assert!(make(&site, "more").unwrap() == more.fresh());
    // A changed line: of the last image only the two lowest layers are of use.
    assert!(make(&site, "other").unwrap() == other.fresh());
    let foreign = Stack::new(&[1, 0]);
    put(&site, &foreign, "foreign");
    forget_blobs(&site, &foreign, 2);
    assert!(make(&site, "foreign").is_err());
}

#[test]
fn generations_and_a_layer_that_occurs_twice_are_as_from_nothing() {
    let site = Site::new(&["user"]);
    let numbers = [0, 1, 2, 1, 3, 4, 4, 5, 6, 7];
    for count in 1..=numbers.len() {
        let stack = Stack::new(&numbers[..count]);
        assert!(import(&site, &stack, &format!("image-{count}")).is_empty());
        // The second occurrence is read at the end, wherever the file came from.
        if count <= 3 {
            assert!(cached(&site, &stack).unwrap() == stack.fresh(), "{count}");
        }
        let lowest = cache(&site).base(&stack.image.diff_ids(), &Context::silent().progress);
        assert_eq!(lowest.unwrap().path, cache(&site).entry_path(&stack.key()));
    }
}

#[test]
fn a_base_that_is_not_what_was_written_is_not_built_upon() {
    type Spoil = fn(&Path);
    let squashfs: &[(&str, Spoil)] = &[
        ("is damaged", |path| {
            let file = fs::File::options().write(true).open(path).unwrap();
            file.write_all_at(b"x", 100_000).unwrap();
        }),
        ("is truncated", |path| {
            let file = fs::File::options().write(true).open(path).unwrap();
            file.set_len(100_000).unwrap();
        }),
        // Somebody else's squashfs file under the name of ours.
        ("is damaged", |path| {
            let foreign = Stack::new(&[7, 8, 9]).fresh();
            fs::write(path, foreign).unwrap();
        }),
    ];
    let (base, top) = (Stack::new(&[0, 1]), Stack::new(&[0, 1, 2]));
    let expected = entries(&top.fresh());
    for (why, spoil) in squashfs {
        let site = Site::new(&["user"]);
        import(&site, &base, "base");
        let path = cache(&site).entry_path(&base.key());
        spoil(&path);
        let warnings = import(&site, &top, "top");
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        for part in [*why, path.to_str().unwrap(), "is not built upon"] {
            assert!(warnings[0].contains(part), "{warnings:?}");
        }
        // Its layers lie in another order.
        assert_eq!(entries(&cached(&site, &top).unwrap()), expected, "{why}");
        // The next one has a sound base again.
        let more = Stack::new(&[0, 1, 2, 3]);
        assert!(import(&site, &more, "more").is_empty());
        let (made, fresh) = (cached(&site, &more).unwrap(), more.fresh());
        assert_eq!(entries(&made), entries(&fresh));
        assert_eq!(made.len(), fresh.len());
    }
}

#[test]
fn small_files_that_are_not_ours_are_passed_over() {
    type Spoil = fn(&Path);
    let spoils: &[Spoil] = &[
        |path| fs::write(path, b"").unwrap(),
        |path| fs::write(path, b"nonsense\n").unwrap(),
        |path| fs::write(path, vec![b'a'; 1 << 20]).unwrap(),
        |path| {
            let mut bytes = fs::read(path).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            fs::write(path, bytes).unwrap();
        },
        |path| fs::remove_file(path).unwrap(),
        |path| {
            fs::remove_file(path).unwrap();
            fs::create_dir(path).unwrap();
        },
        |path| {
            fs::rename(path, path.with_extension("aside")).unwrap();
            symlink(path.with_extension("aside"), path).unwrap();
        },
        |path| {
            fs::remove_file(path).unwrap();
            rustix::fs::mknodat(
                rustix::fs::CWD,
                path,
                rustix::fs::FileType::Fifo,
                rustix::fs::Mode::from_raw_mode(0o600),
                0,
            )
            .unwrap();
        },
        |path| fs::set_permissions(path, fs::Permissions::from_mode(0o666)).unwrap(),
    ];
    let (base, top) = (Stack::new(&[0]), Stack::new(&[0, 1]));
    let expected = top.fresh();
    for kind in ["toc", "images"] {
        for (number, spoil) in spoils.iter().enumerate() {
            let site = Site::new(&["user"]);
            import(&site, &base, "base");
            let [file] = &small_files(&site, kind)[..] else {
                panic!("one {kind}");
            };
            spoil(file);
            let ids = top.image.diff_ids();
            let found = cache(&site).base(&ids, &Context::silent().progress);
            assert!(found.is_none(), "{kind} {number}");
            let warnings = import(&site, &top, "top");
            assert!(warnings.is_empty(), "{warnings:?}");
            assert!(cached(&site, &top).unwrap() == expected, "{kind} {number}");
        }
    }
}

#[test]
fn a_table_of_another_image_is_not_believed() {
    let site = Site::new(&["user"]);
    let (one, other) = (Stack::new(&[0, 1]), Stack::new(&[5, 6]));
    import(&site, &one, "one");
    import(&site, &other, "other");
    let toc = |stack: &Stack| {
        let hex = stack.image.id().hex();
        let layers = cache(&site).path().join(".layers").join(&hex[..2]);
        layers.join(format!("{hex}.toc"))
    };
    fs::copy(toc(&other), toc(&one)).unwrap();
    let base = |ids: &[DiffId]| cache(&site).base(ids, &Context::silent().progress);
    assert!(base(&one.image.diff_ids()).is_none());
    assert!(base(&other.image.diff_ids()).is_some());
    let top = Stack::new(&[0, 1, 2]);
    assert!(import(&site, &top, "top").is_empty());
    assert!(cached(&site, &top).unwrap() == top.fresh());
}

#[test]
fn cleaning_takes_tables_and_lists_along() {
    const DAY: Duration = Duration::from_secs(24 * 3600);
    let site = Site::new(&["user"]);
    let (kept, gone) = (Stack::new(&[0, 1]), Stack::new(&[0, 2]));
    import(&site, &kept, "kept");
    import(&site, &gone, "gone");
    let files = |kind: &str| small_files(&site, kind).len();
    assert_eq!((files("toc"), files("images")), (2, 3));
    site.repo().delete("gone", None).unwrap();
    for entry in cache(&site).list().unwrap() {
        age(&entry.path, 2 * DAY);
    }
    let size = fs::metadata(cache(&site).entry_path(&kept.key()))
        .unwrap()
        .len();
    let tables: u64 = small_files(&site, "toc")
        .iter()
        .map(|path| fs::metadata(path).unwrap().len())
        .sum();
    let grace = GcOptions { grace: DAY };
    let collect = |max| {
        cache(&site)
            .collect(&site.repositories, grace, max)
            .unwrap()
    };
    assert_eq!(collect(None).entries, 1);
    assert_eq!((files("toc"), files("images")), (1, 2));
    // The image that is left is found, also by the layer that it shared.
    let top = Stack::new(&[0, 3]);
    let found = cache(&site).base(&top.image.diff_ids(), &Context::silent().progress);
    assert_eq!(found.unwrap().path, cache(&site).entry_path(&kept.key()));
    // The bound counts the table.
    assert_eq!(collect(Some(size + tables)).entries, 0);
    let collected = collect(Some(size));
    assert_eq!(collected.entries, 1);
    assert!(collected.bytes > size && collected.bytes <= size + tables);
    assert_eq!((files("toc"), files("images")), (0, 0));
}

#[test]
fn imports_beside_a_collection_that_takes_every_base_are_right() {
    let site = Site::new(&["user"]);
    let base = Stack::new(&[0, 1, 2]);
    let tops: Vec<Stack> = (0..8).map(|n| Stack::new(&[0, 1, 2, 10 + n])).collect();
    let expected: Vec<Vec<u8>> = tops.iter().map(Stack::fresh).collect();
    for round in 0..6 {
        import(&site, &base, &format!("base-{round}"));
        thread::scope(|scope| {
            for half in [0, 1] {
                let (site, tops) = (&site, &tops);
                scope.spawn(move || {
                    for (number, top) in tops.iter().enumerate().filter(|(n, _)| n % 2 == half) {
                        import(site, top, &format!("top-{round}-{number}"));
                    }
                });
            }
            let grace = GcOptions {
                grace: Duration::from_secs(3600),
            };
            for _ in 0..10 {
                cache(&site)
                    .collect(&site.repositories, grace, Some(0))
                    .unwrap();
            }
        });
        for (top, expected) in tops.iter().zip(&expected) {
            assert!(cached(&site, top).is_none_or(|bytes| bytes == *expected));
        }
    }
    assert_eq!(
        fs::read_dir(cache(&site).path().join(".tmp"))
            .unwrap()
            .count(),
        0
    );
}
