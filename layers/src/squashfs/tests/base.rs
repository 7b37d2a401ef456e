//! A squashfs file that begins with layers of another is the file made from nothing, byte for byte.

use proptest::prelude::*;

use super::*;
use crate::squashfs::write::accepts;
use crate::{DiffId, Digest};

const CONFIG: &[u8] = br#"{"os":"linux"}"#;

/// A finished file with its table of contents, as it was read back.
struct Packed {
    file: File,
    toc: Toc,
}

fn diff_ids(layers: &[Vec<u8>]) -> Vec<DiffId> {
    let digest = |layer: &Vec<u8>| DiffId(Digest::of(layer));
    layers.iter().map(digest).collect()
}

/// Packs the layers: those that `base` has are taken from it, the others are read.
fn pack_on(base: Option<&Packed>, layers: &[Vec<u8>]) -> Result<Packed> {
    pack_in_order(base, layers, &(0..layers.len()).collect::<Vec<_>>())
}

/// As [`pack_on`], with the layers read in another order.
fn pack_in_order(base: Option<&Packed>, layers: &[Vec<u8>], order: &[usize]) -> Result<Packed> {
    let file = tempfile::tempfile().unwrap();
    let (handle, path) = (file.try_clone().unwrap(), Path::new("test.squashfs"));
    let (cancel, ids) = (Cancel::new(), diff_ids(layers));
    let options = Options::default();
    let (mut writer, mut trees) = match base {
        None => (RootfsWriter::create(handle, path, options)?, Vec::new()),
        Some(base) => {
            RootfsWriter::on_base(handle, path, options, &base.file, &base.toc, &ids, &cancel)?
        }
    };
    for &number in order {
        let id = ids[number];
        let wanted = ids.iter().filter(|other| **other == id).count();
        if trees.iter().filter(|(other, _)| *other == id).count() < wanted {
            let tree = writer.layer(&id.to_string(), &mut layers[number].as_slice(), &cancel)?;
            trees.push((id, tree));
        }
    }
    let mut stack = Vec::new();
    for id in &ids {
        let place = trees.iter().position(|(other, _)| other == id).unwrap();
        stack.push(trees.remove(place).1);
    }
    let finished = writer.finish(stack, CONFIG, &cancel)?;
    let toc = Toc::new(&ids, finished.layers).unwrap().encode().unwrap();
    assert_eq!(finished.summary.bytes, file.metadata().unwrap().len());
    let toc = Toc::decode(&toc).unwrap();
    assert!(toc.diff_ids().eq(ids));
    Ok(Packed { file, toc })
}

fn bytes(file: &File) -> Vec<u8> {
    let mut bytes = vec![0; file.metadata().unwrap().len() as usize];
    std::os::unix::fs::FileExt::read_exact_at(file, &mut bytes, 0).unwrap();
    bytes
}

#[track_caller]
fn assert_same(made: &Packed, from_nothing: &Packed) {
    let walked = |packed: &Packed| walk(&open(packed.file.try_clone().unwrap())).unwrap();
    assert_eq!(walked(made), walked(from_nothing));
    assert!(bytes(&made.file) == bytes(&from_nothing.file));
}

/// A layer with something of everything.
fn varied(number: u8) -> Vec<u8> {
    let mut tar = Archive::new();
    let mut big = noise(300_000);
    big.push(number);
    let mut holey = vec![number; 128 << 10];
    holey.extend(vec![0; 256 << 10]);
    holey.extend(b"end");
    tar.dir("d/", 0o1777).file(&format!("d/big-{number}"), &big);
    tar.file("d/small", &[number; 9])
        .owner(u64::from(number), 7);
    tar.file(&format!("d/holey-{number}"), &holey);
    tar.link(&format!("d/link-{number}"), "d/small");
    tar.symlink(&format!("d/soft-{number}"), "small");
    tar.node(b'3', &format!("null-{number}"), (1, 3));
    tar.node(b'4', "disk", (259, u32::from(number)));
    tar.node(b'6', "pipe", (0, 0)).mtime(u64::from(number));
    // What the second file replaces has the only use of a set of attributes.
    tar.file("caps", b"x")
        .pax(&[("SCHILY.xattr.user.gone", b"n")]);
    tar.file("caps", b"y").pax(&[
        ("SCHILY.xattr.security.capability", &[1, 0, 0, 2, number]),
        ("SCHILY.xattr.user.same", b"same"),
        ("SCHILY.xattr.system.posix_acl_access", b"dropped"),
    ]);
    if number > 0 {
        tar.file(&format!("d/.wh.soft-{}", number - 1), b"");
        tar.link("lower", &format!("d/big-{}", number - 1));
    }
    tar.file("", b"latin").bytes_name(b"caf\xe9");
    tar.build()
}

