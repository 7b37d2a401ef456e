//! Layer blobs: compressing and inflating them on several threads.
//!
//! [`GzipWriter`] makes a gzip blob of a plain tar, [`open`] gives the plain tar of any blob, and
//! [`plain_size`] gives the length of the plain tar, without inflating where possible.

mod buffer;
mod compress;
mod format;
mod inflate;
mod member;
mod ordered;
mod size;
#[cfg(test)]
mod tests;

pub use buffer::{Buffer, Buffers, PIECE};
pub use compress::GzipWriter;
pub use format::Compression;
pub use inflate::{Limits, UNNAMED, count_plain, open};
pub use size::{PlainSize, plain_size};

/// As many threads as the machine offers this process, at most 16. One compressing thread manages about 200
/// MB/s.
pub fn default_threads() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get().min(16))
}
