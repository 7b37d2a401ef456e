use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

use super::*;
use crate::transfer::{Offer, Receiver};
use pcocc_layers::Compression;
use pcocc_layers::DiffId;

/// A daemon's image of a base layer and one of its own, that counts its exports.
struct Daemon {
    image: &'static str,
    exports: AtomicUsize,
    fails: Option<fn(&Context) -> Error>,
}

impl Daemon {
    fn new(image: &'static str) -> Self {
        Self {
            image,
            exports: AtomicUsize::new(0),
            fails: None,
        }
    }

    fn layers(&self) -> Vec<Vec<u8>> {
        [b"base", self.image.as_bytes()].map(tar).to_vec()
    }

    fn config(&self) -> Vec<u8> {
        let layers = self.layers();
        let ids: Vec<_> = layers.iter().map(|layer| Digest::of(layer)).collect();
        serde_json::json!({
            "architecture": "amd64", "os": "linux", "config": {},
            "rootfs": {"type": "layers", "diff_ids": ids},
        })
        .to_string()
        .into_bytes()
    }

    fn id(&self) -> Digest {
        Digest::of(&self.config())
    }
}

fn tar(name: &[u8]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let content = vec![7; 50_000];
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    let name = String::from_utf8(name.to_vec()).unwrap();
    tar.append_data(&mut header, name, &content[..]).unwrap();
    tar.into_inner().unwrap()
}

impl Source for Daemon {
    fn send(&self, receiver: &mut dyn Receiver, context: &Context) -> Result<Image> {
        self.exports.fetch_add(1, Ordering::Relaxed);
        thread::sleep(Duration::from_millis(40));
        let layers = self.layers();
        let ids: Vec<_> = layers
            .iter()
            .map(|layer| DiffId(Digest::of(layer)))
            .collect();
        receiver.expect_layers(&ids, context)?;
        let mut taken = Vec::new();
        for layer in layers {
            let offer = Offer {
                blob: None,
                compression: Compression::None,
                diff_id: Some(DiffId(Digest::of(&layer))),
                size: None,
                file: None,
                is_far: false,
                open: &|| Ok(Box::new(&layer[..])),
            };
            taken.push(receiver.layer(&offer, context)?);
        }
        match self.fails {
            Some(fails) => Err(fails(context)),
            None => Image::assemble(self.config(), taken),
        }
    }
}

fn children(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|child| child.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "lock" && name != "boot")
        .collect();
    names.sort();
    names
}

fn bytes_in(path: &Path) -> u64 {
    let metadata = fs::metadata(path).unwrap();
    if metadata.is_file() {
        return metadata.len();
    }
    let children = fs::read_dir(path).unwrap();
    children.map(|child| bytes_in(&child.unwrap().path())).sum()
}

fn spool(dir: &TempDir, max_bytes: u64) -> Spool {
    Spool::open(dir.path().to_owned(), max_bytes).unwrap()
}

#[test]
fn an_image_is_exported_once_and_kept() {
    let dir = TempDir::new().unwrap();
    let daemon = Daemon::new("a");
    let context = Context::silent();
    // As many processes as threads: each has a spool of its own.
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let spool = spool(&dir, u64::MAX);
                let image = spool.get(daemon.id(), &daemon, &Context::silent()).unwrap();
                assert_eq!(image.image(&Context::silent()).unwrap().id(), daemon.id());
            });
        }
    });
    assert_eq!(daemon.exports.load(Ordering::Relaxed), 1);
    assert_eq!(children(dir.path()), [daemon.id().hex()]);
    let spool = spool(&dir, u64::MAX);
    let image = spool.get(daemon.id(), &daemon, &context).unwrap();
    assert!(Arc::ptr_eq(
        &image,
        &spool.get(daemon.id(), &daemon, &context).unwrap()
    ));
    assert_eq!(daemon.exports.load(Ordering::Relaxed), 1);
    assert!(image.root_filesystem().metadata().unwrap().len() > 0);
    for (layer, plain) in image.image.layers().iter().zip(daemon.layers()) {
        assert_eq!(layer.diff_id, DiffId(Digest::of(&plain)));
        let file = image.layer_file(layer).unwrap();
        assert_eq!(
            Digest::of(&pcocc_core::beneath::read(file, u64::MAX).unwrap()),
            layer.digest
        );
        let mut content = Vec::new();
        image
            .open_layer(layer)
            .unwrap()
            .read_to_end(&mut content)
            .unwrap();
        assert_eq!(Digest::of(&content), layer.digest);
    }
}

