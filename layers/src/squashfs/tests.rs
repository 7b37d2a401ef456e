//! What the writer stores is what both readers show; the reader survives any file.

mod base;
mod hostile;
mod model;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::error::{Error, Result};
use crate::tar::tests::archive::Archive;
use pcocc_core::cancel::Cancel;

/// Everything about a file that `stat`, `readlink`, `read` and `getxattr` show.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    attributes: Attributes,
    content: Vec<u8>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

fn pack_with(options: Options, layers: &[Vec<u8>]) -> Result<(Summary, File)> {
    let file = tempfile::tempfile().unwrap();
    let cancel = Cancel::new();
    let path = Path::new("test.squashfs");
    let mut writer = RootfsWriter::create(file.try_clone().unwrap(), path, options)?;
    let mut trees = Vec::new();
    for (number, layer) in layers.iter().enumerate() {
        trees.push(writer.layer(&number.to_string(), &mut layer.as_slice(), &cancel)?);
    }
    let finished = writer.finish(trees, br#"{"os":"linux"}"#, &cancel)?;
    Ok((finished.summary, file))
}

fn pack(layers: &[Vec<u8>]) -> Result<(Summary, File)> {
    pack_with(Options::default(), layers)
}

fn open(file: File) -> Squashfs {
    Squashfs::open(Arc::new(file), BlockCache::new(1 << 20)).unwrap()
}

/// Reads the whole tree; fails as the reader fails.
fn walk(squashfs: &Squashfs) -> Result<BTreeMap<Vec<u8>, Seen>> {
    let mut all = BTreeMap::new();
    let mut pending = vec![(Vec::new(), squashfs.root(), 0)];
    while let Some((path, inode, depth)) = pending.pop() {
        let attributes = squashfs.attributes(inode)?;
        let mut content = Vec::new();
        match attributes.file_type {
            FileType::Directory if depth < 64 && all.len() < 100_000 => {
                for entry in squashfs.read_dir(inode)? {
                    let path = [path.as_slice(), b"/", &entry.name].concat();
                    assert_eq!(squashfs.lookup(inode, &entry.name)?.as_ref(), Some(&entry));
                    pending.push((path, entry.inode, depth + 1));
                }
            }
            FileType::Symlink => content = squashfs.read_link(inode)?,
            FileType::Regular => {
                content = vec![0; attributes.size.min(4 << 20) as usize];
                let count = squashfs.read_at(inode, 0, &mut content)?;
                assert_eq!(count, content.len());
            }
            _ => {}
        }
        let seen = Seen {
            attributes,
            content,
            xattrs: squashfs.xattrs(inode)?,
        };
        all.insert(path, seen);
    }
    Ok(all)
}

/// Packs and walks, with paths relative to the image's root.
fn image(layers: &[Vec<u8>]) -> BTreeMap<String, Seen> {
    let (_, file) = pack(layers).unwrap();
    walk(&open(file))
        .unwrap()
        .into_iter()
        .filter_map(|(path, seen)| {
            let path = String::from_utf8_lossy(&path).into_owned();
            Some((path.strip_prefix("/rootfs")?.to_owned(), seen))
        })
        .collect()
}

fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    })
    .take(length)
    .collect()
}

