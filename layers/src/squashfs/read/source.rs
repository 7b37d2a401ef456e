//! The file under a reader: bounded reads, decompression, cached blocks, and cursors over metadata.

use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use backhand::compression::{CompressionAction, Compressor, DefaultCompressor};

use super::ahead::ReadAhead;
use super::cache::{Block, BlockCache};
use crate::error::{Error, Result};

/// Longest metadata block.
pub(super) const METADATA_SIZE: usize = 8 << 10;
/// Marks a metadata block stored as it is.
const METADATA_STORED: u16 = 1 << 15;

thread_local! {
    /// The buffer for stored blocks before they are inflated.
    static STORED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    static ZSTD: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
    static DEFLATE: RefCell<libdeflater::Decompressor> =
        RefCell::new(libdeflater::Decompressor::new());
}

/// The error for a file that breaks the format.
pub(super) fn broken(why: impl Into<String>) -> Error {
    Error::invalid("squashfs file", why)
}

/// A squashfs file's bytes.
#[derive(Debug)]
pub(super) struct Source {
    file: Arc<File>,
    cache: Arc<BlockCache>,
    number: u64,
    ahead: ReadAhead,
    compressor: Compressor,
    /// End of the file system.
    pub(super) end: u64,
}

impl Drop for Source {
    fn drop(&mut self) {
        self.cache.forget(self.number);
    }
}

impl Source {
    pub(super) fn new(
        file: Arc<File>,
        cache: Arc<BlockCache>,
        compressor: Compressor,
        end: u64,
    ) -> Result<Self> {
        match compressor {
            Compressor::Gzip | Compressor::Xz | Compressor::Zstd => {}
            other => {
                return Err(broken(format!(
                    "is compressed with {other:?}, which is not supported"
                )));
            }
        }
        Ok(Self {
            number: cache.register(),
            ahead: ReadAhead::new(end),
            file,
            cache,
            compressor,
            end,
        })
    }

    /// Reads exactly `buffer` at `position`.
    pub(super) fn read(&self, position: u64, buffer: &mut [u8]) -> Result<()> {
        read_exact(&self.file, position, buffer)?;
        self.ahead.touch(&self.file, position);
        Ok(())
    }

    pub(super) fn read_u64(&self, position: u64) -> Result<u64> {
        let mut bytes = [0; 8];
        self.read(position, &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// A compressed data or fragment block of `stored` bytes, inflated to at most `limit` bytes.
    pub(super) fn block(&self, position: u64, stored: usize, limit: usize) -> Result<Arc<Block>> {
        self.cache.get_or_make((self.number, position), || {
            let data = self.stored(position, stored, limit, |bytes| self.inflate(bytes, limit))?;
            let next = position.saturating_add(stored as u64);
            Ok(Block { data, next })
        })
    }

    /// A compressed data block that inflates to exactly the length of `out`; the block is not kept.
    pub(super) fn block_into(&self, position: u64, stored: usize, out: &mut [u8]) -> Result<()> {
        let length = if let Some(block) = self.cache.get((self.number, position)) {
            let n = block.data.len().min(out.len());
            if let (Some(to), Some(from)) = (out.get_mut(..n), block.data.get(..n)) {
                to.copy_from_slice(from);
            }
            block.data.len()
        } else {
            let limit = out.len();
            self.stored(position, stored, limit, |bytes| {
                self.inflate_into(bytes, out)
            })?
        };
        match length == out.len() {
            true => Ok(()),
            false => Err(broken("has a data block that is too short")),
        }
    }

    /// Reads a stored block of at most `limit` bytes and passes it to a function.
    fn stored<T>(
        &self,
        position: u64,
        stored: usize,
        limit: usize,
        take: impl FnOnce(&[u8]) -> Result<T>,
    ) -> Result<T> {
        let end = position.checked_add(stored as u64);
        if end.is_none_or(|end| end > self.end) || stored > limit {
            return Err(broken("has a data block that leaves it"));
        }
        STORED.with_borrow_mut(|bytes| {
            if bytes.len() < stored {
                bytes.resize(stored, 0);
            }
            let bytes = bytes.get_mut(..stored).unwrap_or_default();
            self.read(position, bytes)?;
            take(bytes)
        })
    }

    /// The metadata block at `position`.
    fn metadata(&self, position: u64, end: u64) -> Result<Arc<Block>> {
        self.cache.get_or_make((self.number, position), || {
            let room = end.saturating_sub(position).min(METADATA_SIZE as u64 + 2) as usize;
            let mut bytes = vec![0; room];
            self.read(position, &mut bytes)?;
            let [low, high, rest @ ..] = bytes.as_slice() else {
                return Err(broken("has a metadata reference that leaves its table"));
            };
            let header = u16::from_le_bytes([*low, *high]);
            let length = usize::from(header & !METADATA_STORED);
            let Some(stored) = rest.get(..length).filter(|stored| !stored.is_empty()) else {
                return Err(broken("has a metadata block of impossible length"));
            };
            let data = if header & METADATA_STORED != 0 {
                stored.to_vec()
            } else {
                self.inflate(stored, METADATA_SIZE)?
            };
            if data.is_empty() {
                return Err(broken("has an empty metadata block"));
            }
            let next = position + 2 + length as u64;
            Ok(Block { data, next })
        })
    }

    fn inflate(&self, stored: &[u8], limit: usize) -> Result<Vec<u8>> {
        let mut data;
        if matches!(self.compressor, Compressor::Zstd) {
            // The decompressor writes into uncleared room: clearing would cost a tenth of inflating.
            data = Vec::with_capacity(limit);
            unzstd(stored, &mut data)?;
        } else {
            data = vec![0; limit];
            let length = self.inflate_into(stored, &mut data)?;
            data.truncate(length);
        }
        data.shrink_to_fit();
        Ok(data)
    }

    /// Inflates a block into `out`; returns its length. A longer block is an error.
    fn inflate_into(&self, stored: &[u8], out: &mut [u8]) -> Result<usize> {
        match self.compressor {
            Compressor::Zstd => unzstd(stored, out),
            Compressor::Gzip => DEFLATE.with_borrow_mut(|deflate| {
                deflate.zlib_decompress(stored, out).map_err(|_| corrupt())
            }),
            other => {
                let mut data = Vec::with_capacity(out.len());
                DefaultCompressor
                    .decompress(stored, &mut data, other)
                    .map_err(|_| corrupt())?;
                let out = out.get_mut(..data.len()).ok_or_else(corrupt)?;
                out.copy_from_slice(&data);
                Ok(data.len())
            }
        }
    }
}

/// Inflates a block into the room that `out` has; returns its length.
fn unzstd(stored: &[u8], out: &mut (impl zstd::zstd_safe::WriteBuf + ?Sized)) -> Result<usize> {
    ZSTD.with_borrow_mut(|slot| {
        let zstd = match slot {
            Some(zstd) => zstd,
            None => slot.insert(zstd::bulk::Decompressor::new().map_err(|_| corrupt())?),
        };
        zstd.decompress_to_buffer(stored, out)
            .map_err(|_| corrupt())
    })
}

fn corrupt() -> Error {
    broken("has a block that cannot be decompressed")
}

/// Reads exactly `buffer` at `position` of `file`.
pub(super) fn read_exact(file: &File, position: u64, buffer: &mut [u8]) -> Result<()> {
    file.read_exact_at(buffer, position)
        .map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => broken("is truncated"),
            _ => Error::io("read", "squashfs file")(error),
        })
}

