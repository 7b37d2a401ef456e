//! Repositories on a file system of the network: what is published is on disk, and a lost reply is no failure.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use pcocc_tests::{Change, NetworkDisk, Pcocc};

use crate::image::{Image, file_layer};

/// A home whose repository `net`, cache and layouts are on such a file system, and the image `oci:good` beside it.
struct Bed {
    pcocc: Pcocc,
    disk: NetworkDisk,
}

impl Bed {
    fn new() -> Self {
        let pcocc = Pcocc::new();
        let (behind, at) = (pcocc.home().join("behind"), pcocc.home().join("net"));
        for folder in [&behind, &at] {
            fs::create_dir(folder).unwrap();
        }
        let disk = NetworkDisk::mount(&behind, &at);
        pcocc.configure_repositories(
            "repos: [{name: net, path: '%{homedir}/net/site/images'}]\ncache: {path: '%{homedir}/net/cache'}\n",
        );
        Image::new(&[file_layer("one", b"1"), file_layer("two", b"2")])
            .write(&pcocc.home().join("good"));
        Self { pcocc, disk }
    }
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new(""))
}

/// Fails unless all that was made before the change number `end` below `top` survives a crash then. Work in progress may
/// get lost.
#[track_caller]
fn is_on_disk(changes: &[Change], end: usize, top: &Path) {
    let mut seen = 0;
    for (place, change) in changes[..end].iter().enumerate() {
        let (path, inode) = match change {
            Change::Folder(path) => (path, None),
            Change::Name(path, inode) => (path, Some(inode)),
            Change::Flushed(_) | Change::NamesFlushed(_) => continue,
        };
        if !path.starts_with(top) || parent(path).file_name() == Some(OsStr::new(".tmp")) {
            continue;
        }
        seen += 1;
        let names = Change::NamesFlushed(parent(path).to_owned());
        let what = path.display();
        assert!(
            changes[place..end].contains(&names),
            "{what} has a name that was not flushed"
        );
        if let Some(inode) = inode {
            // What is in a folder in the making has no name yet that anybody looks for.
            let in_making = |part: &OsStr| part.as_encoded_bytes().starts_with(b".");
            let by = match parent(path).iter().any(in_making) {
                true => end,
                false => place,
            };
            let content = Change::Flushed(*inode);
            assert!(
                changes[..by].contains(&content),
                "{what} was not flushed before it got its name"
            );
        }
    }
    assert!(seen > 4, "{seen} changes below {}", top.display());
}

#[test]
fn an_image_that_has_a_name_is_on_disk_with_all_folders_above() {
    let bed = Bed::new();
    bed.pcocc.run(&["image", "import", "oci:good", "net:a"]);
    let changes = bed.disk.changes();
    let meta = Path::new("site/images/meta/a@0");
    let named = changes
        .iter()
        .position(|change| matches!(change, Change::Name(path, _) if path == meta));
    let named = named.expect("the image got its name");
    is_on_disk(&changes, named, Path::new("site"));
    let names = Change::NamesFlushed(parent(meta).to_owned());
    assert!(changes[named..].contains(&names), "{names:?} is missing");

    let out = bed.disk.path().join("out/deep/layout");
    fs::create_dir_all(parent(&out)).unwrap();
    bed.disk.changes();
    let export = format!("oci:{}:x", out.display());
    bed.pcocc.run(&["image", "export", "net:a", &export]);
    let changes = bed.disk.changes();
    is_on_disk(&changes, changes.len(), Path::new("out"));
}

#[test]
fn a_change_whose_reply_is_lost_has_worked() {
    let bed = Bed::new();
    let run = |words: &[&str]| bed.pcocc.run(&[&["-q", "image"], words].concat());
    let refused = |words: &[&str]| {
        let outcome = bed.pcocc.try_run(&[&["-q", "image"], words].concat());
        outcome.failed().to_owned()
    };
    bed.disk.lose_replies(true);
    let out = format!("oci:{}/out", bed.disk.path().display());
    run(&["import", "oci:good", "net:a"]);
    // A name that is taken is taken: the answer to a repetition is told from the truth.
    let error = refused(&["import", "oci:good", "net:a"]);
    assert!(error.contains("already exists"), "{error}");
    run(&["import", "oci:good", "net:b"]);
    run(&["copy", "net:a", "net:c"]);
    run(&["export", "net:c", &out]);
    run(&["import", &out, "net:d"]);
    run(&["delete", "net:a"]);
    let error = refused(&["delete", "net:a"]);
    assert!(error.contains("net:a"), "{error}");
    run(&["repo", "gc", "--grace", "0", "net"]);
    run(&["repo", "verify", "net"]);
    run(&["cache", "gc"]);
    let shown = run(&["list", "-R", "net"]);
    let names: Vec<&str> = shown
        .lines()
        .filter_map(|line| line.split(' ').next())
        .collect();
    assert_eq!(names, ["NAME", "b", "c", "d"]);

    bed.disk.lose_replies(false);
    run(&["repo", "verify", "net"]);
    let below = |folder: &str| {
        let folder = bed.disk.path().join("site/images").join(folder);
        fs::read_dir(folder).unwrap().count()
    };
    assert_eq!((below("meta"), below(".tmp")), (3, 0));
}
