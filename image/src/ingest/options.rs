//! How an image is stored.

use pcocc_layers::Compression;
use pcocc_layers::compression::{self, Limits};
use pcocc_layers::squashfs;

/// How an image's layers and its root filesystem are stored.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How plain layers are stored: [`Compression::Gzip`] or [`Compression::None`].
    pub compression: Compression,
    /// Whether layers with another compression are stored in `compression`, too.
    pub recompress: bool,
    /// Number of threads that compress, and of threads that inflate.
    pub threads: usize,
    /// Largest allowed layer.
    pub limits: Limits,
    /// How the root filesystem is written.
    pub squashfs: squashfs::Options,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            compression: Compression::Gzip,
            recompress: false,
            threads: compression::default_threads(),
            limits: Limits::default(),
            squashfs: squashfs::Options::default(),
        }
    }
}
