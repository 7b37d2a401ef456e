//! Compresses pieces of at most 1 MiB into raw deflate streams (RFC 1951), for speed before size.
//!
//! Data path: [`Deflater::deflate`] copies the piece into a fixed array → `matches.rs` cuts a block of some
//! 60 kB into literals and [`Sequence`](symbols::Sequence)s → `block.rs` counts symbols, has `huffman.rs` make
//! the codes, and writes the block, with dynamic codes or stored, whichever is shorter → `bits.rs` packs the
//! bits. Nothing is kept from piece to piece, so that the same piece gives the same bytes on any thread.
//!
//! What makes it fast: one probe of one small hash table for a position, few unpredictable branches, arrays
//! whose lengths are powers of two and indices that are masked, so that no bound is checked in the loops.

mod bits;
mod block;
mod huffman;
mod matches;
mod symbols;
#[cfg(test)]
mod tests;

use bits::BitWriter;
use block::Codes;
use matches::{Block, Matcher};

use super::buffer::PIECE;

/// Bytes of plain data in a block, but for a match that crosses the end: a seventeenth of a piece. Small
/// enough that codes follow the content and that a stored block (at most 65535 bytes, RFC 1951, section
/// 3.2.4) holds it, large enough that making the codes costs little.
const BLOCK: usize = 61_696;

/// Compresses one piece after the other; keeps its buffers (some 1.5 MiB).
pub(crate) struct Deflater {
    matcher: Matcher,
    block: Block,
    codes: Box<Codes>,
    bits: Box<[u8; bits::ROOM]>,
}

impl std::fmt::Debug for Deflater {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Deflater").finish_non_exhaustive()
    }
}

impl Deflater {
    /// A compressor with nothing in it.
    pub(crate) fn new() -> Self {
        Self {
            matcher: Matcher::new(),
            block: Block::new(),
            codes: Box::default(),
            bits: zeroed(),
        }
    }

    /// Appends the deflate stream of `piece` to `out`: at most 6 bytes more than the piece for each block
    /// of it, and one block when it is empty.
    ///
    /// # Panics
    ///
    /// When `piece` is longer than 1 MiB.
    pub(crate) fn deflate(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        assert!(piece.len() <= PIECE, "a piece of {} bytes", piece.len());
        self.matcher.start(piece);
        let mut bits = BitWriter::new(&mut self.bits);
        let mut start = 0;
        loop {
            let end = self.matcher.fill(&mut self.block, start);
            let last = end == piece.len();
            let plain = &piece[start..end];
            bits = block::write(bits, out, plain, &self.block, &mut self.codes, last);
            start = end;
            if last {
                bits.align();
                return bits.drain(out);
            }
        }
    }
}

/// A zeroed array on the heap, without passing over the stack.
fn zeroed<T: Copy + Default, const N: usize>() -> Box<[T; N]> {
    match vec![T::default(); N].into_boxed_slice().try_into() {
        Ok(array) => array,
        Err(_) => unreachable!("the slice has the length of the array"),
    }
}
