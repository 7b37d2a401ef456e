//! The length of a blob's plain tar, found without inflating where possible.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::buffer::PIECE;
use super::member;
use crate::compression::Compression;
use crate::error::{Error, Result};

/// Length of the plain tar inside a blob, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlainSize {
    /// The length, if the blob is intact.
    Exact(u64),
    /// The length that the end of a foreign gzip or the start of a zstd blob claims. The claim is right for one
    /// gzip member below 4 GiB and for one zstd frame; the caller verifies it against the stream.
    Guess(u64),
    /// Unknown without a full pass ([`super::count_plain`]).
    Unknown,
}

/// Finds the length of the plain tar inside a local blob, as far as that is cheap.
pub fn plain_size(blob: &File, compression: Compression) -> Result<PlainSize> {
    let read = |error| Error::io("read", "layer blob")(error);
    let length = blob.metadata().map_err(read)?.len();
    match compression {
        Compression::None => Ok(PlainSize::Exact(length)),
        Compression::Gzip => gzip(blob, length).map_err(read),
        Compression::Zstd => zstd(blob, length).map_err(read),
    }
}

/// Steps over our own members. One read takes a member's trailer and the next member's header.
fn gzip(blob: &File, length: u64) -> io::Result<PlainSize> {
    if length < (member::HEADER + member::TRAILER) as u64 {
        return Ok(PlainSize::Unknown);
    }
    let mut header = [0; member::HEADER];
    blob.read_exact_at(&mut header, 0)?;
    let (mut at, mut plain) = (0u64, 0u64);
    loop {
        let Some(size) = member::length(&header) else {
            return if at == 0 {
                guess(blob, &header, length)
            } else {
                Ok(PlainSize::Unknown)
            };
        };
        let end = at + size as u64;
        let mut seam = [0; member::TRAILER + member::HEADER];
        let present = if end == length {
            member::TRAILER
        } else if length.saturating_sub(end) >= member::HEADER as u64 {
            seam.len()
        } else {
            // The blob is cut off, or other bytes follow: only reading it can tell.
            return Ok(PlainSize::Unknown);
        };
        blob.read_exact_at(&mut seam[..present], end - member::TRAILER as u64)?;
        match member::trailer(&seam[..member::TRAILER]) {
            Some((_, size)) if size as usize <= PIECE => plain += u64::from(size),
            _ => return Ok(PlainSize::Unknown),
        }
        if end == length {
            return Ok(PlainSize::Exact(plain));
        }
        header.copy_from_slice(&seam[member::TRAILER..]);
        at = end;
    }
}

fn guess(blob: &File, header: &[u8], length: u64) -> io::Result<PlainSize> {
    if Compression::sniff(header) != Compression::Gzip {
        return Ok(PlainSize::Unknown);
    }
    let mut size = [0; 4];
    blob.read_exact_at(&mut size, length - 4)?;
    Ok(PlainSize::Guess(u64::from(u32::from_le_bytes(size))))
}

fn zstd(blob: &File, length: u64) -> io::Result<PlainSize> {
    // The longest frame header (RFC 8878, section 3.1.1.1).
    let mut start = [0; 18];
    let present = start
        .len()
        .min(usize::try_from(length).unwrap_or(usize::MAX));
    blob.read_exact_at(&mut start[..present], 0)?;
    match zstd::zstd_safe::get_frame_content_size(&start[..present]) {
        Ok(Some(size)) => Ok(PlainSize::Guess(size)),
        _ => Ok(PlainSize::Unknown),
    }
}
