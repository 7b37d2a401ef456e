use std::fs as paths;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::process::Command;

use super::calls::faults::{Fault, with};
use super::*;

/// A folder with a file, a folder, and links to both out of another folder.
fn bed() -> (tempfile::TempDir, OpenFolder) {
    let dir = tempfile::tempdir().unwrap();
    for folder in ["root", "root/data", "elsewhere", "elsewhere/ab"] {
        paths::create_dir(dir.path().join(folder)).unwrap();
    }
    for file in ["root/data/file", "elsewhere/file", "elsewhere/ab/file"] {
        paths::write(dir.path().join(file), file).unwrap();
    }
    symlink("../elsewhere", dir.path().join("root/folder")).unwrap();
    symlink("../elsewhere/file", dir.path().join("root/link")).unwrap();
    symlink("data", dir.path().join("root/inner")).unwrap();
    symlink("/dev/zero", dir.path().join("root/zero")).unwrap();
    let root = OpenFolder::open(dir.path().join("root")).unwrap();
    (dir, root)
}

fn refusal<T: std::fmt::Debug>(result: io::Result<T>) -> Refusal {
    let error = result.unwrap_err();
    Refusal::of(&error).unwrap_or_else(|| panic!("{error:?}"))
}

/// With the system call and without it.
fn both(body: impl Fn()) {
    body();
    with(Fault::NoOpenat2, body);
}

#[test]
fn nothing_is_reached_through_a_link() {
    both(|| {
        let (dir, root) = bed();
        assert_eq!(root.read("data/file", 99).unwrap(), b"root/data/file");
        for name in [
            "link",
            "zero",
            "folder/file",
            "folder/ab/file",
            "inner/file",
        ] {
            assert_eq!(refusal(root.open_file(name)), Refusal::Link, "{name}");
            assert_eq!(refusal(root.read(name, 99)), Refusal::Link, "{name}");
            assert_eq!(
                refusal(root.open_or_create(name, 0o600)),
                Refusal::Link,
                "{name}"
            );
        }
        for name in ["folder", "folder/ab", "inner"] {
            assert_eq!(refusal(root.folder(name)), Refusal::Link, "{name}");
            assert_eq!(
                refusal(root.folder_or_new(name, 0o700)),
                Refusal::Link,
                "{name}"
            );
        }
        for name in ["folder/file", "inner/file"] {
            assert_eq!(refusal(root.stat(name)), Refusal::Link);
            assert_eq!(refusal(root.remove_file(name)), Refusal::Link);
            assert_eq!(refusal(root.remove_all(name)), Refusal::Link);
            assert_eq!(refusal(root.rename(name, &root, "x")), Refusal::Link);
            assert_eq!(
                refusal(root.rename("data/file", &root, name)),
                Refusal::Link
            );
            assert_eq!(refusal(root.link(name, &root, "x")), Refusal::Link);
            assert_eq!(refusal(root.touch(name)), Refusal::Link);
            assert_eq!(refusal(root.create_folder(name, 0o700)), Refusal::Link);
            assert_eq!(refusal(root.create_file(name, 0o600)), Refusal::Link);
            let mut temp = root.temp("t", 0o600).unwrap();
            assert_eq!(refusal(temp.replace(&root, name)), Refusal::Link);
            assert_eq!(refusal(temp.create_new(&root, name)), Refusal::Link);
        }
        assert!(root.stat("link").unwrap().is_link());
        for name in [
            "..",
            "../elsewhere/file",
            "/etc/passwd",
            "",
            "./data",
            "data/../link",
        ] {
            assert_eq!(refusal(root.open_file(name)), Refusal::Outside, "{name}");
        }
        // Links themselves can be removed, alone and with the folder they are in.
        paths::create_dir(dir.path().join("root/full")).unwrap();
        symlink("../../elsewhere", dir.path().join("root/full/link")).unwrap();
        for name in ["link", "folder", "full", "missing"] {
            root.remove_all(name).unwrap();
            assert!(!root.has(name));
        }
        assert_eq!(
            paths::read(dir.path().join("elsewhere/ab/file")).unwrap(),
            b"elsewhere/ab/file"
        );
        assert_eq!(
            paths::read_dir(dir.path().join("elsewhere"))
                .unwrap()
                .count(),
            2
        );
    });
}

