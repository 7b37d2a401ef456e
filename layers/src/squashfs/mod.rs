//! Squashfs files: written from layers as they stream, read block by block.
//!
//! Writing: [`RootfsWriter::layer`] takes each layer's plain tar once, in any order, and stores file
//! content in the squashfs file at once; [`RootfsWriter::finish`] merges the layers as an overlay does
//! and appends the tables. Reading: [`Squashfs`] looks inodes and blocks up on demand and shares
//! decompressed blocks between images through one [`BlockCache`].

mod merge;
pub mod read;
mod tree;
pub mod write;

#[cfg(test)]
mod tests;

pub use read::{Attributes, BlockCache, DirEntry, FileType, InodeNo, Squashfs};
pub use write::{Data, LayerTree, Options, RootfsWriter, Summary};