/// A position in a metadata table: an absolute block position, and an offset in the inflated block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) block: u64,
    pub(super) offset: usize,
}

/// Reads records from a metadata table.
#[derive(Debug)]
pub(super) struct Cursor<'s> {
    source: &'s Source,
    block: Arc<Block>,
    position: Position,
    end: u64,
}

impl<'s> Cursor<'s> {
    /// Starts at `position`; the table ends at `end`.
    pub(super) fn new(source: &'s Source, position: Position, end: u64) -> Result<Self> {
        let block = source.metadata(position.block, end)?;
        if position.offset > block.data.len() {
            return Err(broken("has a metadata reference that leaves its block"));
        }
        Ok(Self {
            source,
            block,
            position,
            end,
        })
    }

    pub(super) fn position(&self) -> Position {
        self.position
    }

    /// Takes up to `length` bytes of one block; none only if `length` is 0.
    fn chunk(&mut self, length: usize) -> Result<&[u8]> {
        if self.position.offset >= self.block.data.len() && length > 0 {
            let next = self.block.next;
            self.block = self.source.metadata(next, self.end)?;
            self.position = Position {
                block: next,
                offset: 0,
            };
        }
        let start = self.position.offset;
        let end = self.block.data.len().min(start.saturating_add(length));
        self.position.offset = end;
        Ok(self.block.data.get(start..end).unwrap_or_default())
    }

    pub(super) fn read(&mut self, mut buffer: &mut [u8]) -> Result<()> {
        while !buffer.is_empty() {
            let chunk = self.chunk(buffer.len())?;
            let (now, later) = buffer.split_at_mut(chunk.len());
            now.copy_from_slice(chunk);
            buffer = later;
        }
        Ok(())
    }

    pub(super) fn skip(&mut self, length: usize) -> Result<()> {
        let mut left = length;
        while left > 0 {
            left -= self.chunk(left)?.len();
        }
        Ok(())
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.read(&mut bytes)?;
        Ok(bytes)
    }

    pub(super) fn u16(&mut self) -> Result<u16> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub(super) fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(super) fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// Takes `length` bytes; the caller has checked the bound.
    pub(super) fn bytes(&mut self, length: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.read(&mut bytes)?;
        Ok(bytes)
    }
}