#[test]
fn the_root_may_be_reached_through_a_link() {
    let (dir, _) = bed();
    symlink("root", dir.path().join("to-root")).unwrap();
    let root = OpenFolder::open(dir.path().join("to-root")).unwrap();
    assert_eq!(root.read("data/file", 99).unwrap(), b"root/data/file");
    // The folder that was opened, wherever the link leads later.
    paths::remove_file(dir.path().join("to-root")).unwrap();
    root.stat("data/file").unwrap();
}

#[test]
fn only_regular_files_are_opened_and_at_once() {
    both(|| {
        let (dir, root) = bed();
        let at = |name: &str| dir.path().join("root").join(name);
        let made = Command::new("mkfifo").arg(at("pipe")).status().unwrap();
        assert!(made.success());
        let _socket = UnixListener::bind(at("socket")).unwrap();
        for name in ["pipe", "socket", "data"] {
            assert_eq!(refusal(root.open_file(name)), Refusal::NotRegular, "{name}");
            assert_eq!(refusal(root.read(name, 9)), Refusal::NotRegular, "{name}");
        }
        assert_eq!(
            refusal(root.open_or_create("pipe", 0o600)),
            Refusal::NotRegular
        );
        assert_eq!(refusal(root.open_to_lock("pipe")), Refusal::NotRegular);
        root.open_to_lock("data").unwrap();
        let file = root.open_file("data/file").unwrap();
        let flags = fs::fcntl_getfl(&file).unwrap();
        assert!(!flags.contains(OFlags::NONBLOCK));
        assert_eq!(refusal(root.read("data/file", 13)), Refusal::TooLarge(13));
        let error = root.read("missing", 9).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    });
}

#[test]
fn a_file_at_a_path_is_no_link_and_no_pipe() {
    let (dir, _) = bed();
    let at = |name: &str| dir.path().join("root").join(name);
    let mut text = String::new();
    open_file(&at("inner/file"))
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    assert_eq!(text, "root/data/file");
    append_to(&at("data/file"), 0o600)
        .unwrap()
        .write_all(b"+")
        .unwrap();
    append_to(&at("data/new"), 0o600)
        .unwrap()
        .write_all(b"+")
        .unwrap();
    assert_eq!(paths::read(at("data/file")).unwrap(), b"root/data/file+");
    assert_eq!(paths::read(at("data/new")).unwrap(), b"+");
    let made = Command::new("mkfifo").arg(at("pipe")).status().unwrap();
    assert!(made.success());
    for (name, why) in [
        ("link", Refusal::Link),
        ("zero", Refusal::Link),
        ("pipe", Refusal::NotRegular),
    ] {
        assert_eq!(refusal(open_file(&at(name))), why, "{name}");
        assert_eq!(refusal(append_to(&at(name), 0o600)), why, "{name}");
    }
    assert_eq!(
        paths::read(dir.path().join("elsewhere/file")).unwrap(),
        b"elsewhere/file"
    );
}

#[test]
fn a_tree_of_any_depth_goes() {
    let (dir, root) = bed();
    let mut folder = root.folder_or_new("deep", 0o700).unwrap();
    for level in 0..300 {
        folder.create_file(format!("file-{level}"), 0o600).unwrap();
        folder = folder.folder_or_new("below", 0o700).unwrap();
    }
    root.remove_all("deep").unwrap();
    assert_eq!(root.names().unwrap().len(), 5);
    drop(dir);
}

