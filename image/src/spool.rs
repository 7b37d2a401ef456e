//! Exports of a daemon's images kept on disk by image ID, bounded in bytes.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::oci::{Image, Layer};
use crate::transfer::{Context, Layout, Source};

/// A folder of exported images, shared by any number of processes of one machine.
#[derive(Debug)]
pub struct Spool(());

impl Spool {
    /// Opens the spool in `dir`, made when missing. Images no one uses go, the least recently used
    /// first, when more than `max_bytes` are kept.
    pub fn open(_dir: PathBuf, _max_bytes: u64) -> Result<Self> {
        Ok(Self(()))
    }

    /// The image with this ID; when the spool does not have it, it is copied from `source` first,
    /// once however many ask for it at the same time.
    pub fn get(
        &self,
        _id: Digest,
        _source: &dyn Source,
        _context: &Context,
    ) -> Result<Arc<SpoolImage>> {
        Err(Error::invalid("spool", "is not written yet"))
    }
}

/// An image of the spool; it stays on disk while this lives. Every layer is a local file.
#[derive(Debug)]
pub struct SpoolImage {
    image: Image,
    rootfs: Arc<File>,
}

impl SpoolImage {
    /// The image's root filesystem as squashfs, `config.json` and `rootfs/` inside.
    pub fn root_filesystem(&self) -> Arc<File> {
        Arc::clone(&self.rootfs)
    }
}

impl Layout for SpoolImage {
    fn image(&self, _context: &Context) -> Result<Image> {
        Ok(self.image.clone())
    }

    fn open_layer<'a>(&'a self, _layer: &Layer) -> Result<Box<dyn Read + Send + 'a>> {
        Err(Error::invalid("spool", "is not written yet"))
    }

    fn layer_file(&self, _layer: &Layer) -> Option<PathBuf> {
        None
    }
}