#[test]
fn layers_of_other_images_are_linked() {
    use std::os::unix::fs::MetadataExt;
    let dir = TempDir::new().unwrap();
    let spool = spool(&dir, u64::MAX);
    let inodes = ["a", "b"].map(|name| {
        let daemon = Daemon::new(name);
        let image = spool.get(daemon.id(), &daemon, &Context::silent()).unwrap();
        let base = image.layer_file(&image.image.layers()[0]).unwrap();
        base.metadata().unwrap().ino()
    });
    assert_eq!(inodes[0], inodes[1]);
}

#[test]
fn a_squashfs_begins_with_that_of_another_image() {
    let (dir, other) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let bytes = |spool: &Spool, daemon: &Daemon| {
        let image = spool.get(daemon.id(), daemon, &Context::silent()).unwrap();
        let mut bytes = Vec::new();
        let file = image.root_filesystem();
        (&*file).read_to_end(&mut bytes).unwrap();
        bytes
    };
    let (first, second) = (Daemon::new("a"), Daemon::new("b"));
    let spooled = spool(&dir, u64::MAX);
    bytes(&spooled, &first);
    let ids: Vec<_> = second
        .layers()
        .iter()
        .map(|layer| DiffId(Digest::of(layer)))
        .collect();
    let base = spooled.bounded.folder.base(&ids).unwrap();
    assert_eq!(base.path, dir.path().join(first.id().hex()).join(ROOTFS));
    let expected = bytes(&spool(&other, u64::MAX), &second);
    assert!(bytes(&spooled, &second) == expected);
    // A table that is no use costs nothing but time.
    for id in [first.id(), second.id()] {
        fs::write(dir.path().join(id.hex()).join(TOC), "nonsense").unwrap();
    }
    assert!(spooled.bounded.folder.base(&ids).is_none());
    let third = Daemon::new("c");
    let expected = bytes(&spool(&other, u64::MAX), &third);
    assert!(bytes(&spooled, &third) == expected);
}

#[test]
fn a_failed_or_cancelled_export_leaves_nothing() {
    let dir = TempDir::new().unwrap();
    let spool = spool(&dir, u64::MAX);
    let fails: [fn(&Context) -> Error; 3] = [
        |context| {
            context.cancel.cancel();
            Error::Cancelled
        },
        |_| Error::invalid("daemon", "lies"),
        |_| Error::io("write", "/spool")(io::Error::from_raw_os_error(28)),
    ];
    for fail in fails {
        let daemon = Daemon {
            fails: Some(fail),
            ..Daemon::new("a")
        };
        assert!(spool.get(daemon.id(), &daemon, &Context::silent()).is_err());
        assert_eq!(children(dir.path()), [""; 0]);
    }
    let daemon = Daemon::new("a");
    spool.get(daemon.id(), &daemon, &Context::silent()).unwrap();
}

#[test]
fn waiting_for_an_export_can_be_cancelled() {
    let dir = TempDir::new().unwrap();
    let spool = spool(&dir, u64::MAX);
    let daemon = Daemon::new("a");
    let _turn = spool
        .bounded
        .folder
        .turn(daemon.id(), &Context::silent())
        .unwrap();
    let context = Context::silent();
    let cancel = context.cancel.clone();
    let waiting = thread::spawn(move || {
        thread::sleep(Duration::from_millis(80));
        cancel.cancel();
    });
    let error = spool.get(daemon.id(), &daemon, &context).unwrap_err();
    assert!(matches!(error, Error::Cancelled));
    waiting.join().unwrap();
}

#[test]
fn the_least_recently_used_goes_first_and_never_one_in_use() {
    let dir = TempDir::new().unwrap();
    let daemons = ["a", "b", "c", "d"].map(Daemon::new);
    let spool = spool(&dir, u64::MAX);
    let context = Context::silent();
    let used = spool.get(daemons[0].id(), &daemons[0], &context).unwrap();
    for daemon in &daemons[1..3] {
        spool.get(daemon.id(), daemon, &context).unwrap();
        thread::sleep(Duration::from_millis(20));
    }
    spool.get(daemons[1].id(), &daemons[1], &context).unwrap();
    assert_eq!(spool.bounded.folder.evict(u64::MAX).unwrap().freed, 0);
    // A little less room than is used: `a` is in use, and `c` was used before `b` was.
    let total: u64 = daemons[..3]
        .iter()
        .map(|daemon| bytes_in(&dir.path().join(daemon.id().hex())))
        .sum();
    assert!(spool.bounded.folder.evict(total - 1).unwrap().freed > 0);
    let mut left = [&daemons[0], &daemons[1]].map(|daemon| daemon.id().hex());
    left.sort();
    assert_eq!(children(dir.path()), left);
    spool.bounded.folder.evict(0).unwrap();
    assert_eq!(children(dir.path()), [daemons[0].id().hex()]);
    drop(used);
    spool.bounded.folder.evict(0).unwrap();
    assert_eq!(children(dir.path()), [""; 0]);
    // One larger than the whole spool is still given out.
    let small = Spool::open(dir.path().to_owned(), 1).unwrap();
    let image = small.get(daemons[3].id(), &daemons[3], &context).unwrap();
    assert!(image.layer_file(&image.image.layers()[0]).is_some());
    assert_eq!(children(dir.path()), [daemons[3].id().hex()]);
    drop(image);
    wait_until_empty(dir.path());
}

