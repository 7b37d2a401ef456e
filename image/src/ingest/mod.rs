//! Receiving an image into a folder of blobs, with its root filesystem as squashfs.
//!
//! Every [`crate::transfer::Receiver`] that writes blobs to disk is an [`Ingest`] and a place to put
//! them, a [`BlobDir`]: the repository, the spool of a daemon's images. A layer's stream is read once.

mod blob_dir;
mod runtime_config;

use tempfile::NamedTempFile;

pub use blob_dir::BlobDir;
pub use runtime_config::runtime_config;

use crate::digest::DiffId;
use crate::error::{Error, Result};
use crate::layer::Limits;
use crate::oci::{Compression, Image, Layer};
use crate::squashfs;
use crate::transfer::{Context, Offer};

/// How layers are stored.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How plain layers are stored: [`Compression::Gzip`] or [`Compression::None`].
    pub compression: Compression,
    /// Whether layers that come compressed in another way are stored as `compression` says too.
    pub recompress: bool,
    /// Threads that compress, and as many that inflate.
    pub threads: usize,
    /// What a layer may grow to.
    pub limits: Limits,
    /// How the root filesystem is written.
    pub squashfs: squashfs::Options,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            compression: Compression::Gzip,
            recompress: false,
            threads: crate::layer::default_threads(),
            limits: Limits::default(),
            squashfs: squashfs::Options::default(),
        }
    }
}

/// A finished root filesystem, not published yet. Dropped, it is gone.
#[derive(Debug)]
pub struct Rootfs {
    /// The file.
    pub file: NamedTempFile,
    /// What it holds.
    pub summary: squashfs::Summary,
}

/// One image on its way into a [`BlobDir`].
pub struct Ingest<'a> {
    dir: &'a dyn BlobDir,
}

impl std::fmt::Debug for Ingest<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ingest").finish_non_exhaustive()
    }
}

impl<'a> Ingest<'a> {
    /// Starts to receive an image into `dir`; its root filesystem is written to the empty file
    /// `rootfs` when one is given.
    pub fn new(
        dir: &'a dyn BlobDir,
        _options: Options,
        _rootfs: Option<NamedTempFile>,
    ) -> Result<Self> {
        Ok(Self { dir })
    }

    /// Whether the layer is there, so that a plain stream of it can go unread: the answer of
    /// [`crate::transfer::Receiver::has_layer`].
    pub fn has_layer(&self, diff_id: DiffId) -> Result<bool> {
        Ok(self.dir.known_layer(diff_id)?.is_some())
    }

    /// Whether every blob of `image` is there: the answer of [`crate::transfer::Receiver::holds`].
    pub fn holds(&self, image: &Image) -> Result<bool> {
        for (digest, size) in image.blobs() {
            if self.dir.size_of(digest)? != Some(size) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Takes one layer and returns it as it is stored. Its blob is published when this returns.
    pub fn layer(&mut self, _offer: &Offer<'_>, _context: &Context) -> Result<Layer> {
        Err(Error::invalid("layer", "cannot be taken yet"))
    }

    /// Publishes manifest and config as blobs.
    pub fn documents(&mut self, _image: &Image, _context: &Context) -> Result<()> {
        Err(Error::invalid("documents", "cannot be taken yet"))
    }

    /// Completes the root filesystem, when one is being made. Layers that were not offered are read
    /// from the blobs already there.
    pub fn finish(self, _image: &Image, _context: &Context) -> Result<Option<Rootfs>> {
        Ok(None)
    }
}