#[test]
fn ten_generations_are_as_from_nothing() {
    let layers: Vec<Vec<u8>> = (0..10).map(varied).collect();
    let mut base: Option<Packed> = None;
    for count in 1..=layers.len() {
        let made = pack_on(base.as_ref(), &layers[..count]).unwrap();
        assert_same(&made, &pack_on(None, &layers[..count]).unwrap());
        base = Some(made);
    }
}

#[test]
fn layers_that_an_image_does_not_have_are_left_out() {
    let [a, b, c, d] = [0, 1, 2, 3].map(varied);
    let layers = |layers: &[&Vec<u8>]| layers.iter().map(|l| (*l).clone()).collect::<Vec<_>>();
    let base = pack_on(None, &layers(&[&a, &b, &c])).unwrap();
    // A changed line: the last layer is another one.
    let changed = layers(&[&a, &b, &d]);
    let error = pack_on(None, &changed).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("not a file of this layer"), "{error}");
    let again = pack_on(Some(&base), &changed).map(|_| ()).unwrap_err();
    assert_eq!(again.to_string(), error);
    for wanted in [layers(&[&a, &b]), layers(&[&a]), layers(&[&a, &a, &b])] {
        let made = pack_on(Some(&base), &wanted).unwrap();
        let walked = |packed: Packed| walk(&open(packed.file)).unwrap();
        let (length, fresh) = (bytes(&made.file).len(), pack_on(None, &wanted).unwrap());
        assert_eq!(length, bytes(&fresh.file).len());
        assert_eq!(walked(made), walked(fresh));
    }
    // Layers that were read in another order lie in another order, and move.
    let mixed = pack_in_order(None, &layers(&[&a, &b, &c]), &[2, 1, 0]).unwrap();
    let made = pack_on(Some(&mixed), &layers(&[&a, &b])).unwrap();
    let fresh = pack_in_order(None, &layers(&[&a, &b]), &[1, 0]).unwrap();
    assert_same(&made, &fresh);
}

#[test]
fn limits_count_what_the_base_has() {
    let layers = [varied(0), varied(1)];
    let base = pack_on(None, &layers[..1]).unwrap();
    let options = Options {
        max_entries: 5,
        ..Options::default()
    };
    let (file, path) = (tempfile::tempfile().unwrap(), Path::new("x"));
    let ids = diff_ids(&layers);
    let cancel = Cancel::new();
    let made = RootfsWriter::on_base(file, path, options, &base.file, &base.toc, &ids, &cancel);
    let error = made.map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("exceeds the limit of 5 entries"), "{error}");
}

#[test]
fn a_base_that_was_changed_is_refused() {
    let layers = [varied(0), varied(1)];
    let base = pack_on(None, &layers[..1]).unwrap();
    let sound = bytes(&base.file);
    let content = 96..sound.len() - 4096;
    for place in [
        content.start,
        content.start + 200_000,
        content.start + 290_000,
    ] {
        let mut damaged = sound.clone();
        damaged[place] ^= 1;
        let file = tempfile::tempfile().unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, &damaged, 0).unwrap();
        let toc = base.toc.clone();
        let error = pack_on(Some(&Packed { file, toc }), &layers).map(|_| ());
        let error = error.unwrap_err();
        assert!(matches!(error, Error::Invalid { .. }), "{error:?}");
        assert!(error.to_string().contains("is damaged"), "{error}");
    }
    for length in [0, 50, 96, 100_000] {
        let file = base.file.try_clone().unwrap();
        file.set_len(length).unwrap();
        let toc = base.toc.clone();
        let error = pack_on(Some(&Packed { file, toc }), &layers).map(|_| ());
        let error = error.unwrap_err().to_string();
        assert!(error.contains("is truncated"), "{error}");
        std::os::unix::fs::FileExt::write_all_at(&base.file, &sound, 0).unwrap();
    }
    assert_same(
        &pack_on(Some(&base), &layers).unwrap(),
        &pack_on(None, &layers).unwrap(),
    );
}

#[test]
fn a_full_disk_and_a_raised_flag_end_the_copy() {
    let layers = [varied(0)];
    let base = pack_on(None, &layers).unwrap();
    let full = || File::options().write(true).open("/dev/full").unwrap();
    let (path, ids) = (Path::new("x"), diff_ids(&layers));
    let begin = |file, cancel: &Cancel| {
        let options = Options::default();
        let made = RootfsWriter::on_base(file, path, options, &base.file, &base.toc, &ids, cancel);
        made.map(|_| ()).unwrap_err()
    };
    let cancel = Cancel::new();
    // The kernel does not copy between these two: the bytes go by hand.
    let error = begin(full(), &cancel);
    assert_eq!(error.raw_os_error(), Some(28), "{error}");
    cancel.cancel();
    let error = begin(tempfile::tempfile().unwrap(), &cancel);
    assert!(matches!(error, Error::Cancelled(_)), "{error}");
}