#[test]
fn what_was_too_much_goes_when_it_is_not_used_any_more() {
    let dir = TempDir::new().unwrap();
    let spool = spool(&dir, 1);
    let [a, b] = ["a", "b"].map(Daemon::new);
    let context = Context::silent();
    let image = spool.get(a.id(), &a, &context).unwrap();
    let rootfs = image.root_filesystem();
    drop(image);
    // Its root file system is in use still.
    let other = spool.get(b.id(), &b, &context).unwrap();
    let mut both = [&a, &b].map(|daemon| daemon.id().hex());
    both.sort();
    assert_eq!(children(dir.path()), both);
    drop(rootfs);
    drop(other);
    wait_until_empty(dir.path());
}

fn wait_until_empty(dir: &Path) {
    let until = std::time::Instant::now() + Duration::from_secs(5);
    while !children(dir).is_empty() {
        assert!(std::time::Instant::now() < until, "{:?}", children(dir));
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_full_disk_is_told_with_its_folder() {
    let dir = TempDir::new().unwrap();
    let daemon = Daemon {
        fails: Some(|_| Error::io("write", "/x")(io::Error::from_raw_os_error(28))),
        ..Daemon::new("a")
    };
    let error = spool(&dir, u64::MAX)
        .get(daemon.id(), &daemon, &Context::silent())
        .unwrap_err();
    assert_eq!(error.raw_os_error(), Some(28));
    let text = error.to_string();
    assert!(text.contains(&*dir.path().to_string_lossy()), "{text}");
    assert!(text.contains("TMPDIR"), "{text}");
}

#[test]
fn links_in_it_are_not_followed() {
    let dir = TempDir::new().unwrap();
    let elsewhere = TempDir::new().unwrap();
    fs::write(elsewhere.path().join("precious"), "").unwrap();
    let daemon = Daemon::new("a");
    let context = Context::silent();
    let entry = dir.path().join(daemon.id().hex());
    for name in [&*daemon.id().hex(), "tmp-link"] {
        std::os::unix::fs::symlink(elsewhere.path(), dir.path().join(name)).unwrap();
    }
    drop(spool(&dir, 1).get(daemon.id(), &daemon, &context).unwrap());
    drop(
        spool(&dir, u64::MAX)
            .get(daemon.id(), &daemon, &context)
            .unwrap(),
    );
    assert!(fs::symlink_metadata(&entry).unwrap().is_dir());
    // A link in the entry makes it broken.
    let index = entry.join("index.json");
    fs::copy(&index, elsewhere.path().join("index.json")).unwrap();
    fs::remove_file(&index).unwrap();
    std::os::unix::fs::symlink(elsewhere.path().join("index.json"), &index).unwrap();
    spool(&dir, u64::MAX)
        .get(daemon.id(), &daemon, &context)
        .unwrap();
    assert!(fs::symlink_metadata(&index).unwrap().is_file());
    assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 2);
}

#[test]
fn leftovers_broken_images_and_those_of_another_boot_go() {
    let dir = TempDir::new().unwrap();
    let daemon = Daemon::new("a");
    let context = Context::silent();
    drop(
        spool(&dir, u64::MAX)
            .get(daemon.id(), &daemon, &context)
            .unwrap(),
    );
    fs::create_dir(dir.path().join("tmp-killed")).unwrap();
    fs::write(dir.path().join("tmp-killed/blob"), "x").unwrap();
    fs::write(dir.path().join(format!("{}.export", daemon.id().hex())), "").unwrap();
    let reopened = spool(&dir, u64::MAX);
    assert_eq!(children(dir.path()), [daemon.id().hex()]);
    fs::remove_file(dir.path().join(daemon.id().hex()).join(ROOTFS)).unwrap();
    reopened.get(daemon.id(), &daemon, &context).unwrap();
    assert_eq!(daemon.exports.load(Ordering::Relaxed), 2);
    fs::write(dir.path().join("boot"), "another").unwrap();
    spool(&dir, u64::MAX);
    assert_eq!(children(dir.path()), [""; 0]);
}