#[test]
fn every_kind_of_file_comes_out_as_it_went_in() {
    let big = noise(300_000);
    let mut holey = noise(128 << 10);
    holey.extend(vec![0; 256 << 10]);
    holey.extend(b"end");
    let long = "long/".repeat(50) + "name";
    let target = "t/".repeat(300);
    let mut tar = Archive::new();
    tar.dir("./", 0o711).dir("d/", 0o1777);
    tar.file("d/small", b"hello").owner(1000, 2_000_000);
    tar.file("d/big", &big).mtime(1_234_567_890);
    tar.file("d/holey", &holey).file("d/empty", b"");
    tar.file("d/zeros", &[0; 5000]);
    tar.file("d/setuid", b"#!").mode(0o4755);
    tar.link("d/hard", "d/big").link("hard2", "/d/big");
    tar.symlink("d/soft", "../else where")
        .symlink("d/long", &target);
    tar.node(b'3', "null", (1, 3))
        .node(b'4', "disk", (259, 1000));
    tar.node(b'6', "pipe", (0, 0));
    tar.file("caps", b"x");
    tar.pax(&[
        ("SCHILY.xattr.security.capability", b"\x01\0\0\x02\xff"),
        ("SCHILY.xattr.user.note", b"n"),
        ("SCHILY.xattr.system.posix_acl_access", b"dropped"),
    ]);
    tar.file(&long, b"deep");
    tar.file("", b"latin").bytes_name(b"caf\xe9");
    for data in [Data::Stored, Data::Zstd(1)] {
        let options = Options {
            data,
            ..Options::default()
        };
        let (summary, file) = pack_with(options, &[tar.build()]).unwrap();
        assert_eq!(summary.bytes, file.metadata().unwrap().len());
        assert_eq!(summary.bytes % 4096, 0);
        assert_eq!(summary.dropped_xattrs, 1);
        let squashfs = open(file);
        let all = walk(&squashfs).unwrap();
        let at = |path: &str| &all[path.as_bytes()];
        assert_eq!(at("/config.json").content, br#"{"os":"linux"}"#);
        assert_eq!(at("/rootfs").attributes.mode, 0o711);
        assert_eq!(at("/rootfs/d").attributes.mode, 0o1777);
        assert_eq!(at("/rootfs/d").attributes.nlink, 2);
        let small = at("/rootfs/d/small");
        assert_eq!(
            (small.attributes.uid, small.attributes.gid),
            (1000, 2_000_000)
        );
        assert_eq!(small.content, b"hello");
        assert_eq!(at("/rootfs/d/big").content, big);
        assert_eq!(at("/rootfs/d/big").attributes.nlink, 3);
        assert_eq!(
            at("/rootfs/d/big").attributes,
            at("/rootfs/hard2").attributes
        );
        assert_eq!(at("/rootfs/d/hard").attributes.mtime, 1_234_567_890);
        assert_eq!(at("/rootfs/d/holey").content, holey);
        assert_eq!(at("/rootfs/d/holey").attributes.blocks, 257);
        assert_eq!(at("/rootfs/d/zeros").content, vec![0; 5000]);
        assert_eq!(at("/rootfs/d/zeros").attributes.blocks, 0);
        assert_eq!(at("/rootfs/d/empty").attributes.size, 0);
        assert_eq!(at("/rootfs/d/setuid").attributes.mode, 0o4755);
        assert_eq!(at("/rootfs/d/soft").content, b"../else where");
        assert_eq!(at("/rootfs/d/long").content, target.as_bytes());
        assert_eq!(at("/rootfs/null").attributes.rdev, 0x103);
        assert_eq!(
            at("/rootfs/null").attributes.file_type,
            FileType::CharDevice
        );
        assert_eq!(
            at("/rootfs/disk").attributes.file_type,
            FileType::BlockDevice
        );
        assert_eq!(at("/rootfs/pipe").attributes.file_type, FileType::Fifo);
        assert_eq!(
            at("/rootfs/caps").xattrs,
            [
                (
                    b"security.capability".to_vec(),
                    b"\x01\0\0\x02\xff".to_vec()
                ),
                (b"user.note".to_vec(), b"n".to_vec()),
            ]
        );
        assert_eq!(all[&b"/rootfs/caf\xe9"[..]].content, b"latin");
        assert_eq!(at(&format!("/rootfs/{long}")).content, b"deep");
        for name in ["resolv.conf", "group", "passwd"] {
            assert_eq!(at(&format!("/rootfs/etc/{name}")).attributes.size, 0);
        }
        assert_eq!(squashfs.inode_count(), summary.inodes);
    }
}

#[test]
fn backhand_reads_the_same_files() {
    let big = noise(300_000);
    let mut tar = Archive::new();
    tar.dir("d/", 0o755)
        .file("d/big", &big)
        .file("d/small", b"hello")
        .symlink("s", "d/small");
    let (_, mut file) = pack(&[tar.build()]).unwrap();
    std::io::Seek::rewind(&mut file).unwrap();
    let reader = backhand::FilesystemReader::from_reader(BufReader::new(file)).unwrap();
    let mut found = BTreeMap::new();
    for node in reader.files() {
        let mut content = Vec::new();
        if let backhand::InnerNode::File(file) = &node.inner {
            reader
                .file(file)
                .reader()
                .read_to_end(&mut content)
                .unwrap();
        }
        found.insert(node.fullpath.to_string_lossy().into_owned(), content);
    }
    assert_eq!(found["/rootfs/d/big"], big);
    assert_eq!(found["/rootfs/d/small"], b"hello");
    assert_eq!(found["/config.json"], br#"{"os":"linux"}"#);
    assert!(found.contains_key("/rootfs/s"));
    assert_eq!(found.len(), 11);
}

#[test]
fn upper_layers_replace_hide_and_keep() {
    let mut lower = Archive::new();
    lower
        .dir("keep/", 0o700)
        .file("keep/a", b"1")
        .file("keep/b", b"2");
    lower.dir("gone/", 0o755).file("gone/x", b"x");
    lower.dir("opaque/", 0o755).file("opaque/old", b"o");
    lower
        .file("was-file", b"f")
        .dir("was-dir/", 0o755)
        .file("was-dir/x", b"");
    lower
        .symlink("lib", "usr/lib")
        .dir("usr/", 0o755)
        .dir("usr/lib/", 0o755);
    lower.file("one", b"same").link("two", "one");
    let mut upper = Archive::new();
    upper
        .file("keep/c", b"3")
        .file("keep/.wh.a", b"")
        .file(".wh.gone", b"");
    upper
        .file("opaque/new", b"n")
        .file("opaque/.wh..wh..opq", b"");
    upper
        .dir("was-file/", 0o750)
        .file("was-file/in", b"")
        .file("was-dir", b"now");
    upper.file("lib/real", b"").file("one", b"other");
    upper
        .file(".wh..wh.aufs", b"")
        .file("twice", b"1")
        .file("twice", b"2");
    let seen = image(&[lower.build(), upper.build()]);
    let names: Vec<&str> = seen.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "",
            "/etc",
            "/etc/group",
            "/etc/passwd",
            "/etc/resolv.conf",
            "/keep",
            "/keep/b",
            "/keep/c",
            "/lib",
            "/lib/real",
            "/one",
            "/opaque",
            "/opaque/new",
            "/twice",
            "/two",
            "/usr",
            "/usr/lib",
            "/was-dir",
            "/was-file",
            "/was-file/in",
        ]
    );
    assert_eq!(
        seen["/keep"].attributes.mode, 0o700,
        "a folder only needed keeps its attributes"
    );
    assert_eq!(seen["/was-file"].attributes.mode, 0o750);
    assert_eq!(seen["/twice"].content, b"2");
    assert_eq!(seen["/two"].content, b"same");
    assert_eq!(seen["/two"].attributes.nlink, 1);
    assert_eq!(seen["/lib"].attributes.file_type, FileType::Directory);
}

