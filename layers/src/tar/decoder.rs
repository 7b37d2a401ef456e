//! The walk from entry to entry, in bounded memory.

use std::io::{self, Read};

use tar::{EntryType, Header};

use super::entry::{Entry, Extensions};
use super::error::{TarError, invalid};
use super::header::{self, BLOCK, Block};
use super::sparse;

/// Longest extension record accepted, as in Go's `archive/tar`.
const MAX_RECORD: u64 = 1 << 20;
/// Most bytes of extension records and their headers accepted before an entry.
const MAX_RECORDS: u64 = 4 * MAX_RECORD;

/// A source of bytes that can skip some of them.
pub trait Front: Read {
    /// Skips content and the padding behind it; `false` when the content is cut short. The padding may be
    /// missing.
    fn skip(&mut self, content: u64, padding: u64) -> io::Result<bool>;
}

/// An archive between two entries, or a reader of the current entry's content.
///
/// Content that ends early gives an error of kind [`io::ErrorKind::UnexpectedEof`].
#[derive(Debug)]
pub struct Decoder<F> {
    pub(super) front: F,
    /// Unread content of the current entry.
    content: u64,
    padding: u64,
}

impl<F: Front> Decoder<F> {
    pub(super) fn over(front: F) -> Self {
        Self {
            front,
            content: 0,
            padding: 0,
        }
    }

    /// Reads the next entry, `None` at the end; skips the unread content of the previous entry.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, TarError> {
        let mut extensions = Extensions::default();
        let mut budget = MAX_RECORDS;
        loop {
            self.skip()?;
            let Some(block) = self.header()? else {
                return match extensions.is_empty() {
                    true => Ok(None),
                    false => invalid("ends after an extension header"),
                };
            };
            let size = header::size(&block[124..136])?;
            let kind = Header::from_byte_slice(&block).entry_type();
            match kind {
                EntryType::GNULongName
                | EntryType::GNULongLink
                | EntryType::XHeader
                | EntryType::XGlobalHeader => {
                    if size > MAX_RECORD {
                        return invalid("has an extension header longer than 1 MiB");
                    }
                    let Some(left) = budget.checked_sub(size + BLOCK as u64) else {
                        return invalid("has too many extension headers before an entry");
                    };
                    budget = left;
                    self.expect(size)?;
                    if kind != EntryType::XGlobalHeader {
                        let mut record = Vec::new();
                        self.read_to_end(&mut record)?;
                        extensions.take(kind, &record)?;
                    }
                }
                _ => return self.entry(&block, extensions).map(Some),
            }
        }
    }

    fn entry(&mut self, block: &Block, extensions: Extensions) -> Result<Entry, TarError> {
        let (mut entry, mut pax) = Entry::new(block, extensions)?;
        self.expect(entry.size)?;
        match entry.kind {
            EntryType::GNUSparse => {
                let segments = sparse::gnu_segments(block, |more| match self.block(more)? {
                    true => Ok(()),
                    false => Err(TarError::Truncated),
                })?;
                entry.spread(segments, header::size(&block[483..495])?, None);
            }
            EntryType::Regular | EntryType::Continuous => {
                if let Some((segments, size)) = pax.segments(&mut *self)? {
                    entry.spread(segments, size, pax.name);
                }
            }
            _ => {}
        }
        if let Some(segments) = &entry.segments {
            sparse::check(segments, entry.size, self.content)?;
        }
        Ok(entry)
    }

    /// Unread stored bytes of the current entry.
    pub fn remaining(&self) -> u64 {
        self.content
    }

    fn expect(&mut self, size: u64) -> Result<(), TarError> {
        if size > i64::MAX as u64 - BLOCK as u64 {
            return invalid("has an entry of absurd size");
        }
        self.content = size;
        self.padding = size.next_multiple_of(BLOCK as u64) - size;
        Ok(())
    }

    fn skip(&mut self) -> Result<(), TarError> {
        // umoci ends archives right behind the last byte of content, and docker accepts them.
        if !self.front.skip(self.content, self.padding)? {
            return Err(TarError::Truncated);
        }
        (self.content, self.padding) = (0, 0);
        Ok(())
    }

    /// The next header block; `None` at two zero blocks or at the end of the bytes.
    fn header(&mut self) -> Result<Option<Block>, TarError> {
        let mut block = [0; BLOCK];
        if !self.block(&mut block)? {
            return Ok(None);
        }
        if block == [0; BLOCK] {
            return match self.block(&mut block)? {
                true if block != [0; BLOCK] => invalid("has a stray zero block"),
                _ => Ok(None),
            };
        }
        header::verify(&block)?;
        Ok(Some(block))
    }

    /// Fills one block; `false` at the end of the bytes.
    fn block(&mut self, block: &mut Block) -> Result<bool, TarError> {
        let mut filled = 0;
        while let Some(rest) = block.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.front.read(rest) {
                Ok(0) if filled == 0 => return Ok(false),
                Ok(0) => return Err(TarError::Truncated),
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }
}

impl<F: Front> Read for Decoder<F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.content.min(buffer.len() as u64) as usize;
        let Some(buffer) = buffer.get_mut(..length).filter(|part| !part.is_empty()) else {
            return Ok(0);
        };
        match self.front.read(buffer)? {
            0 => Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the archive is truncated",
            )),
            count => {
                self.content -= count as u64;
                Ok(count)
            }
        }
    }
}
