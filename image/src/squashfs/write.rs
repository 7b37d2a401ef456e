//! Writes an image's root filesystem as one squashfs file, from its layers' plain tar streams.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::error::{Error, Result};
use crate::transfer::Context;

/// How file content is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Data {
    /// As it is.
    Stored,
    /// Compressed with zstd at this level.
    Zstd(i32),
}

/// How a squashfs file is written, and what it may hold at most.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How file content is stored.
    pub data: Data,
    /// Threads that compress.
    pub threads: usize,
    /// Bytes of file content accepted, holes included.
    pub max_bytes: u64,
    /// Tar entries accepted over all layers.
    pub max_entries: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            data: Data::Stored,
            threads: 2,
            max_bytes: 4 << 40,
            max_entries: 16 << 20,
        }
    }
}

/// The names one layer adds and removes; its file content is already in the squashfs file.
#[derive(Debug)]
pub struct LayerTree(());

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Length of the file.
    pub bytes: u64,
    /// Inodes in it.
    pub inodes: u32,
    /// Extended attributes squashfs cannot hold (those outside `user`, `trusted` and `security`)
    /// that were left out.
    pub dropped_xattrs: u64,
}

/// Writes one squashfs file.
#[derive(Debug)]
pub struct RootfsWriter(());

impl RootfsWriter {
    /// Starts a squashfs file in the empty `file`; `path` names it in errors.
    pub fn create(_file: File, _path: &Path, _options: Options) -> Result<Self> {
        Ok(Self(()))
    }

    /// Takes one layer's plain tar, to the very end of the stream; `name` stands for it in errors.
    pub fn layer(
        &mut self,
        _name: &str,
        _tar: &mut dyn Read,
        _context: &Context,
    ) -> Result<LayerTree> {
        Err(Error::invalid("squashfs", "cannot be written yet"))
    }

    /// Merges the layers, lowest first, adds `config.json` and writes the tables. The file is
    /// complete and flushed to the operating system when this returns.
    pub fn finish(
        self,
        _layers: Vec<LayerTree>,
        _config_json: &[u8],
        _context: &Context,
    ) -> Result<Summary> {
        Err(Error::invalid("squashfs", "cannot be written yet"))
    }
}
