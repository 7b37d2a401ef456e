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
pub use compress::{GzipWriter, default_threads};
pub use format::Compression;
pub use inflate::{Limits, UNNAMED, count_plain, open};
pub use size::{PlainSize, plain_size};