#[test]
fn a_whiteout_concerns_only_the_layers_below() {
    let mut lower = Archive::new();
    lower.dir("d/", 0o755).file("d/old", b"").file("f", b"old");
    for first in [true, false] {
        let mut upper = Archive::new();
        if first {
            upper.file(".wh.d", b"").file(".wh.f", b"");
        }
        upper.dir("d/", 0o700).file("d/new", b"").file("f", b"new");
        if !first {
            upper.file(".wh.d", b"").file(".wh.f", b"");
        }
        let seen = image(&[lower.build(), upper.build()]);
        assert!(seen.contains_key("/d/new"));
        assert!(!seen.contains_key("/d/old"), "whiteout first: {first}");
        assert_eq!(seen["/f"].content, b"new");
    }
}

#[test]
fn a_path_may_go_through_a_link_of_its_own_layer() {
    let mut tar = Archive::new();
    tar.dir("usr/", 0o755)
        .dir("usr/lib/", 0o755)
        .symlink("lib", "/usr/lib");
    tar.symlink("up", "../../usr/./lib")
        .file("lib/a", b"a")
        .file("up/sub/b", b"b");
    let seen = image(&[tar.build()]);
    assert_eq!(seen["/usr/lib/a"].content, b"a");
    assert_eq!(seen["/usr/lib/sub/b"].content, b"b");
    assert_eq!(seen["/lib"].attributes.file_type, FileType::Symlink);
}

#[test]
fn a_hard_link_may_name_a_file_of_a_lower_layer() {
    let mut lower = Archive::new();
    lower.file("a", b"content").mode(0o640);
    let mut upper = Archive::new();
    upper.link("b", "a").file(".wh.a", b"");
    let seen = image(&[lower.build(), upper.build()]);
    assert_eq!(seen["/b"].content, b"content");
    assert_eq!(seen["/b"].attributes.nlink, 1);
    assert!(!seen.contains_key("/a"));
}

#[test]
fn sparse_files_of_all_formats_are_read() {
    let mut expected = vec![0; 1000];
    expected[100..103].copy_from_slice(b"abc");
    expected[500..502].copy_from_slice(b"de");
    let old = Archive::gnu_sparse("s", &[(100, 3), (500, 2)], 1000, b"abcde");
    let mut v1 = Archive::new();
    let mut content = b"2\n100\n3\n500\n2\n".to_vec();
    content.resize(512, 0);
    content.extend(b"abcde");
    v1.file("GNUSparseFile.0/s", &content).pax(&[
        ("GNU.sparse.major", b"1"),
        ("GNU.sparse.minor", b"0"),
        ("GNU.sparse.name", b"s"),
        ("GNU.sparse.realsize", b"1000"),
    ]);
    let mut v01 = Archive::new();
    v01.file("s", b"abcde").pax(&[
        ("GNU.sparse.size", b"1000"),
        ("GNU.sparse.numblocks", b"2"),
        ("GNU.sparse.map", b"100,3,500,2"),
    ]);
    for tar in [old, v1.build(), v01.build()] {
        assert_eq!(image(&[tar])["/s"].content, expected);
    }
}

