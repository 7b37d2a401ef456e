//! The two ways to the bytes of an archive: front to back, or at offsets.

use std::io::{self, Read};

use super::decoder::{Decoder, Front};

/// Reads an archive front to back.
pub type TarStream<R> = Decoder<Stream<R>>;

/// Reads the headers of an archive at their offsets, and content on request.
pub type TarFile<'a, R> = Decoder<Offsets<'a, R>>;

/// Bytes that can be read at any offset.
pub trait ReadAt {
    /// Reads up to the length of `buffer`; 0 at or behind the end.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;
}

/// A stream as [`Front`].
#[derive(Debug)]
pub struct Stream<R>(R);

impl<R: Read> TarStream<R> {
    /// Reads the archive in `input`. Headers are read block by block, so an `input` with expensive reads should
    /// be buffered.
    pub fn new(input: R) -> Self {
        Self::over(Stream(input))
    }

    /// The stream, which is behind the last entry once [`Decoder::next_entry`] has returned `None`.
    pub fn rest(&mut self) -> &mut R {
        &mut self.front.0
    }
}

impl<R: Read> Read for Stream<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl<R: Read> Front for Stream<R> {
    fn skip(&mut self, content: u64, padding: u64) -> io::Result<bool> {
        let mut skipped = (&mut self.0).take(content + padding);
        Ok(io::copy(&mut skipped, &mut io::sink())? >= content)
    }
}

/// Bytes at offsets as [`Front`].
#[derive(Debug)]
pub struct Offsets<'a, R> {
    input: &'a R,
    offset: u64,
}

impl<'a, R: ReadAt> TarFile<'a, R> {
    /// Reads the archive that starts at offset 0 of `input`. Offsets only ascend.
    pub fn new(input: &'a R) -> Self {
        Self::over(Offsets { input, offset: 0 })
    }

    /// Offset of the current entry's unread content.
    pub fn offset(&self) -> u64 {
        self.front.offset
    }
}

impl<R: ReadAt> Read for Offsets<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read_at(self.offset, buffer)?;
        self.offset += count as u64;
        Ok(count)
    }
}

impl<R: ReadAt> Front for Offsets<'_, R> {
    fn skip(&mut self, content: u64, padding: u64) -> io::Result<bool> {
        let Some(end) = self.offset.checked_add(content) else {
            return Ok(false);
        };
        // If the last byte of the content is there, all of it is.
        if content > 0 {
            self.offset = end - 1;
            if self.offset > i64::MAX as u64 {
                return Ok(false);
            }
            loop {
                match self.read(&mut [0]) {
                    Ok(0) => return Ok(false),
                    Ok(_) => break,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
        }
        self.offset = end + padding;
        Ok(true)
    }
}
