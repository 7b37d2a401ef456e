//! Compresses a plain tar into a gzip layer blob on several threads.
//!
//! Data path: [`GzipWriter::write`] cuts the tar into pieces of 1 MiB → workers make one gzip member of
//! each (format: see `member.rs`) → members go to the output in order. ISA-L at level 1 makes the deflate
//! streams: twice as fast as libdeflate at level 1, and 5 % larger (`docs/PERFORMANCE.md`).

use std::io::{self, Write};

use isal::{Codec, CompressionLevel};

use super::buffer::{Buffer, Buffers, PIECE};
use super::member;
use super::ordered::Ordered;

/// As many threads as the machine offers this process, at most 16. One compressing thread manages about 200
/// MB/s.
pub fn default_threads() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get().min(16))
}

/// Compresses the bytes written to it into `out`.
pub struct GzipWriter<W> {
    out: W,
    pool: Ordered<Buffer, io::Result<Buffer>>,
    buffers: Buffers,
    piece: Buffer,
    is_empty: bool,
}

impl<W> std::fmt::Debug for GzipWriter<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GzipWriter").finish_non_exhaustive()
    }
}

impl<W: Write> GzipWriter<W> {
    /// Compresses into `out` on at most `threads` threads.
    pub fn new(out: W, threads: usize) -> Self {
        let buffers = Buffers::default();
        let outputs = buffers.clone();
        Self {
            out,
            pool: Ordered::new(threads, move || {
                let outputs = outputs.clone();
                move |piece: Buffer| compress(&piece, outputs.take())
            }),
            piece: buffers.take(),
            buffers,
            is_empty: true,
        }
    }

    /// Writes the rest and returns the output. An empty tar gives one empty member.
    pub fn finish(mut self) -> io::Result<W> {
        if !self.piece.is_empty() || self.is_empty {
            self.submit()?;
        }
        while let Some(member) = self.pool.pop() {
            self.out.write_all(&member??)?;
        }
        Ok(self.out)
    }

    fn submit(&mut self) -> io::Result<()> {
        if self.pool.is_full()
            && let Some(member) = self.pool.pop()
        {
            self.out.write_all(&member??)?;
        }
        let next = self.buffers.take();
        self.is_empty = false;
        self.pool.push(std::mem::replace(&mut self.piece, next))
    }
}

impl<W: Write> Write for GzipWriter<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let taken = buf.len().min(PIECE - self.piece.len());
        self.piece.extend_from_slice(&buf[..taken]);
        if self.piece.len() == PIECE {
            self.submit()?;
        }
        Ok(taken)
    }

    /// Does nothing: only whole pieces are written, so that the blob does not depend on the times of flushes.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn compress(piece: &[u8], mut out: Buffer) -> io::Result<Buffer> {
    out.resize(member::LONGEST, 0);
    let length = isal::compress_into(
        piece,
        &mut out[member::HEADER..],
        CompressionLevel::One,
        Codec::Deflate,
    )
    .map_err(io::Error::other)?;
    out.truncate(member::HEADER + length);
    out.extend_from_slice(&libdeflater::crc32(piece).to_le_bytes());
    out.extend_from_slice(&(piece.len() as u32).to_le_bytes());
    let header = member::header(out.len() as u32);
    out[..member::HEADER].copy_from_slice(&header);
    Ok(out)
}
