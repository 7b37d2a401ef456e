//! Writes a block (RFC 1951, sections 3.2.3 to 3.2.7).
//!
//! Count literals, lengths and distances → make both codes, and the code their lengths are written in →
//! write the block, with these or stored, whichever is shorter. Fixed codes are never used.

use super::bits::BitWriter;
use super::huffman::Code;
use super::matches::{Block, LITERALS_MASK};
use super::symbols::{
    DISTANCES, END, FIRST_LENGTH, LENGTH_BASE, LENGTH_EXTRA, LENGTH_SYMBOL, LITERALS, MAX_MATCH,
    Sequence, distance_extra,
};

/// Longest code of a literal, a length or a distance: with it, four literals fit in one write, and so
/// does a match with its extra bits, and making the codes shorter costs next to nothing.
const LIMIT: usize = 12;
/// Longest code of a code length.
const LENGTHS_LIMIT: usize = 7;
/// Order in which the lengths of the code of code lengths are written.
const LENGTHS_ORDER: [usize; 19] = [
    16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15,
];

/// What is written for each literal, length and distance: `code << 8 | bits`, with the extra bits of a
/// length in its code. Distances have `code << 16 | bits of the code << 8 | bits`.
pub(super) struct Codes {
    literals: [u32; 256],
    lengths: [u32; 512],
    distances: [u32; 32],
}

impl Default for Codes {
    fn default() -> Self {
        Self {
            literals: [0; 256],
            lengths: [0; 512],
            distances: [0; 32],
        }
    }
}

impl Codes {
    fn set(&mut self, literals: &Code, distances: &Code) {
        let entry = |code: u16, length: u8| u32::from(code) << 8 | u32::from(length);
        let codes = literals.codes.iter().zip(&literals.lengths);
        for (literal, (&code, &length)) in self.literals.iter_mut().zip(codes) {
            *literal = entry(code, length);
        }
        for (length, &symbol) in LENGTH_SYMBOL.iter().enumerate().skip(3) {
            let symbol = usize::from(symbol);
            let extra = length as u32 - u32::from(LENGTH_BASE[symbol]);
            let bits = literals.lengths[FIRST_LENGTH + symbol];
            self.lengths[length] = entry(
                literals.codes[FIRST_LENGTH + symbol],
                bits + LENGTH_EXTRA[symbol],
            ) | extra << bits << 8;
        }
        for symbol in 0..DISTANCES {
            let bits = distances.lengths[symbol];
            let code = u32::from(distances.codes[symbol]) << 16 | u32::from(bits) << 8;
            self.distances[symbol] = code | u32::from(bits + distance_extra(symbol));
        }
    }
}

/// Writes `block`, which stands for `plain`, to the end of `out`, but for the bits of its last byte.
pub(super) fn write<'a>(
    mut bits: BitWriter<'a>,
    out: &mut Vec<u8>,
    plain: &[u8],
    block: &Block,
    codes: &mut Codes,
    last: bool,
) -> BitWriter<'a> {
    let (literals, distances) = frequencies(block);
    let (literal_code, distance_code) = (Code::new(&literals, LIMIT), Code::new(&distances, LIMIT));
    let lengths = Lengths::new(&literal_code, &distance_code);
    let content = size(&literals, &literal_code, |symbol| {
        symbol
            .checked_sub(FIRST_LENGTH)
            .map_or(0, |length| LENGTH_EXTRA[length])
    }) + size(&distances, &distance_code, distance_extra);
    if (3 + lengths.size() + content).div_ceil(8) > plain.len() as u64 + 5 {
        bits.put(u64::from(last), 3);
        bits.align();
        let length = plain.len() as u64;
        bits.put(length | (length ^ 0xffff) << 16, 32);
        bits.drain(out);
        out.extend_from_slice(plain);
        return bits;
    }
    bits.put(u64::from(last) | 2 << 1, 3);
    lengths.write(&mut bits);
    codes.set(&literal_code, &distance_code);
    let mut bits = content_of(bits, block, codes);
    bits.put(
        u64::from(literal_code.codes[END]),
        u32::from(literal_code.lengths[END]),
    );
    bits.drain(out);
    bits
}