#[test]
fn folders_are_made_and_listed() {
    both(|| {
        let (dir, root) = bed();
        let made = root.folder_or_new("data/new", 0o750).unwrap();
        made.create_file("file", 0o640)
            .unwrap()
            .write_all(b"x")
            .unwrap();
        assert_eq!(
            root.folder_or_new("data/new", 0o700)
                .unwrap()
                .names()
                .unwrap(),
            ["file"]
        );
        let error = root.create_folder("data/new", 0o700).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        let error = root.create_folder("no/new", 0o700).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        let mode = paths::metadata(dir.path().join("root/data/new"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o750);
        assert!(root.remove_folder("data/new").is_err());
        made.remove_file("file").unwrap();
        assert!(made.remove_file("file").is_err());
        root.remove_folder("data/new").unwrap();
    });
}

#[test]
fn only_the_first_creates_anyone_replaces() {
    for fault in [None, Some(Fault::NoHardLinks), Some(Fault::NoOpenat2)] {
        let body = || {
            let (_dir, root) = bed();
            let temp = |text: &str| {
                let mut temp = root.temp("temp-", 0o644).unwrap();
                temp.write_all(text.as_bytes()).unwrap();
                temp
            };
            temp("1").create_new(&root, "data/new").unwrap();
            let mut second = temp("2");
            let error = second.create_new(&root, "data/new").unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
            assert!(second.path().exists());
            drop(second);
            assert_eq!(root.read("data/new", 9).unwrap(), b"1");
            temp("3").replace(&root, "data/new").unwrap();
            assert_eq!(root.read("data/new", 9).unwrap(), b"3");
            assert!(temp("4").create_new(&root, "no/new").is_err());
            assert!(temp("5").replace(&root, "no/new").is_err());
            // No temporary name is left.
            assert_eq!(root.names().unwrap().len(), 5);
        };
        match fault {
            None => body(),
            Some(fault) => with(fault, body),
        }
    }
}

#[test]
fn what_worked_although_the_reply_was_lost_has_worked() {
    let (dir, root) = bed();
    with(Fault::LostReplies, || {
        let temp = |text: &str| {
            let mut temp = root.temp("temp-", 0o644).unwrap();
            temp.write_all(text.as_bytes()).unwrap();
            temp
        };
        temp("1").create_new(&root, "data/new").unwrap();
        assert_eq!(root.read("data/new", 9).unwrap(), b"1");
        // The name is another's: this is no lost reply.
        let error = temp("2").create_new(&root, "data/new").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        temp("3").replace(&root, "data/new").unwrap();
        assert_eq!(root.read("data/new", 9).unwrap(), b"3");
        root.rename("data/new", &root, "data/newer").unwrap();
        assert!(!root.has("data/new") && root.has("data/newer"));
        root.link("data/newer", &root, "data/twin").unwrap();
        let error = root.link("data/file", &root, "data/twin").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        root.remove_file("data/twin").unwrap();
        assert!(!root.has("data/twin"));
        let error = root.rename("data/missing", &root, "x").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        let error = root.remove_file("data/missing").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        let folder = |file: &str| {
            let temp = root.temp_folder("temp-", 0o700).unwrap();
            temp.folder().create_file(file, 0o600).unwrap();
            temp
        };
        folder("1").create_new(&root, "made").unwrap();
        let taken = folder("2").create_new(&root, "made").unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::AlreadyExists);
        assert!(folder("3").replace_empty(&root, "made").is_err());
        root.folder_or_new("empty", 0o700).unwrap();
        folder("4").replace_empty(&root, "empty").unwrap();
        assert!(root.has("made/1") && root.has("empty/4"));
        root.remove_all("made").unwrap();
        root.remove_file("empty/4").unwrap();
        root.remove_folder("empty").unwrap();
        let error = root.remove_folder("empty").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    });
    assert_eq!(paths::read_dir(dir.path().join("root")).unwrap().count(), 5);
}

#[test]
fn a_temporary_file_is_opened_again_only_as_itself() {
    let (dir, root) = bed();
    let mut temp = root.temp("temp-", 0o600).unwrap();
    temp.write_all(b"mine").unwrap();
    let path = temp.path();
    assert_eq!(paths::read(temp.path_for_children()).unwrap(), b"mine");
    let mut again = temp.reopen().unwrap();
    let mut text = String::new();
    again.read_to_string(&mut text).unwrap();
    assert_eq!(text, "mine");
    assert_eq!(paths::metadata(&path).unwrap().mode() & 0o777, 0o600);
    paths::remove_file(&path).unwrap();
    paths::write(&path, "theirs").unwrap();
    assert!(temp.reopen().is_err());
    drop(dir);
}
