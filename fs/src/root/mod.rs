//! One image's root file system served on a FUSE device of its own, as `pcocc run` needs it.
//!
//! Data path: [`RootTree`] is the image's squashfs and what a container needs besides (mount points that
//! the image lacks, files in the place of the image's) → [`serve`] answers the kernel from it, without a
//! store, a lock or a table of open files between: an inode number is the inode's place in the squashfs.
//! Nothing ever changes, so the kernel is told to remember everything and to open files without asking.

mod server;
#[cfg(test)]
mod tests;
mod tree;

pub use pcocc_layers::squashfs::FileType;
pub use server::{Served, serve};
pub use tree::{Found, RootTree, TreeError};
