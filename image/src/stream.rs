//! Moves the bytes of one blob: hashed, reported as progress, stopped when the transfer is cancelled.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt as _;

use pcocc_core::progress::BlobKind;

use crate::error::{Error, Result};
use crate::meter::BlobMeter;
use crate::oci::MAX_DOCUMENT;
use crate::transfer::{Context, Offer};
use pcocc_layers::compression::{self, Limits};
use pcocc_layers::digest::Hashing;
use pcocc_layers::{Compression, DiffId, Digest};

/// Bytes moved between two checks of the cancel flag.
const CHUNK: usize = 256 << 10;

/// Reads `reader` to its end into `writer`, with progress events; returns digest and length.
///
/// Fails with [`Error::Corrupt`] as soon as more than the `expected` bytes have come, or at the end when digest
/// or length differ.
pub fn copy(
    reader: &mut dyn Read,
    writer: &mut dyn Write,
    name: &str,
    expected: Option<(Digest, u64)>,
    context: &Context,
) -> Result<(Digest, u64)> {
    let total = expected.map(|(_, size)| size);
    let mut meter = BlobMeter::start(&context.progress, BlobKind::Layer, name, total);
    let mut reader = Hashing::new(reader);
    let mut buffer = vec![0; CHUNK];
    loop {
        context.check()?;
        let n = reader.read(&mut buffer).map_err(Error::io("read", name))?;
        if n == 0 {
            break;
        }
        if let Some((digest, size)) = expected
            && reader.size() > size
        {
            return Err(Error::Corrupt {
                expected: digest,
                found: format!("more than the {size} bytes it should be"),
            });
        }
        let chunk = buffer.get(..n).unwrap_or_default();
        writer.write_all(chunk).map_err(Error::io("write", name))?;
        meter.add(n);
    }
    let (digest, size, _) = reader.finish();
    if let Some((wanted, length)) = expected
        && (digest, size) != (wanted, length)
    {
        return Err(Error::Corrupt {
            expected: wanted,
            found: if size == length {
                digest.to_string()
            } else {
                format!("{size} bytes instead of {length}")
            },
        });
    }
    meter.finish();
    Ok((digest, size))
}

/// Reads a small document, verified against its descriptor.
pub fn document(reader: impl Read, digest: Digest, size: u64) -> Result<Vec<u8>> {
    if size > MAX_DOCUMENT {
        return Err(Error::invalid(
            format!("blob {digest}"),
            format!("claims {size} bytes, more than the {MAX_DOCUMENT} an image document may have"),
        ));
    }
    let mut bytes = Vec::new();
    reader
        .take(size + 1)
        .read_to_end(&mut bytes)
        .map_err(Error::io("read", format!("blob {digest}")))?;
    if bytes.len() as u64 != size {
        return Err(Error::Corrupt {
            expected: digest,
            found: if bytes.len() as u64 > size {
                format!("more than the {size} bytes it should be")
            } else {
                format!("{} bytes instead of {size}", bytes.len())
            },
        });
    }
    let found = Digest::of(&bytes);
    if found != digest {
        return Err(Error::Corrupt {
            expected: digest,
            found: found.to_string(),
        });
    }
    Ok(bytes)
}

/// Fails with [`Error::Corrupt`] unless the plain tar in the blob `file` has the digest `expected`.
pub fn check_diff_id(
    file: &File,
    blob: Digest,
    compression: Compression,
    expected: DiffId,
    context: &Context,
) -> Result<()> {
    let found = diff_id(file, compression, context)?;
    match found == expected {
        true => Ok(()),
        false => Err(Error::Corrupt {
            expected: blob,
            found: format!("a layer with the diff ID {found} instead of {expected}"),
        }),
    }
}

/// Fails with [`Error::Corrupt`] when a layer that is a local file does not hold what its image says it holds. For
/// receivers that pass the blob on as it is.
pub fn check_offer(offer: &Offer<'_>, context: &Context) -> Result<()> {
    let (Some(file), Some((blob, _)), Some(diff_id)) = (&offer.file, offer.blob, offer.diff_id)
    else {
        return Ok(());
    };
    check_diff_id(file, blob, offer.compression, diff_id, context)
}

/// The digest of what `reader` reads to its end.
pub fn digest(reader: impl Read, context: &Context) -> Result<Digest> {
    let mut reader = Hashing::new(reader);
    let mut buffer = vec![0; CHUNK];
    loop {
        context.check()?;
        if reader
            .read(&mut buffer)
            .map_err(Error::io("read", "blob"))?
            == 0
        {
            return Ok(reader.finish().0);
        }
    }
}

/// The digest of the plain tar in the open blob `file`, which is read from its start.
pub fn diff_id(file: &File, compression: Compression, context: &Context) -> Result<DiffId> {
    plain_digest(FromStart { file, position: 0 }, compression, context)
}

/// The digest of the plain tar in what `blob` reads.
pub fn plain_digest(
    blob: impl Read + Send,
    compression: Compression,
    context: &Context,
) -> Result<DiffId> {
    let threads = compression::default_threads();
    let mut plain = Hashing::new(compression::open(
        compression,
        blob,
        threads,
        Limits::default(),
    )?);
    let mut buffer = vec![0; CHUNK];
    loop {
        context.check()?;
        let read = plain.read(&mut buffer);
        if read.map_err(Error::io("inflate", compression::UNNAMED))? == 0 {
            return Ok(DiffId(plain.finish().0));
        }
    }
}

/// Reads a file from its start, wherever its own position is.
struct FromStart<'a> {
    file: &'a File,
    position: u64,
}

impl Read for FromStart<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read_at(buffer, self.position)?;
        self.position += n as u64;
        Ok(n)
    }
}

/// Undoes a compression.
pub fn inflate<'a>(
    reader: Box<dyn Read + Send + 'a>,
    compression: Compression,
) -> Result<Box<dyn Read + Send + 'a>> {
    Ok(match compression {
        Compression::None => reader,
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(
            std::io::BufReader::with_capacity(CHUNK, reader),
        )),
        Compression::Zstd => {
            Box::new(zstd::Decoder::new(reader).map_err(Error::io("decompress", "zstd stream"))?)
        }
    })
}
