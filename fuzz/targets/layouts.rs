//! Folders on disk, and paths in the tree of a container.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use pcocc_core::cancel::Cancel;
use pcocc_fs::root::RootTree;
use pcocc_fs::testing::files;
use pcocc_image::layout::LayoutFolder;
use pcocc_image::oci::Image;
use pcocc_image::spool::Spool;
use pcocc_image::store::Store;
use pcocc_image::testing::MemoryStore;
use pcocc_image::transfer::{self, Context, Layout, Receiver, Source};
use pcocc_layers::Digest;
use pcocc_layers::squashfs::{BlockCache, Options, RootfsWriter, Squashfs};

/// An OCI image layout in a folder, in the form of [`pcocc_fs::testing::staged`].
pub fn layout(data: &[u8]) {
    let folder = tempfile::tempdir().expect("make a folder");
    let path = folder.path().join("layout");
    if write(data, &path).is_none() {
        return;
    }
    let context = Context::silent();
    let Ok(layout) = LayoutFolder::open(&path, None, pcocc_image::oci::Platform::host()) else {
        return;
    };
    let store = MemoryStore::repository(folder.path());
    let sink = store.sink("copy", None).expect("a name that is free");
    let copied = transfer::copy(&layout, &*sink, &context);
    assert_eq!(store.get("copy").is_some(), copied.is_ok());
}

/// An image in the spool, whose files are those of [`layout`].
pub fn spool(data: &[u8]) {
    let folder = tempfile::tempdir().expect("make a folder");
    let id = Digest::of(b"any");
    let entry = folder.path().join(id.hex());
    if write(data, &entry).is_none() {
        return;
    }
    fs::write(entry.join("rootfs.squashfs"), b"hsqs").expect("write a file");
    let spool = Spool::open(folder.path().to_owned(), 1 << 20).expect("open the spool");
    let image = spool.get(id, &Nothing, &Context::silent());
    if let Ok(image) = image {
        let image = image.image(&Context::silent()).expect("it is loaded");
        assert_eq!(image.id(), Digest::of(image.config()));
    }
}

/// A daemon that has no image.
#[derive(Debug)]
struct Nothing;

impl Source for Nothing {
    fn send(&self, _: &mut dyn Receiver, _: &Context) -> pcocc_image::Result<Image> {
        Err(pcocc_image::Error::NotFound("nothing".to_owned()))
    }
}

/// Writes the files that `data` describes below `folder`.
fn write(data: &[u8], folder: &Path) -> Option<()> {
    for (path, content) in files(data)? {
        let path = folder.join(path);
        let parent = path.parent().expect("a file is in a folder");
        fs::create_dir_all(parent).expect("make a folder");
        fs::write(path, content).expect("write a file");
    }
    Some(())
}

/// The paths of a container. A line `PATH -> TARGET` is a link in the image; another line is a path that is looked up,
/// and then made.
pub fn paths(data: &[u8]) {
    const MOST: usize = 100;
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let (mut tar, mut wanted) = (tar::Builder::new(Vec::new()), Vec::new());
    for line in text.lines().take(MOST) {
        match line.split_once(" -> ") {
            None => wanted.push(Path::new(line)),
            Some((path, target)) => {
                let mut header = tar::Header::new_gnu();
                header.set_entry_type(tar::EntryType::Symlink);
                header.set_size(0);
                let _ = tar.append_link(&mut header, path, target);
            }
        }
    }
    let layer = tar.into_inner().expect("write to memory");
    let Some(mut tree) = tree(&layer) else {
        return;
    };
    for path in wanted {
        if let Ok((resolved, found)) = tree.resolve(path) {
            assert!(resolved.is_absolute());
            assert!(resolved.components().all(|part| part.as_os_str() != ".."));
            let again = tree.resolve(&resolved).expect("it was resolved");
            assert_eq!(again, (resolved, found));
        }
        if let Ok(made) = tree.put_file(path, b"content".to_vec(), 0o644) {
            let content = tree.read_file(&made, 100).expect("it was made");
            assert_eq!(content.as_deref(), Some(&b"content"[..]));
        }
    }
}

/// The tree of an image with this layer.
fn tree(layer: &[u8]) -> Option<RootTree> {
    let file = tempfile::tempfile().expect("make a file");
    let (name, cancel) = (Path::new("fuzz"), Cancel::new());
    let other = file.try_clone().expect("open a file again");
    let mut writer = RootfsWriter::create(other, name, Options::default()).expect("begin");
    let layer = writer.layer("0", &mut { layer }, &cancel).ok()?;
    writer.finish(vec![layer], b"{}", &cancel).ok()?;
    let squashfs = Squashfs::open(Arc::new(file), BlockCache::new(1 << 20)).expect("our own");
    let top = squashfs.find(b"rootfs").expect("our own");
    Some(RootTree::new(squashfs, top.expect("our own"), (7, 8)))
}
