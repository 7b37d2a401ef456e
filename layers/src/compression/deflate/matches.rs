//! Finds what was there before within 32 KiB (RFC 1951, section 4), greedily.
//!
//! A hash table has the last position of each hash of 6 bytes, one probe each. An entry is a position
//! modulo 32 Ki: read as the nearest earlier one that fits, it always is a legal distance, and a comparison
//! tells whether anything is there. After 64 literals in a row, positions are skipped, more and more of them.

use std::hint::select_unpredictable;

use super::symbols::{MAX_MATCH, Sequence};
use super::{BLOCK, zeroed};
use crate::compression::buffer::PIECE;

const HASH_BITS: u32 = 15;
/// Furthest a match reaches back.
pub(super) const WINDOW: usize = 1 << 15;
/// Literals in a row that are all looked up, as a power of two.
const PATIENCE: usize = 6;
/// Bytes at the end of a piece that no match starts in.
const TAIL: usize = 16;
/// Bytes that are read at once at most.
const SLACK: usize = 16;

/// Most literals in a block as an index mask.
pub(super) const LITERALS_MASK: usize = (1 << 16) - 1;
const SEQUENCES: usize = 1 << 14;

const _: () = assert!(BLOCK <= LITERALS_MASK && BLOCK / 4 < SEQUENCES && PIECE.is_power_of_two());

/// The bytes of a block that are no part of a match, and the matches between them.
pub(super) struct Block {
    literals: Box<[u8; LITERALS_MASK + 1 + SLACK]>,
    literal_count: usize,
    sequences: Box<[Sequence; SEQUENCES]>,
    sequence_count: usize,
}

impl Block {
    /// An empty block.
    pub(super) fn new() -> Self {
        Self {
            literals: zeroed(),
            literal_count: 0,
            sequences: zeroed(),
            sequence_count: 0,
        }
    }

    /// Literals one after the other; those after the last sequence's runs end the block.
    pub(super) fn literals(&self) -> &[u8] {
        &self.literals[..self.literal_count]
    }

    /// The literals and what is behind them, so that four can be read where one is.
    pub(super) fn literals_and_more(&self) -> &[u8; LITERALS_MASK + 1 + SLACK] {
        &self.literals
    }

    /// Runs of literals with a match after each.
    pub(super) fn sequences(&self) -> &[Sequence] {
        &self.sequences[..self.sequence_count]
    }

    #[inline(always)]
    fn push_literals(&mut self, input: &Input, from: usize, run: usize) {
        if run <= SLACK {
            // All of 16 bytes whatever the run: cheaper than a copy of unknown length.
            let (from, to) = (from & (PIECE - 1), self.literal_count & LITERALS_MASK);
            self.literals[to..to + SLACK].copy_from_slice(&input[from..from + SLACK]);
        } else {
            let to = self.literal_count;
            self.literals[to..to + run].copy_from_slice(&input[from..from + run]);
        }
        self.literal_count += run;
    }

    #[inline(always)]
    fn push_match(&mut self, sequence: Sequence) {
        self.sequences[self.sequence_count & (SEQUENCES - 1)] = sequence;
        self.sequence_count += 1;
    }
}

type Input = [u8; PIECE + SLACK];

/// The piece at work and where its bytes were seen last.
pub(super) struct Matcher {
    input: Box<Input>,
    length: usize,
    table: Box<[u16; 1 << HASH_BITS]>,
}

impl Matcher {
    /// A matcher of an empty piece.
    pub(super) fn new() -> Self {
        Self {
            input: zeroed(),
            length: 0,
            table: zeroed(),
        }
    }

    /// Forgets the piece before and takes this one, of at most 1 MiB.
    pub(super) fn start(&mut self, piece: &[u8]) {
        self.length = piece.len();
        self.input[..piece.len()].copy_from_slice(piece);
        self.input[piece.len()..][..SLACK].fill(0);
        self.table.fill(0);
    }

    /// Makes `block` the one that starts at `start`, and tells where it ends: [`BLOCK`] bytes further,
    /// at the end of the match that is across that, or at the end of the piece.
    #[inline(never)]
    pub(super) fn fill(&mut self, block: &mut Block, start: usize) -> usize {
        let (input, table, length) = (&*self.input, &mut *self.table, self.length);
        block.literal_count = 0;
        block.sequence_count = 0;
        let end = length.min(start + BLOCK);
        let limit = end.min(length.saturating_sub(TAIL));
        // Looks one position up, remembers it, and tells the candidate and how the next 8 bytes differ.
        let mut probe = |at: usize| {
            let bytes = load(input, at);
            let entry = &mut table[hash(bytes)];
            let before = at.wrapping_sub(1);
            let candidate =
                before.wrapping_sub(before.wrapping_sub(*entry as usize) & (WINDOW - 1));
            *entry = at as u16;
            (candidate, bytes ^ load(input, candidate))
        };
        let (mut at, mut anchor) = (start, start);
        'sequences: while at < limit {
            let patient = limit.min(at + (1 << PATIENCE));
            let (candidate, difference) = 'found: {
                while at < patient {
                    let (candidate, difference) = probe(at);
                    if difference as u32 == 0 {
                        break 'found (candidate, difference);
                    }
                    at += 1;
                }
                while at < limit {
                    let (candidate, difference) = probe(at);
                    if difference as u32 == 0 {
                        break 'found (candidate, difference);
                    }
                    at += 1 + ((at - anchor) >> PATIENCE);
                }
                break 'sequences;
            };
            if candidate >= at {
                // Before the start of the piece.
                at += 1;
                continue;
            }
            let matched = match_length(input, at, candidate, difference).min(length - at);
            let run = at - anchor;
            block.push_literals(input, anchor, run);
            block.push_match(Sequence::new(run, matched, at - candidate));
            probe(at + 1);
            at += matched;
            anchor = at;
            probe(at - 2);
        }
        let stop = anchor.max(end);
        block.push_literals(input, anchor, stop - anchor);
        stop
    }
}

/// Bytes that are the same at both places, of which the first 8 differ by `difference`. Beyond the end of
/// the piece anything may come out, but at most [`MAX_MATCH`].
#[inline(always)]
fn match_length(input: &Input, at: usize, candidate: usize, difference: u64) -> usize {
    let same = |difference: u64| (difference.trailing_zeros() / 8) as usize;
    let next = load(input, at + 8) ^ load(input, candidate + 8);
    // Shorter or longer than 8 is a coin toss, no branch predictor foresees it.
    let mut length = select_unpredictable(difference != 0, same(difference), 8 + same(next));
    if length == 16 {
        while length < MAX_MATCH {
            let next = load(input, at + length) ^ load(input, candidate + length);
            length += same(next);
            if next != 0 {
                break;
            }
        }
    }
    length.min(MAX_MATCH)
}

#[inline(always)]
fn load(input: &Input, at: usize) -> u64 {
    let at = at & (PIECE - 1);
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&input[at..at + 8]);
    u64::from_le_bytes(bytes)
}

/// Hash of the first 6 of 8 bytes.
#[inline(always)]
fn hash(bytes: u64) -> usize {
    ((bytes << 16).wrapping_mul(0x9e37_79b1_85eb_ca87) >> (64 - HASH_BITS)) as usize
}
