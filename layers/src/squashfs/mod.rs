//! Squashfs files: written from layers as they stream, read block by block.
//!
//! Writing: [`RootfsWriter::layer`] reads each layer's plain tar once, in any order, and stores file content in
//! the squashfs file at once; [`RootfsWriter::finish`] merges the layers as an overlay does and appends the
//! tables. Reading: [`Squashfs`] finds inodes and blocks on demand. All images share decompressed blocks
//! through one [`BlockCache`].

mod merge;
pub mod read;
mod tree;
pub mod write;

#[cfg(test)]
mod tests;

pub use read::{Attributes, BlockCache, DirEntry, FileType, InodeNo, Squashfs, is_whole};
pub use write::{Data, Finished, LayerToc, LayerTree, Options, RootfsWriter, Summary, Toc};
