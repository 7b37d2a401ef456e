//! Metadata blocks: 8 KiB of records each, compressed, with a length before it.

use std::io::{self, Write};

/// Length of a metadata block before compression.
pub(super) const METADATA_SIZE: usize = 8 << 10;
/// Mark in the length of an uncompressed block.
const STORED: u16 = 1 << 15;
/// Tables are small and often read: they are worth a higher level.
const LEVEL: i32 = 3;

/// Start of a record: its block's offset in the table, and its offset in the block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct MetadataRef {
    pub(super) block: u64,
    pub(super) offset: u16,
}

impl MetadataRef {
    /// Both offsets in one number, as in inode references.
    pub(super) fn reference(self) -> u64 {
        self.block << 16 | u64::from(self.offset)
    }
}

/// Collects records into metadata blocks.
pub(super) struct MetadataWriter<W> {
    output: W,
    compressor: zstd::bulk::Compressor<'static>,
    block: Vec<u8>,
    scratch: Vec<u8>,
    /// Offset of each finished block in the table, for tables that are looked up by block.
    starts: Vec<u64>,
    length: u64,
}

impl<W: Write> MetadataWriter<W> {
    pub(super) fn new(output: W) -> io::Result<Self> {
        Ok(Self {
            output,
            compressor: zstd::bulk::Compressor::new(LEVEL)?,
            block: Vec::with_capacity(METADATA_SIZE),
            scratch: Vec::with_capacity(zstd::zstd_safe::compress_bound(METADATA_SIZE)),
            starts: Vec::new(),
            length: 0,
        })
    }

    /// The start of the next record.
    pub(super) fn place(&self) -> MetadataRef {
        MetadataRef {
            block: self.length,
            offset: self.block.len() as u16,
        }
    }

    /// Appends a record, which may continue in the next block.
    pub(super) fn write(&mut self, mut record: &[u8]) -> io::Result<()> {
        while !record.is_empty() {
            let room = METADATA_SIZE - self.block.len();
            let (now, later) = record.split_at(room.min(record.len()));
            self.block.extend_from_slice(now);
            record = later;
            // A full block is written at once, so that no record starts at a block's end.
            if self.block.len() == METADATA_SIZE {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.block.is_empty() {
            return Ok(());
        }
        self.scratch.clear();
        let size = self
            .compressor
            .compress_to_buffer(&self.block[..], &mut self.scratch)?;
        let (bytes, mark) = if size < self.block.len() {
            (&self.scratch, 0)
        } else {
            (&self.block, STORED)
        };
        self.output
            .write_all(&(bytes.len() as u16 | mark).to_le_bytes())?;
        self.output.write_all(bytes)?;
        self.starts.push(self.length);
        self.length += bytes.len() as u64 + 2;
        self.block.clear();
        Ok(())
    }

    /// Ends the table; returns the output, its length and the starts of its blocks.
    pub(super) fn finish(mut self) -> io::Result<(W, u64, Vec<u64>)> {
        self.flush()?;
        Ok((self.output, self.length, self.starts))
    }
}

impl<W> std::fmt::Debug for MetadataWriter<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MetadataWriter")
            .field("length", &self.length)
            .finish_non_exhaustive()
    }
}
