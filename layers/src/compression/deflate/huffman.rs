//! Makes prefix codes of bounded length (RFC 1951, section 3.2.2).
//!
//! Sort symbols by frequency → lengths of an optimal code in place (Moffat and Katajainen, "In-Place
//! Calculation of Minimum-Redundancy Codes", 1995) → move what is too long up → assign the codes in order.

/// Most symbols of an alphabet.
pub(super) const MOST: usize = 288;
/// Longest code deflate allows.
const LONGEST: usize = 15;

/// The code of an alphabet of up to [`MOST`] symbols. Symbols without a code have the length 0.
#[derive(Debug)]
pub(super) struct Code {
    /// Bits of each symbol's code.
    pub(super) lengths: [u8; MOST],
    /// Each symbol's code, the first bit to be written lowest.
    pub(super) codes: [u16; MOST],
}

impl Code {
    /// The best code with at most `limit` bits for symbols that occur so often; nearly the best where the
    /// limit cuts in. Frequencies add up to less than 2^23.
    ///
    /// A code is never incomplete, which some decoders refuse: it has at least two symbols, wanted or not.
    pub(super) fn new(frequencies: &[u32], limit: usize) -> Self {
        let mut code = Self {
            lengths: [0; MOST],
            codes: [0; MOST],
        };
        let (mut keys, mut used) = ([0; MOST], 0);
        for (symbol, &frequency) in frequencies.iter().enumerate() {
            if frequency > 0 {
                keys[used] = frequency << 9 | symbol as u32;
                used += 1;
            }
        }
        for (symbol, &frequency) in frequencies.iter().enumerate() {
            if used < 2 && frequency == 0 {
                keys[used] = 1 << 9 | symbol as u32;
                used += 1;
            }
        }
        let keys = &mut keys[..used];
        keys.sort_unstable();
        let counts = limited(depths(keys), limit);
        let mut symbols = keys.iter().map(|key| (key & 511) as usize);
        for length in (1..=limit).rev() {
            for symbol in symbols.by_ref().take(counts[length] as usize) {
                code.lengths[symbol] = length as u8;
            }
        }
        code.assign(&counts);
        code
    }

    /// Codes of the same length follow each other, longer ones follow shorter ones.
    fn assign(&mut self, counts: &[u32; MOST]) {
        let mut next = [0u16; LONGEST + 1];
        for length in 1..LONGEST {
            next[length + 1] = (next[length] + counts[length] as u16) << 1;
        }
        for (code, &length) in self.codes.iter_mut().zip(&self.lengths) {
            if length > 0 {
                let next = &mut next[length as usize];
                *code = next.reverse_bits() >> (16 - length);
                *next += 1;
            }
        }
    }
}

/// How many symbols have a code of each length in an optimal code, for two or more keys that ascend by
/// frequency.
fn depths(keys: &[u32]) -> [u32; MOST] {
    let symbols = keys.len();
    let mut weights = [0; MOST];
    for (weight, key) in weights.iter_mut().zip(keys) {
        *weight = key >> 9;
    }
    // Joins the two lightest of leaves and inner nodes; an inner node that has been joined is overwritten
    // by the index of its parent.
    weights[0] += weights[1];
    let (mut inner, mut leaf) = (0, 2);
    for node in 1..symbols - 1 {
        let mut lightest = |weights: &mut [u32; MOST]| {
            if leaf >= symbols || (inner < node && weights[inner] < weights[leaf]) {
                inner += 1;
                std::mem::replace(&mut weights[inner - 1], node as u32)
            } else {
                leaf += 1;
                weights[leaf - 1]
            }
        };
        let first = lightest(&mut weights);
        let second = lightest(&mut weights);
        weights[node] = first + second;
    }
    // The depth of each inner node, from the root down.
    let mut inner_nodes = [0u32; MOST];
    weights[symbols - 2] = 0;
    inner_nodes[0] = 1;
    for node in (0..symbols - 2).rev() {
        weights[node] = weights[weights[node] as usize] + 1;
        inner_nodes[weights[node] as usize] += 1;
    }
    // What is no inner node is a leaf.
    let mut leaves = [0; MOST];
    let mut nodes = 1;
    for (depth, leaves) in leaves.iter_mut().enumerate() {
        *leaves = nodes - inner_nodes[depth];
        nodes = 2 * inner_nodes[depth];
    }
    leaves
}

