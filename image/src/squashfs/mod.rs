//! Squashfs files: written from layers as they stream, read block by block.
