//! Reading the plain tar out of a layer blob.

use std::fs::File;
use std::io::Read;

use crate::error::{Error, Result};
use crate::oci::Compression;

/// What a layer may grow to.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most bytes of plain tar.
    pub max_plain: u64,
    /// Most bytes of plain tar for a byte of blob, once the plain tar is larger than 1 GiB. Gzip
    /// cannot exceed 1032.
    pub max_ratio: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_plain: 4 << 40,
            max_ratio: 1100,
        }
    }
}

/// Length of the plain tar inside a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlainSize {
    /// Known for certain, as long as the blob is intact.
    Exact(u64),
    /// What the last member of a foreign gzip says: right for one member below 4 GiB, to be verified
    /// against what the stream really yields.
    Guess(u64),
    /// Only a full pass can tell ([`count_plain`]).
    Unknown,
}

/// Opens the plain tar inside a blob. Errors of the format come out of `read` as [`Error::Invalid`]
/// inside an `io::Error` ([`Error::io`] unwraps it).
pub fn open<'a>(
    compression: Compression,
    blob: Box<dyn Read + Send + 'a>,
    _threads: usize,
    _limits: Limits,
) -> Result<Box<dyn Read + Send + 'a>> {
    match compression {
        Compression::None => Ok(blob),
        Compression::Gzip => Ok(Box::new(flate2::read::MultiGzDecoder::new(blob))),
        Compression::Zstd => Ok(Box::new(
            zstd::Decoder::new(blob).map_err(Error::io("inflate", "zstd layer"))?,
        )),
    }
}

/// Tells the length of the plain tar inside a local blob, as far as that is cheap.
pub fn plain_size(blob: &File, compression: Compression) -> Result<PlainSize> {
    match compression {
        Compression::None => Ok(PlainSize::Exact(
            blob.metadata().map_err(Error::io("read", "layer"))?.len(),
        )),
        _ => Ok(PlainSize::Unknown),
    }
}

/// Counts the bytes of plain tar inside a blob by inflating all of it.
pub fn count_plain(
    compression: Compression,
    blob: Box<dyn Read + Send + '_>,
    threads: usize,
    limits: Limits,
) -> Result<u64> {
    let mut plain = open(compression, blob, threads, limits)?;
    std::io::copy(&mut plain, &mut std::io::sink()).map_err(Error::io("inflate", "layer"))
}