/// Brings codes that are longer than `limit` down to it, and makes room for them by making shorter ones
/// longer, the longest of those first.
fn limited(mut counts: [u32; MOST], limit: usize) -> [u32; MOST] {
    for length in limit + 1..MOST {
        counts[limit] += std::mem::take(&mut counts[length]);
    }
    let taken = |length: usize| counts[length] << (limit - length);
    let mut taken: u32 = (1..=limit).map(taken).sum();
    while taken > 1 << limit {
        // One code becomes the prefix of two: itself and one of the longest.
        counts[limit] -= 1;
        for length in (1..limit).rev() {
            if counts[length] > 0 {
                counts[length] -= 1;
                counts[length + 1] += 2;
                break;
            }
        }
        taken -= 1;
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sum over all symbols of 2^-length, in units of 2^-15: 2^15 when the code is complete.
    fn kraft(code: &Code) -> u32 {
        let used = code.lengths.iter().filter(|&&length| length > 0);
        used.map(|&length| 1 << (LONGEST - length as usize)).sum()
    }

    #[test]
    fn fibonacci_frequencies_stay_within_the_limit() {
        for limit in [5, 7, 12, 15] {
            let mut frequencies = vec![1, 1];
            for at in 2..30 {
                frequencies.push(frequencies[at - 1] + frequencies[at - 2]);
            }
            let code = Code::new(&frequencies, limit);
            assert!(code.lengths.iter().all(|&length| length as usize <= limit));
            assert_eq!(
                code.lengths.iter().filter(|&&length| length > 0).count(),
                30
            );
            assert!(code.lengths[..30].is_sorted_by(|rare, common| rare >= common));
            assert_eq!(kraft(&code), 1 << LONGEST, "{limit}");
        }
    }

    #[test]
    fn a_code_has_two_symbols_at_least() {
        for frequencies in [vec![0; 30], vec![7, 0, 0], vec![0, 0, 7]] {
            let code = Code::new(&frequencies, 12);
            assert_eq!(kraft(&code), 1 << LONGEST);
            let used =
                |(symbol, frequency): (usize, &u32)| *frequency == 0 || code.lengths[symbol] == 1;
            assert!(frequencies.iter().enumerate().all(used));
        }
    }

    #[test]
    fn the_example_of_rfc_1951_comes_out() {
        // Section 3.2.2: lengths 3, 3, 3, 3, 3, 2, 4, 4 for A to H.
        let code = Code::new(&[10, 10, 10, 10, 10, 20, 5, 5], 12);
        assert_eq!(code.lengths[..8], [3, 3, 3, 3, 3, 2, 4, 4]);
        let codes = code.codes[..8].iter().zip(code.lengths);
        let written = codes.map(|(code, length)| code.reverse_bits() >> (16 - length));
        assert_eq!(written.collect::<Vec<_>>(), [2, 3, 4, 5, 6, 0, 14, 15]);
    }

    proptest::proptest! {
        #[test]
        fn codes_are_complete_and_short(frequencies in proptest::collection::vec(0..20_000u32, 2..MOST)) {
            let code = Code::new(&frequencies, 12);
            proptest::prop_assert_eq!(kraft(&code), 1 << LONGEST);
            for (frequency, length) in frequencies.iter().zip(code.lengths) {
                proptest::prop_assert!(*frequency == 0 || (1..=12).contains(&length));
            }
        }
    }
}