#[test]
fn a_table_of_contents_is_told_from_anything_else() {
    let layers = [varied(0)];
    let base = pack_on(None, &layers).unwrap();
    let encoded = base.toc.encode().unwrap();
    for (place, why) in [
        (3, "another version"),
        (30, "is damaged"),
        (80, "is damaged"),
    ] {
        let mut damaged = encoded.clone();
        damaged[place] ^= 1;
        let error = Toc::decode(&damaged).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
    assert!(Toc::decode(&encoded[..40]).is_err());
    assert!(Toc::decode(b"").is_err());
}

/// One tar entry.
#[derive(Clone, Debug)]
enum Op {
    Dir(String, u32),
    File(String, usize, u8),
    Symlink(String, String),
    HardLink(String, String),
    Whiteout(String),
    Opaque(String),
    Device(String, u32),
    Xattr(String, u8),
}

fn path() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(&["a", "b", "etc", "group"][..]), 1..4)
        .prop_map(|names| names.join("/"))
}

fn op() -> impl Strategy<Value = Op> {
    let length = prop::sample::select(&[0, 3, 5000, 131_072, 140_000][..]);
    prop_oneof![
        3 => (path(), 0..0o7777u32).prop_map(|(path, mode)| Op::Dir(path, mode)),
        4 => (path(), length, 0..4u8).prop_map(|(path, size, byte)| Op::File(path, size, byte)),
        1 => (path(), path()).prop_map(|(path, target)| Op::Symlink(path, target)),
        1 => (path(), path()).prop_map(|(path, target)| Op::HardLink(path, target)),
        2 => path().prop_map(Op::Whiteout),
        1 => path().prop_map(Op::Opaque),
        1 => (path(), 0..3u32).prop_map(|(path, device)| Op::Device(path, device)),
        1 => (path(), any::<u8>()).prop_map(|(path, byte)| Op::Xattr(path, byte)),
    ]
}

fn to_tar(layer: &[Op]) -> Vec<u8> {
    let mut tar = Archive::new();
    for (time, op) in layer.iter().enumerate() {
        match op {
            Op::Dir(path, mode) => tar.dir(&format!("{path}/"), *mode),
            // Byte 0 makes holes.
            Op::File(path, size, byte) => tar.file(path, &vec![*byte; *size]),
            Op::Symlink(path, target) => tar.symlink(path, target),
            Op::HardLink(path, target) => tar.entry(b'1', path, target, b""),
            Op::Whiteout(path) => {
                let (folder, name) = path.rsplit_once('/').unwrap_or((".", path));
                tar.file(&format!("{folder}/.wh.{name}"), b"")
            }
            Op::Opaque(path) => tar.file(&format!("{path}/.wh..wh..opq"), b""),
            Op::Device(path, device) => tar.node(b'3', path, (*device, *device)),
            Op::Xattr(path, byte) => tar
                .file(path, b"x")
                .pax(&[("SCHILY.xattr.user.a", &[*byte][..])]),
        };
        tar.mtime(time as u64).owner(time as u64 * 1000, 5);
    }
    tar.build()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn every_split_of_a_random_stack_is_as_from_nothing(
        layers in prop::collection::vec(prop::collection::vec(op(), 0..7), 1..6),
    ) {
        let tars: Vec<Vec<u8>> = layers.iter().map(|layer| to_tar(layer)).collect();
        let whole = pack_on(None, &tars);
        for split in 0..=tars.len() {
            // A stack that must be refused may begin with one that is none.
            let Ok(base) = pack_on(None, &tars[..split]) else {
                continue;
            };
            match (pack_on(Some(&base), &tars), &whole) {
                (Ok(made), Ok(whole)) => assert_same(&made, whole),
                (Err(error), Err(expected)) => {
                    let named = |error: &Error| match error {
                        Error::Invalid { why, .. } => why.clone(),
                        other => other.to_string(),
                    };
                    prop_assert_eq!(named(&error), named(expected));
                }
                (made, whole) => {
                    prop_assert!(false, "{:?} and {:?}", made.is_ok(), whole.is_ok());
                }
            }
        }
    }

    #[test]
    fn a_table_of_contents_survives_any_damage(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        thread_local! {
            static SAMPLE: Vec<u8> = {
                let layers = [varied(0), varied(1)];
                let encoded = pack_on(None, &layers).unwrap().toc.encode().unwrap();
                zstd::decode_all(&encoded[b"pcocc squashfs toc 1\n".len() + 32..]).unwrap()
            };
        }
        SAMPLE.with(|sample| {
            assert!(accepts(sample));
            let mut plain = sample.clone();
            for (place, byte) in damage {
                let place = place.index(plain.len());
                plain[place] = byte;
            }
            accepts(&plain);
            accepts(&plain[..plain.len() / 2]);
        });
    }
}
