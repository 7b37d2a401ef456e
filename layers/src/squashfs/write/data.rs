//! Cuts file content into blocks, holes and fragments.
//!
//! A file of at least one block is stored as blocks of 128 KiB and a shorter last block; blocks of zeros become
//! holes. Smaller files share fragment blocks. `mksquashfs` does the same by default.

use std::io::Read;

use super::BLOCK_SIZE;
use super::pipeline::Pipeline;
use crate::error::Result;
use crate::tar::TarError;

/// Location of a file's content, as far as it is known before the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileData {
    /// Length in bytes.
    pub(super) size: u64,
    /// Number of the file among those with blocks, or [`FileData::NONE`].
    pub(super) blocks: u32,
    /// Number of the fragment block, or [`FileData::NONE`].
    pub(super) fragment: u32,
    /// Offset in the fragment block.
    pub(super) offset: u32,
    /// Bytes in holes.
    pub(super) sparse: u64,
}

impl FileData {
    pub(super) const NONE: u32 = u32::MAX;

    /// The content of an empty file.
    pub(crate) const EMPTY: Self = Self {
        size: 0,
        blocks: Self::NONE,
        fragment: Self::NONE,
        offset: 0,
        sparse: 0,
    };
}

/// Takes the content of files, one after the other.
#[derive(Debug)]
pub(super) struct DataWriter {
    pub(super) pipeline: Pipeline,
    block: Vec<u8>,
    fragment: Vec<u8>,
    fragments: u32,
    files: u32,
    current: FileData,
}

impl DataWriter {
    /// Starts behind the `files` files with blocks and the `fragments` fragment blocks that are there.
    pub(super) fn new(pipeline: Pipeline, files: u32, fragments: u32) -> Self {
        Self {
            block: pipeline.buffer(),
            fragment: pipeline.buffer(),
            pipeline,
            fragments,
            files,
            current: FileData::EMPTY,
        }
    }

    /// Appends `length` bytes of `input` to the current file; `check` is called at each block.
    pub(super) fn copy<E>(
        &mut self,
        input: &mut dyn Read,
        length: u64,
        check: &dyn Fn() -> Result<(), E>,
    ) -> Result<(), E>
    where
        E: From<TarError> + From<crate::Error>,
    {
        let mut left = length;
        while left > 0 {
            check()?;
            let room = (BLOCK_SIZE - self.block.len()) as u64;
            let wanted = room.min(left);
            let count = Read::take(&mut *input, wanted)
                .read_to_end(&mut self.block)
                .map_err(TarError::from)?;
            if (count as u64) < wanted {
                return Err(TarError::Truncated.into());
            }
            left -= wanted;
            if self.block.len() == BLOCK_SIZE {
                self.flush()?;
            }
        }
        self.current.size += length;
        Ok(())
    }

    /// Appends `length` zeros to the current file.
    pub(super) fn hole(&mut self, length: u64) -> Result<()> {
        self.current.size += length;
        let mut left = length;
        if !self.block.is_empty() {
            let part = left.min((BLOCK_SIZE - self.block.len()) as u64);
            self.block.resize(self.block.len() + part as usize, 0);
            left -= part;
            if self.block.len() == BLOCK_SIZE {
                self.flush()?;
            }
        }
        let whole = left / BLOCK_SIZE as u64;
        if whole > 0 {
            self.start()?;
            self.pipeline.holes(whole)?;
            self.current.sparse += whole * BLOCK_SIZE as u64;
        }
        self.block
            .resize(self.block.len() + (left % BLOCK_SIZE as u64) as usize, 0);
        Ok(())
    }

    /// Ends the current file; later content belongs to the next file.
    pub(super) fn end(&mut self) -> Result<FileData> {
        if !self.block.is_empty() {
            let small = self.current.blocks == FileData::NONE;
            if !small || is_zero(&self.block) {
                self.flush()?;
            } else {
                if self.fragment.len() + self.block.len() > BLOCK_SIZE {
                    self.flush_fragment()?;
                }
                self.current.fragment = self.fragments;
                self.current.offset = self.fragment.len() as u32;
                self.fragment.extend_from_slice(&self.block);
                self.block.clear();
            }
        }
        Ok(std::mem::replace(&mut self.current, FileData::EMPTY))
    }

    /// Forgets a file whose content could not be read to its end.
    pub(super) fn abandon(&mut self) {
        self.block.clear();
        self.current = FileData::EMPTY;
    }

    /// Ends a layer: none of its blocks has content of another layer.
    pub(super) fn end_layer(&mut self) -> Result<()> {
        self.flush_fragment()?;
        self.pipeline.region()
    }

    /// Hands the last fragment block to the pipeline.
    pub(super) fn flush_fragment(&mut self) -> Result<()> {
        if !self.fragment.is_empty() {
            let next = self.pipeline.buffer();
            self.pipeline
                .fragment(std::mem::replace(&mut self.fragment, next))?;
            self.fragments += 1;
        }
        Ok(())
    }

    fn start(&mut self) -> Result<()> {
        if self.current.blocks == FileData::NONE {
            self.pipeline.file()?;
            self.current.blocks = self.files;
            self.files += 1;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        self.start()?;
        if is_zero(&self.block) {
            self.current.sparse += self.block.len() as u64;
            self.block.clear();
            self.pipeline.holes(1)
        } else {
            let next = self.pipeline.buffer();
            self.pipeline
                .block(std::mem::replace(&mut self.block, next))
        }
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    // Most blocks differ from zero in their first bytes; the rest is compared in wide steps.
    let (head, rest) = bytes.split_at(bytes.len().min(16));
    head.iter().all(|&byte| byte == 0)
        && rest
            .chunks(1024)
            .all(|chunk| chunk.iter().fold(0, |all, byte| all | byte) == 0)
}