#[test]
fn a_huge_sparse_file_takes_no_space_and_is_read_anywhere() {
    let size = 10u64 << 30;
    let tar = Archive::gnu_sparse("s", &[(5 << 30, 3), (size - 2, 2)], size, b"abcde");
    let (summary, file) = pack(&[tar]).unwrap();
    assert!(summary.bytes < 400_000, "{summary:?}");
    let squashfs = open(file);
    let inode = squashfs.find(b"rootfs/s").unwrap().unwrap();
    assert_eq!(squashfs.attributes(inode).unwrap().size, size);
    let mut buffer = [9; 8];
    assert_eq!(squashfs.read_at(inode, size - 5, &mut buffer).unwrap(), 5);
    assert_eq!(&buffer[..5], b"\0\0\0de");
    assert_eq!(
        squashfs.read_at(inode, (5 << 30) - 1, &mut buffer).unwrap(),
        8
    );
    assert_eq!(&buffer, b"\0abc\0\0\0\0");
    assert_eq!(squashfs.read_at(inode, size, &mut buffer).unwrap(), 0);
}

#[test]
fn a_large_folder_is_indexed() {
    let mut tar = Archive::new();
    for number in 0..6000 {
        tar.file(
            &format!("many/{number:x}-{}", "n".repeat(number % 200)),
            b"",
        );
    }
    let (_, file) = pack(&[tar.build()]).unwrap();
    let squashfs = open(file);
    let many = squashfs.find(b"rootfs/many").unwrap().unwrap();
    let entries = squashfs.read_dir(many).unwrap();
    assert_eq!(entries.len(), 6000);
    for entry in entries.iter().step_by(7) {
        let found = squashfs.lookup(many, &entry.name).unwrap();
        assert_eq!(found.as_ref(), Some(entry));
    }
    for missing in [&b""[..], b"zzz", b"0", b"-", b"7ff-"] {
        assert_eq!(squashfs.lookup(many, missing).unwrap(), None);
    }
}

#[test]
fn a_layer_may_be_empty_and_is_read_to_its_end() {
    let mut trailing = Archive::new();
    trailing.file("a", b"");
    let mut trailing = trailing.build();
    trailing.extend(vec![7; 100_000]);
    let cancel = Cancel::new();
    let file = tempfile::tempfile().unwrap();
    let path = Path::new("x");
    let mut writer = RootfsWriter::create(file, path, Options::default()).unwrap();
    let mut input = trailing.as_slice();
    let tree = writer.layer("0", &mut input, &cancel).unwrap();
    assert!(input.is_empty());
    let empty = writer.layer("1", &mut std::io::empty(), &cancel).unwrap();
    writer.finish(vec![tree, empty], b"", &cancel).unwrap();
}

#[test]
fn a_full_disk_and_a_raised_flag_end_it() {
    let mut tar = Archive::new();
    tar.file("a", &noise(5 << 20));
    let tar = tar.build();
    let full = File::options().write(true).open("/dev/full").unwrap();
    let cancel = Cancel::new();
    let path = Path::new("x");
    let mut writer = RootfsWriter::create(full, path, Options::default()).unwrap();
    let error = match writer.layer("0", &mut tar.as_slice(), &cancel) {
        Ok(tree) => writer.finish(vec![tree], b"", &cancel).unwrap_err(),
        Err(error) => error,
    };
    assert_eq!(error.raw_os_error(), Some(28), "{error}");

    let file = tempfile::tempfile().unwrap();
    let mut writer = RootfsWriter::create(file, path, Options::default()).unwrap();
    cancel.cancel();
    let error = writer.layer("0", &mut tar.as_slice(), &cancel).unwrap_err();
    assert!(matches!(error, Error::Cancelled(_)), "{error}");
}

#[test]
fn equal_layers_give_equal_files() {
    let mut tar = Archive::new();
    tar.file("a", &noise(1 << 20)).file("b", b"b");
    let bytes = || {
        let (_, mut file) = pack(&[tar.build()]).unwrap();
        std::io::Seek::rewind(&mut file).unwrap();
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).unwrap();
        bytes
    };
    assert!(bytes() == bytes());
}
