//! Layer blobs: compressing and inflating them on several threads.

pub mod compress;
pub mod inflate;

pub use inflate::{Limits, PlainSize, count_plain, open, plain_size};

/// As many threads as the machine offers this process, at most 16: one compressing thread keeps up
/// with about 200 MB/s.
pub fn default_threads() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get().min(16))
}
