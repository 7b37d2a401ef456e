//! Content and digests of staged files, and the paths of a layout.

use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;

use pcocc_core::cancel::Cancel;
use pcocc_layers::Digest;

use super::*;
use crate::blob::BlobFile;
use crate::errno::Errno;

fn file() -> (tempfile::TempDir, Arc<StagedFile>) {
    let folder = tempfile::tempdir().unwrap();
    let file = StagedFile::new(folder.path().into());
    (folder, file)
}

fn blob(folder: &Path, content: &[u8]) -> Arc<BlobFile> {
    let path = folder.join("blob");
    std::fs::write(&path, content).unwrap();
    Arc::new(BlobFile {
        file: File::open(&path).unwrap(),
        digest: Digest::of(content),
        size: content.len() as u64,
    })
}

#[test]
fn digests_in_and_out_of_order_agree() {
    let cancel = Cancel::new();
    let (_keep, file) = file();
    file.write_at(b"hello ", 0, 1).unwrap();
    file.write_at(b"world", 6, 1).unwrap();
    file.flushed(1);
    assert_eq!(file.digest(&cancel).unwrap(), Digest::of(b"hello world"));
    file.write_at(b"J", 0, 1).unwrap();
    file.flushed(1);
    assert_eq!(file.digest(&cancel).unwrap(), Digest::of(b"Jello world"));
    file.truncate(5).unwrap();
    assert_eq!(file.digest(&cancel).unwrap(), Digest::of(b"Jello"));
    file.truncate(0).unwrap();
    assert_eq!(file.digest(&cancel).unwrap(), Digest::of(b""));
    file.write_at(b"x", 2, 1).unwrap();
    file.flushed(1);
    assert_eq!(file.digest(&cancel).unwrap(), Digest::of(b"\0\0x"));
    file.truncate(0).unwrap();
    file.write_at(b"abc", 0, 1).unwrap();
    file.truncate(6).unwrap();
    file.write_at(b"def", 3, 1).unwrap();
    file.flushed(1);
    assert_eq!(file.digest(&cancel).unwrap(), Digest::of(b"abcdef"));
}

#[test]
fn a_reference_grows_and_is_copied_before_a_write() {
    let (keep, file) = file();
    let blob = blob(keep.path(), b"0123456789");
    assert!(file.refer(&blob, 0, 4));
    assert!(!file.refer(&blob, 6, 10));
    assert_eq!(file.size(), 4);
    assert!(file.refer(&blob, 4, 10));
    assert_eq!(file.digest(&Cancel::new()).unwrap(), blob.digest);
    let whole = file.source().unwrap().whole_file().unwrap();
    let inode = |file: &File| file.metadata().unwrap().ino();
    assert_eq!(inode(&whole), inode(&blob.file));
    let mut buffer = [0; 20];
    assert_eq!(file.read_at(&mut buffer, 8).unwrap(), 2);
    file.write_at(b"X", 3, 1).unwrap();
    assert!(!file.is_reference());
    assert_eq!(file.document(100).unwrap().unwrap(), b"012X456789");
    assert_eq!(
        std::fs::read(keep.path().join("blob")).unwrap(),
        b"0123456789"
    );
    assert_eq!(file.document(5).unwrap(), None);
}

#[test]
fn what_is_retired_goes_with_its_last_handle() {
    let (_keep, file) = file();
    file.attach().unwrap();
    file.write_at(b"abc", 0, 1).unwrap();
    file.retire();
    let mut buffer = [0; 3];
    assert_eq!(file.read_at(&mut buffer, 0).unwrap(), 3);
    file.detach();
    assert!(file.source().is_none());
    assert_eq!(file.size(), 3);
    assert_eq!(file.attach(), Err(Errno::STALE));
}

#[test]
fn only_a_layout_has_a_place() {
    let hex = Digest::of(b"").hex();
    for (path, expected) in [
        ("index.json", Some(Role::Layout)),
        ("blobs", Some(Role::Folder)),
        (&format!("blobs/sha256/{hex}"), Some(Role::Layout)),
        (
            &format!("blobs/sha256/.{hex}.Ab12Cd"),
            Some(Role::Temporary),
        ),
        (".umoci-1/index.json", Some(Role::Temporary)),
        ("oci-put-blob123", Some(Role::Temporary)),
        ("index.json.1a2b3c4d.partial", Some(Role::Temporary)),
        ("busybox", None),
        ("blobs/sha512", None),
        ("blobs/sha256/abc", None),
        ("index.json/x", None),
    ] {
        assert_eq!(layout_role(path), expected, "{path}");
    }
}
