//! Blobs of containerd's content store: the images of a docker with containerd's image store.
//!
//! On disk, below containerd's root: `io.containerd.content.v1.content/blobs/sha256/DIGEST`. Blobs are manifests, configs, and
//! layers in the form in which they came or were made. They are read without containerd's API, which would tell no more:
//! a manifest names its blobs by their digests, and an image's ID is the digest of its manifest or index.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use super::Error;
use super::beneath::{Folder, copy};
use crate::protocol::Digest;

/// The content store of a containerd.
#[derive(Debug)]
pub struct ContentStore {
    root: Folder,
}

impl ContentStore {
    /// Opens the store below containerd's root.
    pub fn open(root: &Path) -> Result<Self, Error> {
        let root = Folder::open(root).map_err(Error::read("containerd's root"))?;
        Ok(Self { root })
    }

    /// Opens a blob.
    pub fn blob(&self, digest: &Digest) -> Result<Blob, Error> {
        let path = format!(
            "io.containerd.content.v1.content/blobs/sha256/{}",
            digest.hex()
        );
        let name = format!("blob {digest}");
        let opened = self.root.file(path.as_bytes());
        let (file, bytes) = opened.map_err(Error::find(&name, "containerd"))?;
        Ok(Blob { file, bytes, name })
    }
}

/// One blob, opened. It stays whole when it is removed from the store.
#[derive(Debug)]
pub struct Blob {
    file: File,
    bytes: u64,
    name: String,
}

impl Blob {
    /// Its length.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Writes its content.
    pub fn write_to(mut self, out: &mut dyn Write) -> Result<(), Error> {
        copy(&mut self.file, self.bytes, &self.name, &mut Vec::new(), out)?;
        out.flush().map_err(Error::Send)
    }
}