/// Writes literals and matches.
#[inline(never)]
fn content_of<'a>(mut bits: BitWriter<'a>, block: &Block, codes: &Codes) -> BitWriter<'a> {
    // The run's literals after the last group of four are read as three; those that are not the run's are
    // written as no bits. How many there are, no branch predictor foresees.
    const KEEP: [[u32; 3]; 4] = [[0, 0, 0], [!0, 0, 0], [!0, !0, 0], [!0, !0, !0]];
    let literals = block.literals_and_more();
    let four = |at: usize| {
        let at = at & LITERALS_MASK;
        [
            literals[at],
            literals[at + 1],
            literals[at + 2],
            literals[at + 3],
        ]
    };
    let mut at = 0;
    for sequence in block.sequences() {
        let end = at + sequence.run();
        while end - at >= 4 {
            for literal in four(at) {
                let entry = codes.literals[usize::from(literal)];
                bits.add(u64::from(entry >> 8), entry & 0xff);
            }
            bits.flush();
            at += 4;
        }
        for (literal, keep) in four(at).iter().zip(&KEEP[(end - at) & 3]) {
            let entry = codes.literals[usize::from(*literal)] & keep;
            bits.add(u64::from(entry >> 8), entry & 0xff);
        }
        bits.flush();
        at = end;
        let entry = codes.lengths[sequence.length()];
        bits.add(u64::from(entry >> 8), entry & 0xff);
        let entry = codes.distances[sequence.distance_symbol()];
        let extra = sequence.distance_bits() << ((entry >> 8) & 0x3f);
        bits.add(u64::from(entry >> 16) | extra, entry & 0xff);
        bits.flush();
    }
    for &literal in &block.literals()[at..] {
        let entry = codes.literals[usize::from(literal)];
        bits.put(u64::from(entry >> 8), entry & 0xff);
    }
    bits
}

/// How often each literal or length, and each distance, is written.
fn frequencies(block: &Block) -> ([u32; LITERALS], [u32; DISTANCES]) {
    // Several counters for each symbol: one would wait for its own last store when a symbol comes again.
    let mut counts = [[0u32; 256]; 4];
    let (fours, rest) = block.literals().as_chunks::<4>();
    for four in fours {
        for (counts, &literal) in counts.iter_mut().zip(four) {
            counts[usize::from(literal)] += 1;
        }
    }
    for &literal in rest {
        counts[0][usize::from(literal)] += 1;
    }
    let mut literals = [0; LITERALS];
    for (literal, sum) in literals[..256].iter_mut().enumerate() {
        *sum = counts.iter().map(|counts| counts[literal]).sum();
    }
    literals[END] = 1;

    let (mut lengths, mut distances) = ([[0u32; 512]; 2], [[0u32; 32]; 2]);
    let mut count = |at: usize, sequence: Sequence| {
        lengths[at][sequence.length()] += 1;
        distances[at][sequence.distance_symbol()] += 1;
    };
    let (pairs, rest) = block.sequences().as_chunks::<2>();
    for pair in pairs {
        count(0, pair[0]);
        count(1, pair[1]);
    }
    rest.iter().for_each(|sequence| count(0, *sequence));
    for length in 3..=MAX_MATCH {
        let symbol = FIRST_LENGTH + usize::from(LENGTH_SYMBOL[length]);
        literals[symbol] += lengths[0][length] + lengths[1][length];
    }
    let sum = |symbol: usize| distances[0][symbol] + distances[1][symbol];
    (literals, std::array::from_fn(sum))
}

