//! The file of a layer, written while the layer streams by.

use std::io::{self, Write};

use pcocc_core::beneath::TempFile;

use super::BlobDir;
use crate::error::{Error, Result};
use pcocc_layers::Digest;
use pcocc_layers::compression::GzipWriter;
use pcocc_layers::digest::Hashing;

/// A layer in a temporary file, deleted when dropped.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) temp: TempFile,
    pub(super) digest: Digest,
    pub(super) size: u64,
}

/// How a layer is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Store {
    /// The layer is not stored.
    Nothing,
    /// The stream is stored unchanged.
    AsIs,
    /// The plain tar is compressed with gzip.
    Gzip,
    /// The plain tar is stored unchanged.
    Plain,
}

/// A temporary file whose errors are explained for its folder.
pub(super) struct Temp<'a> {
    dir: &'a dyn BlobDir,
    file: TempFile,
}

impl Write for Temp<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let result = self.file.as_file_mut().write(buf);
        result.map_err(|error| match error.kind() {
            io::ErrorKind::Interrupted => error,
            _ => self.dir.write_failed(&self.file.path(), error).into(),
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Where a stage writes the bytes that it sees.
pub(super) enum Output<'a> {
    /// Drops the bytes.
    Nothing,
    /// Writes the bytes; the stage hashes them.
    AsIs(Temp<'a>),
    /// Compresses, hashes and writes the bytes.
    Gzip(Box<GzipWriter<Hashing<Temp<'a>>>>),
}

impl<'a> Output<'a> {
    /// Starts a temporary file, unless the layer is not to be stored.
    pub(super) fn new(dir: &'a dyn BlobDir, store: Store, threads: usize) -> Result<Self> {
        if store == Store::Nothing {
            return Ok(Self::Nothing);
        }
        let temp = Temp {
            dir,
            file: dir.temp()?,
        };
        Ok(match store {
            Store::Gzip => Self::Gzip(Box::new(GzipWriter::new(Hashing::new(temp), threads))),
            _ => Self::AsIs(temp),
        })
    }

    /// Takes more bytes.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        match self {
            Self::Nothing => Ok(()),
            Self::AsIs(temp) => temp.write_all(bytes),
            Self::Gzip(writer) => writer.write_all(bytes),
        }
        .map_err(Error::io("store", "layer"))
    }

    /// Completes the file; `digest` and `size` are those of the bytes written so far.
    pub(super) fn finish(self, digest: Digest, size: u64) -> Result<Option<Written>> {
        match self {
            Self::Nothing => Ok(None),
            Self::AsIs(temp) => Ok(Some(Written {
                temp: temp.file,
                digest,
                size,
            })),
            Self::Gzip(writer) => {
                let hashing = writer.finish().map_err(Error::io("store", "layer"))?;
                let (digest, size, temp) = hashing.finish();
                Ok(Some(Written {
                    temp: temp.file,
                    digest,
                    size,
                }))
            }
        }
    }
}
