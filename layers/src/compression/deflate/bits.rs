//! Packs bits into bytes, least significant first (RFC 1951, section 3.1.1).

/// Mask of an index into the bytes of one block. A block takes at most what it takes stored.
const MASK: usize = (1 << 17) - 1;
/// Bytes that hold any one block, and a whole write after the last of them.
pub(super) const ROOM: usize = MASK + 1 + 8;

/// Collects up to 63 bits at a time and writes them by eight bytes, whole ones or not.
///
/// Passed by value into loops and out of them, so that its state stays in registers there.
#[derive(Debug)]
pub(super) struct BitWriter<'a> {
    out: &'a mut [u8; ROOM],
    at: usize,
    pending: u64,
    count: u32,
}

impl<'a> BitWriter<'a> {
    /// A writer at the start of `out`.
    pub(super) fn new(out: &'a mut [u8; ROOM]) -> Self {
        Self {
            out,
            at: 0,
            pending: 0,
            count: 0,
        }
    }

    /// Takes `count` bits. At most 56 fit between two calls of [`BitWriter::flush`].
    #[inline(always)]
    pub(super) fn add(&mut self, bits: u64, count: u32) {
        self.pending |= bits << (self.count & 63);
        self.count += count;
    }

    /// Writes all whole bytes.
    #[inline(always)]
    pub(super) fn flush(&mut self) {
        let at = self.at & MASK;
        self.out[at..at + 8].copy_from_slice(&self.pending.to_le_bytes());
        self.at += (self.count >> 3) as usize;
        self.pending >>= self.count & 56;
        self.count &= 7;
    }

    /// Takes at most 56 bits and writes all whole bytes.
    #[inline(always)]
    pub(super) fn put(&mut self, bits: u64, count: u32) {
        self.add(bits, count);
        self.flush();
    }

    /// Fills the last byte with zeros.
    pub(super) fn align(&mut self) {
        self.count = self.count.next_multiple_of(8);
        self.flush();
    }

    /// Moves the whole bytes to the end of `out`.
    pub(super) fn drain(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.out[..self.at]);
        self.at = 0;
    }
}
