//! Documents, layers and archives of images.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use pcocc_image::archive::{self as archives, ArchiveFile};
use pcocc_image::oci::{self, Image};
use pcocc_image::repository::Meta;
use pcocc_image::store::Store;
use pcocc_image::testing::MemoryStore;
use pcocc_image::transfer::{self, Context};
use pcocc_layers::Digest;
use pcocc_layers::squashfs::{BlockCache, FileType, Options, RootfsWriter, Squashfs};

/// The documents of an OCI layout: index, manifest and config, with a zero byte in between.
pub fn documents(data: &[u8]) {
    let mut parts = data.splitn(3, |byte| *byte == 0);
    let mut next = || parts.next().unwrap_or_default();
    let (index, manifest, config) = (next(), next(), next());
    if let Ok(manifests) = oci::parse_index(index)
        && let Ok(chosen) = oci::select_manifest(&manifests, &oci::Platform::host())
    {
        assert!(manifests.iter().any(|m| m.digest == chosen.digest));
    }
    let _ = oci::is_index(index);
    let _ = oci::diff_ids(config);
    let named = oci::config_of(manifest);
    if let Ok(image) = Image::parse(manifest, config) {
        let (digest, size) = named.expect("a manifest that parses names its config");
        assert_eq!((digest, size), (Digest::of(config), config.len() as u64));
        assert_eq!((image.id(), image.config()), (digest, config));
        assert_eq!(image.layers().len(), image.diff_ids().len());
        let index = image.index(Some("name")).expect("an image has an index");
        let manifests = oci::parse_index(&index).expect("our own index parses");
        assert!(
            manifests
                .iter()
                .any(|m| m.digest == image.manifest_digest())
        );
    }
}

/// The metadata of an image in a repository.
pub fn meta(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    // Versions of pcocc before 0.7 wrote YAML.
    let _ = Meta::parse_yaml(text, Path::new("meta"));
    if let Ok(meta) = Meta::parse(text) {
        let rendered = meta.render();
        let again = Meta::parse(&rendered).expect("what is rendered parses");
        assert_eq!(again.render(), rendered);
        let _ = (meta.oci_index(), meta.created());
    }
}

/// The plain tar of a layer, made into a squashfs file that is then read.
pub fn layer(data: &[u8]) {
    let context = Context::silent();
    let options = Options {
        max_bytes: 16 << 20,
        max_entries: 1000,
        max_names: 1 << 20,
        ..Options::default()
    };
    let (Ok(file), path) = (tempfile::tempfile(), Path::new("fuzz")) else {
        return;
    };
    let written = file
        .try_clone()
        .map_err(pcocc_image::Error::io("open", path));
    let written = written.and_then(|file| {
        let mut writer = RootfsWriter::create(file, path, options)?;
        let mut tar = data;
        let tree = writer.layer("0", &mut tar, &context.cancel)?;
        Ok(writer.finish(vec![tree], b"{}", &context.cancel)?)
    });
    if written.is_ok() {
        let all = walk(file).expect("our own squashfs can be read");
        assert!(all > 0);
    }
}

/// A squashfs file.
pub fn squashfs(data: &[u8]) {
    if let Ok(mut file) = tempfile::tempfile()
        && file.write_all(data).is_ok()
    {
        let _ = walk(file);
    }
}

/// A docker archive, copied into a store.
pub fn archive(data: &[u8]) {
    let Ok(folder) = tempfile::tempdir() else {
        return;
    };
    let path = folder.path().join("archive.tar");
    let context = Context::silent();
    if std::fs::write(&path, data).is_err() {
        return;
    }
    let _ = archives::looks_like(&path);
    let Ok(source) = ArchiveFile::open(&path, None, &context) else {
        return;
    };
    let store = MemoryStore::repository(folder.path());
    let Ok(sink) = store.sink("copy", None) else {
        return;
    };
    let copied = transfer::copy(&source, &*sink, &context);
    assert_eq!(store.get("copy").is_some(), copied.is_ok());
}

/// Walks over a squashfs file, up to some amount; returns the number of inodes seen.
fn walk(file: File) -> pcocc_image::Result<usize> {
    const MOST: usize = 2000;
    const DEPTH: usize = 64;
    let squashfs = Squashfs::open(Arc::new(file), BlockCache::new(1 << 20))?;
    let mut pending = vec![(squashfs.root(), 0)];
    let mut seen = 0;
    while let Some((inode, depth)) = pending.pop() {
        seen += 1;
        let attributes = squashfs.attributes(inode)?;
        squashfs.xattrs(inode)?;
        match attributes.file_type {
            FileType::Directory => {
                for entry in squashfs.read_dir(inode)? {
                    let found = squashfs.lookup(inode, &entry.name)?;
                    if depth < DEPTH && seen + pending.len() < MOST && found.is_some() {
                        pending.push((entry.inode, depth + 1));
                    }
                }
            }
            FileType::Regular => {
                let mut chunk = vec![0; 64 << 10];
                squashfs.read_at(inode, 0, &mut chunk)?;
                squashfs.read_at(inode, attributes.size / 2, &mut chunk)?;
            }
            FileType::Symlink => {
                squashfs.read_link(inode)?;
            }
            _ => {}
        }
    }
    Ok(seen)
}
