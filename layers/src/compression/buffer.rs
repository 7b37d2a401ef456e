//! Buffers of one piece, which circulate between threads instead of being allocated for every piece.

use std::io::{self, Read};
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex};

/// Bytes that one thread hands to another at once.
pub const PIECE: usize = 1 << 20;

/// Most buffers kept for reuse; more are freed.
const KEPT: usize = 16;

/// Gives out [`Buffer`]s and takes them back when they are dropped.
#[derive(Clone, Debug, Default)]
pub struct Buffers(Arc<Mutex<Vec<Vec<u8>>>>);

impl Buffers {
    /// An empty buffer with room for a piece.
    pub fn take(&self) -> Buffer {
        let kept = match self.0.lock() {
            Ok(mut free) => free.pop(),
            Err(_) => None,
        };
        Buffer {
            bytes: kept.unwrap_or_else(|| Vec::with_capacity(PIECE)),
            home: self.clone(),
        }
    }
}

/// A piece on its way between two threads.
#[derive(Debug)]
pub struct Buffer {
    bytes: Vec<u8>,
    home: Buffers,
}

impl Buffer {
    /// Reads until the buffer holds `limit` bytes or the stream ends.
    pub fn fill(&mut self, stream: &mut dyn Read, limit: usize) -> io::Result<()> {
        let missing = limit.saturating_sub(self.bytes.len());
        stream
            .take(missing as u64)
            .read_to_end(&mut self.bytes)
            .map(drop)
    }
}

impl Deref for Buffer {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        &self.bytes
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.clear();
        if let Ok(mut free) = self.home.0.lock()
            && free.len() < KEPT
            && bytes.capacity() <= 2 * PIECE
        {
            free.push(bytes);
        }
    }
}
