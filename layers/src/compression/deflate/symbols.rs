//! Lengths and distances as deflate's alphabets write them: a symbol and extra bits (RFC 1951, section 3.2.5).

/// Literals and lengths: 256 bytes, end of block, 29 lengths.
pub(super) const LITERALS: usize = 286;
/// Distances.
pub(super) const DISTANCES: usize = 30;
/// The symbol that ends a block.
pub(super) const END: usize = 256;
/// The symbol of the shortest lengths.
pub(super) const FIRST_LENGTH: usize = 257;
/// Longest match.
pub(super) const MAX_MATCH: usize = 258;

/// Shortest length of each length symbol.
pub(super) const LENGTH_BASE: [u16; 29] = [
    3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131,
    163, 195, 227, 258,
];
/// Extra bits of each length symbol.
pub(super) const LENGTH_EXTRA: [u8; 29] = [
    0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0,
];

/// Length symbol of each length, counted from [`FIRST_LENGTH`].
pub(super) static LENGTH_SYMBOL: [u8; MAX_MATCH + 1] = {
    let mut symbols = [0; MAX_MATCH + 1];
    let mut symbol = 0;
    while symbol < LENGTH_BASE.len() {
        let mut length = LENGTH_BASE[symbol] as usize;
        while length <= MAX_MATCH {
            symbols[length] = symbol as u8;
            length += 1;
        }
        symbol += 1;
    }
    symbols
};

/// Extra bits of a distance symbol.
pub(super) fn distance_extra(symbol: usize) -> u8 {
    (symbol / 2).saturating_sub(1) as u8
}

/// A run of literals and the match that follows: 16 bits for the run's length, 9 for the match's, 5 for
/// the distance's symbol, 13 for its extra bits.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sequence(u64);

impl Sequence {
    /// A run of less than 64 Ki literals, then a match of 3 to 258 bytes at a distance of 1 to 32768.
    #[inline(always)]
    pub(super) fn new(run: usize, length: usize, distance: usize) -> Self {
        let before = distance as u32 - 1;
        // Two symbols for each power of two: its lower and its upper half.
        let bits = (before | 2).ilog2();
        let (half, extra) = ((before >> (bits - 1)) & 1, before & ((1 << (bits - 1)) - 1));
        let symbol = if before < 2 { before } else { 2 * bits + half };
        let (run, length) = (run as u64, length as u64);
        Self(run << 32 | length << 20 | u64::from(symbol) << 13 | u64::from(extra))
    }

    /// Literals before the match.
    #[inline(always)]
    pub(super) fn run(self) -> usize {
        (self.0 >> 32) as usize
    }

    /// Bytes of the match; less than 512 as far as the compiler is concerned.
    #[inline(always)]
    pub(super) fn length(self) -> usize {
        (self.0 >> 20) as usize & 511
    }

    /// Symbol of the distance; less than 32 as far as the compiler is concerned.
    #[inline(always)]
    pub(super) fn distance_symbol(self) -> usize {
        (self.0 >> 13) as usize & 31
    }

    /// Extra bits of the distance.
    #[inline(always)]
    pub(super) fn distance_bits(self) -> u64 {
        self.0 & 0x1fff
    }
}
