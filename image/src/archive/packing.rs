//! How an archive is compressed as a whole: `docker save | xz`, and what `docker load` reads besides.

use std::io::{BufReader, Read};

use flate2::bufread::MultiGzDecoder;
use liblzma::read::XzDecoder;
use liblzma::stream::{CONCATENATED, Stream};

use crate::error::{Error, Result};

/// Most memory that the dictionary of an xz file may take, in bytes; `xz -9` takes a quarter.
const XZ_MEMORY: u64 = 256 << 20;

/// The compression of an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packing {
    Plain,
    Gzip,
    Zstd,
    Xz,
    Bzip2,
}

impl Packing {
    /// Finds the compression by the first bytes of the file.
    pub(super) fn sniff(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, 0x59, 0x26, ..] => Self::Bzip2,
            _ => Self::Plain,
        }
    }

    /// Opens the plain archive.
    pub(super) fn open(self, packed: impl Read + Send + 'static) -> Result<Box<dyn Read + Send>> {
        let packed = BufReader::with_capacity(256 << 10, packed);
        Ok(match self {
            Self::Plain => Box::new(packed),
            Self::Gzip => Box::new(MultiGzDecoder::new(packed)),
            Self::Zstd => Box::new(
                zstd::Decoder::with_buffer(packed).map_err(Error::io("decompress", "archive"))?,
            ),
            Self::Xz => {
                let stream = Stream::new_stream_decoder(XZ_MEMORY, CONCATENATED)
                    .map_err(|error| Error::io("decompress", "archive")(error.into()))?;
                Box::new(XzDecoder::new_stream(packed, stream))
            }
            Self::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(packed)),
        })
    }
}
