//! The bytes of images: digests, plain tars, compressed layers, squashfs files.
//!
//! Bytes come and leave as readers and files. The crates above know images, their stores and their transfer.
#![cfg_attr(not(test), deny(clippy::expect_used, clippy::unwrap_used))]

pub mod compression;
pub mod digest;
pub mod error;
pub mod squashfs;
pub mod tar;
pub mod testing;

pub use compression::Compression;
pub use digest::{ChainId, DiffId, Digest};
pub use error::{Error, Result};
