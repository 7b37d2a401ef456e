//! Paths and additions in a small image. What the kernel makes of it is seen by running images.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use pcocc_core::cancel::Cancel;
use pcocc_layers::squashfs::{BlockCache, FileType, Options, RootfsWriter, Squashfs};

use super::tree::NodeId;
use super::*;

/// An image with links of every kind.
fn tree() -> RootTree {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    for (path, content) in [("etc/passwd", &b"root"[..]), ("usr/bin/sh", b"sh")] {
        header.set_entry_type(tar::EntryType::Regular);
        header.set_size(content.len() as u64);
        tar.append_data(&mut header, path, content).unwrap();
    }
    for (path, target) in [
        ("bin", "usr/bin"),
        ("home", "/usr/home"),
        ("up", "../../../../etc"),
        ("etc/self", "/etc/../etc/passwd"),
        ("round", "/about"),
        ("about", "round"),
        ("dangling", "/not/there"),
    ] {
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        tar.append_link(&mut header, path, target).unwrap();
    }
    let layer = tar.into_inner().unwrap();
    let file = tempfile::tempfile().unwrap();
    let cancel = Cancel::new();
    let name = Path::new("test.squashfs");
    let mut writer =
        RootfsWriter::create(file.try_clone().unwrap(), name, Options::default()).unwrap();
    let layer = writer.layer("one", &mut layer.as_slice(), &cancel).unwrap();
    writer.finish(vec![layer], b"{}", &cancel).unwrap();
    let squashfs = Squashfs::open(Arc::new(file), BlockCache::new(1 << 20)).unwrap();
    let top = squashfs.find(b"rootfs").unwrap().unwrap();
    RootTree::new(squashfs, top, (7, 8))
}

fn resolved(tree: &RootTree, path: &str) -> (PathBuf, bool) {
    let (path, found) = tree.resolve(Path::new(path)).unwrap();
    (path, found.is_some())
}

#[test]
fn links_never_lead_out() {
    let tree = tree();
    for (path, to, there) in [
        ("/", "/", true),
        ("/..", "/", true),
        ("/bin/sh", "/usr/bin/sh", true),
        ("/home/doe/x", "/usr/home/doe/x", false),
        ("/up/passwd", "/etc/passwd", true),
        ("/etc/self", "/etc/passwd", true),
        ("/bin/../../x", "/x", false),
        ("/dangling/a", "/not/there/a", false),
        ("/new/../etc", "/etc", true),
    ] {
        assert_eq!(resolved(&tree, path), (PathBuf::from(to), there), "{path}");
    }
    let error = tree.resolve(Path::new("/round/x")).unwrap_err();
    assert!(matches!(error, TreeError::Loop(_)), "{error}");
    let error = tree.resolve(Path::new("/etc/passwd/x")).unwrap_err();
    assert!(matches!(error, TreeError::NotAFolder(path) if path == Path::new("/etc/passwd")));
}

#[test]
fn what_is_missing_is_added_once() {
    let mut tree = tree();
    let home = tree.ensure_folder(Path::new("/home/doe")).unwrap();
    assert_eq!(home, Path::new("/usr/home/doe"));
    tree.ensure_folder(&home).unwrap();
    tree.ensure_file(Path::new("/usr/home/doe/.profile"))
        .unwrap();
    tree.ensure_folder(Path::new("/etc")).unwrap();
    assert!(resolved(&tree, "/home/doe/.profile").1);
    // usr/home, doe and .profile.
    assert_eq!(tree.added.len(), 3);
    for path in ["/etc/passwd", "/home/doe/.profile"] {
        let error = tree.ensure_folder(Path::new(path)).unwrap_err();
        assert!(matches!(error, TreeError::NotAFolder(_)), "{error}");
    }
    for path in ["/etc", "/home/doe", "/"] {
        let error = tree.ensure_file(Path::new(path)).unwrap_err();
        assert!(matches!(error, TreeError::IsAFolder(_)), "{error}");
    }
}

#[test]
fn added_files_hide_the_images() {
    let mut tree = tree();
    let read = |tree: &RootTree| tree.read_file(Path::new("/etc/self"), 100).unwrap();
    assert_eq!(read(&tree).unwrap(), b"root");
    tree.put_file(Path::new("/etc/self"), b"other".to_vec(), 0o644)
        .unwrap();
    assert_eq!(read(&tree).unwrap(), b"other");
    let (_, etc) = tree.resolve(Path::new("/etc")).unwrap();
    let names = tree.list(tree.folder_id(etc.unwrap()).unwrap()).unwrap();
    let mut names: Vec<_> = names
        .iter()
        .map(|(name, found)| {
            (
                String::from_utf8_lossy(name),
                matches!(found, Found::Added(_)),
            )
        })
        .collect();
    names.sort();
    assert!(names.contains(&("passwd".into(), true)) && names.contains(&("self".into(), false)));
    assert_eq!(names.iter().filter(|(name, _)| name == "passwd").count(), 1);
    assert!(tree.read_file(Path::new("/usr/bin/sh"), 1).is_err());
    assert_eq!(tree.read_file(Path::new("/nope"), 1).unwrap(), None);
}

#[test]
fn a_folder_of_its_own_is_empty_but_for_what_is_added() {
    let mut tree = tree();
    tree.ensure_file(Path::new("/a/b/c")).unwrap();
    let (_, found) = tree.resolve(Path::new("/a/b")).unwrap();
    let folder = tree.folder_id(found.unwrap()).unwrap();
    assert!(matches!(folder, NodeId::Added(_)));
    let names = tree.list(folder).unwrap();
    assert_eq!(names.len(), 1);
    assert_eq!(&*names[0].0, b"c");
    let (_, link) = tree.resolve(Path::new("/")).unwrap();
    assert!(matches!(link, Some(Found::Image(_, FileType::Directory))));
}
