//! Reads file content.
//!
//! A file's blocks lie one after the other: a block's position is the sum of the stored sizes before it. In
//! longer files, the sums are remembered every 2048 blocks.

use std::num::NonZeroUsize;
use std::sync::Arc;

use lru::LruCache;
use parking_lot::Mutex;

use super::inode::{Body, Inode};
use super::source::{Cursor, Position, broken};
use super::{InodeNo, Squashfs};
use crate::error::{Error, Result};

/// Blocks between two remembered sums.
const STRIDE: u64 = 2048;
/// Number of long files whose sums are remembered.
const FILES: NonZeroUsize = NonZeroUsize::MIN.saturating_add(63);
/// Marks a block stored as it is.
const STORED: u32 = 1 << 24;

/// For blocks 0, 2048, 4096… of a file: where the list of sizes has them, and where they are stored.
type Sums = Vec<(Position, u64)>;

/// The remembered sums of long files.
#[derive(Debug)]
pub(super) struct LongFiles(Mutex<LruCache<InodeNo, Arc<Mutex<Sums>>>>);

impl LongFiles {
    pub(super) fn new() -> Self {
        Self(Mutex::new(LruCache::new(FILES)))
    }

    fn get(&self, inode: InodeNo) -> Arc<Mutex<Sums>> {
        let mut files = self.0.lock();
        Arc::clone(files.get_or_insert(inode, Arc::default))
    }
}

/// Walks the list of a file's stored block sizes.
struct Blocks<'s> {
    cursor: Cursor<'s>,
    /// Where the next block is stored.
    position: u64,
}

impl Blocks<'_> {
    /// The next block's position and marked size.
    fn next(&mut self) -> Result<(u64, u32)> {
        let size = self.cursor.u32()?;
        let position = self.position;
        self.position = position
            .checked_add(u64::from(size & !STORED))
            .ok_or_else(|| broken("has a file whose blocks leave it"))?;
        Ok((position, size))
    }
}

impl Squashfs {
    /// Reads file content at `offset`; returns the number of bytes, less than requested only at the end.
    pub fn read_at(&self, inode: InodeNo, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let data = self.inode(inode)?;
        let Body::File {
            start, fragment, ..
        } = data.body
        else {
            return Err(Error::invalid("inode", "is not a regular file"));
        };
        let length = data.size.saturating_sub(offset).min(buffer.len() as u64) as usize;
        let Some(mut rest) = buffer.get_mut(..length).filter(|rest| !rest.is_empty()) else {
            return Ok(0);
        };
        let block_size = u64::from(self.superblock.block_size);
        let listed = match fragment {
            Some(_) => data.size / block_size,
            None => data.size.div_ceil(block_size),
        };
        let mut index = offset / block_size;
        let mut within = offset % block_size;
        let mut blocks = None;
        while !rest.is_empty() {
            let block_length = (data.size - index * block_size).min(block_size);
            let part = (block_length - within).min(rest.len() as u64) as usize;
            let (now, later) = rest.split_at_mut(part);
            if index < listed {
                let blocks = match &mut blocks {
                    Some(blocks) => blocks,
                    None => blocks.insert(self.blocks(inode, &data, start, index)?),
                };
                let (position, size) = blocks.next()?;
                self.read_block(position, size, within as usize, now)?;
            } else if let Some((fragment, offset)) = fragment {
                let (position, size) = self.fragment(fragment)?;
                let within = within as usize + offset as usize;
                self.read_block(position, size, within, now)?;
            }
            rest = later;
            index += 1;
            within = 0;
        }
        Ok(length)
    }

    /// Copies part of one stored block.
    fn read_block(&self, position: u64, size: u32, within: usize, out: &mut [u8]) -> Result<()> {
        let stored = (size & !STORED) as usize;
        if stored == 0 {
            out.fill(0);
        } else if size & STORED != 0 {
            let leaves = within + out.len() > stored;
            let from = position.checked_add(within as u64);
            match from.filter(|_| !leaves) {
                // The kernel's page cache keeps these bytes: a copy here would be a second one.
                Some(from) => self.source.read(from, out)?,
                None => return Err(broken("has a data block that is too short")),
            }
        } else {
            let limit = self.superblock.block_size as usize;
            if within == 0 && out.len() == limit {
                // A reader of whole blocks does not come back for the rest: nothing is kept.
                return self.source.block_into(position, stored, out);
            }
            let block = self.source.block(position, stored, limit)?;
            match block.data.get(within..within + out.len()) {
                Some(bytes) => out.copy_from_slice(bytes),
                None => return Err(broken("has a data block that is too short")),
            }
        }
        Ok(())
    }

    /// A walk over the sizes of a file's blocks that starts at block `index`.
    fn blocks(&self, inode: InodeNo, data: &Inode, start: u64, index: u64) -> Result<Blocks<'_>> {
        let (mut place, mut position) = (data.tail, start);
        let mut passed = 0;
        if index >= STRIDE {
            let sums = self.long_files.get(inode);
            let mut sums = sums.lock();
            if sums.is_empty() {
                sums.push((place, position));
            }
            let wanted = usize::try_from(index / STRIDE).unwrap_or(usize::MAX);
            while sums.len() <= wanted {
                let Some(&(place, position)) = sums.last() else {
                    break;
                };
                let mut blocks = self.walk(place, position)?;
                for _ in 0..STRIDE {
                    blocks.next()?;
                }
                sums.push((blocks.cursor.position(), blocks.position));
            }
            if let Some(&(there, sum)) = sums.get(wanted) {
                (place, position) = (there, sum);
                passed = index / STRIDE * STRIDE;
            }
        }
        let mut blocks = self.walk(place, position)?;
        for _ in passed..index {
            blocks.next()?;
        }
        Ok(blocks)
    }

    fn walk(&self, place: Position, position: u64) -> Result<Blocks<'_>> {
        Ok(Blocks {
            cursor: Cursor::new(&self.source, place, self.superblock.dir_table)?,
            position,
        })
    }

    /// Position and marked size of a fragment block.
    fn fragment(&self, number: u32) -> Result<(u64, u32)> {
        if number >= self.superblock.frag_count {
            return Err(broken("has a file in a fragment that does not exist"));
        }
        let mut cursor = self.table(self.superblock.frag_table, u64::from(number), 16)?;
        Ok((cursor.u64()?, cursor.u32()?))
    }
}