/// Bits that symbols of these frequencies take.
fn size(frequencies: &[u32], code: &Code, extra: impl Fn(usize) -> u8) -> u64 {
    let bits = |(symbol, &frequency): (usize, &u32)| {
        u64::from(frequency) * u64::from(code.lengths[symbol] + extra(symbol))
    };
    frequencies.iter().enumerate().map(bits).sum()
}

/// The lengths of both codes as the block's header writes them (RFC 1951, section 3.2.7).
struct Lengths {
    literals: usize,
    distances: usize,
    /// Symbols, each a length or a repetition, and their extra bits.
    items: [(u8, u8); LITERALS + DISTANCES],
    count: usize,
    frequencies: [u32; 19],
    code: Code,
}

impl Lengths {
    fn new(literals: &Code, distances: &Code) -> Self {
        let used = |lengths: &[u8], least: usize| {
            let used = lengths.iter().rposition(|&length| length > 0);
            used.map_or(least, |last| least.max(last + 1))
        };
        let mut lengths = Self {
            literals: used(&literals.lengths[..LITERALS], FIRST_LENGTH),
            distances: used(&distances.lengths[..DISTANCES], 1),
            items: [(0, 0); LITERALS + DISTANCES],
            count: 0,
            frequencies: [0; 19],
            code: Code::new(&[0; 2], 1),
        };
        let mut all = [0; LITERALS + DISTANCES];
        let count = lengths.literals + lengths.distances;
        all[..lengths.literals].copy_from_slice(&literals.lengths[..lengths.literals]);
        all[lengths.literals..count].copy_from_slice(&distances.lengths[..lengths.distances]);
        for same in all[..count].chunk_by(|one, next| one == next) {
            lengths.push_run(same[0], same.len());
        }
        lengths.code = Code::new(&lengths.frequencies, LENGTHS_LIMIT);
        lengths
    }

    fn push(&mut self, symbol: u8, extra: usize) {
        self.items[self.count] = (symbol, extra as u8);
        self.count += 1;
        self.frequencies[usize::from(symbol)] += 1;
    }

    fn push_run(&mut self, length: u8, mut run: usize) {
        if length > 0 {
            self.push(length, 0);
            run -= 1;
        }
        while run >= 3 {
            let (symbol, least, most) = match (length, run) {
                (0, 11..) => (18, 11, 138),
                (0, _) => (17, 3, 10),
                _ => (16, 3, 6),
            };
            let part = run.min(most);
            self.push(symbol, part - least);
            run -= part;
        }
        for _ in 0..run {
            self.push(length, 0);
        }
    }

    fn extra(symbol: usize) -> u8 {
        match symbol {
            16 => 2,
            17 => 3,
            18 => 7,
            _ => 0,
        }
    }

    /// Lengths of the code of code lengths that are written.
    fn written(&self) -> usize {
        let used = |&symbol: &usize| self.code.lengths[symbol] > 0;
        LENGTHS_ORDER
            .iter()
            .rposition(used)
            .map_or(4, |last| (last + 1).max(4))
    }

    /// Bits that [`Lengths::write`] writes.
    fn size(&self) -> u64 {
        14 + 3 * self.written() as u64 + size(&self.frequencies, &self.code, Self::extra)
    }

    fn write(&self, bits: &mut BitWriter<'_>) {
        let written = self.written();
        bits.put((self.literals - 257) as u64, 5);
        bits.put((self.distances - 1) as u64, 5);
        bits.put((written - 4) as u64, 4);
        for &symbol in &LENGTHS_ORDER[..written] {
            bits.put(u64::from(self.code.lengths[symbol]), 3);
        }
        for &(symbol, extra) in &self.items[..self.count] {
            let symbol = usize::from(symbol);
            let length = u32::from(self.code.lengths[symbol]);
            bits.add(u64::from(self.code.codes[symbol]), length);
            bits.put(u64::from(extra), u32::from(Self::extra(symbol)));
        }
    }
}
