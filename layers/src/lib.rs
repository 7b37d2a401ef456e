//! The bytes of images: digests, plain tars, compressed layers, squashfs files.
//!
//! Bytes come as readers and files and leave as such. What an image is, where it is stored and how it
//! travels is the business of the crates above.
#![cfg_attr(not(test), deny(clippy::expect_used, clippy::unwrap_used))]

pub mod compression;
pub mod digest;
pub mod error;
pub mod squashfs;
pub mod tar;

pub use compression::Compression;
pub use digest::{ChainId, DiffId, Digest};
pub use error::{Error, Result};
