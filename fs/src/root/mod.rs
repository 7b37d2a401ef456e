//! One image's root file system served on a FUSE device of its own, as `pcocc run` needs it.
//!
//! Data path: [`RootTree`] is the image's squashfs plus the files of the container (mount points that the image
//! lacks, files in place of the image's) → [`serve`] answers the kernel from it. Neither a store nor a lock nor
//! a table of open files is in between: an inode number is the inode's position in the squashfs. Nothing ever
//! changes, so the kernel may remember everything, and opens files without asking.

mod server;
#[cfg(test)]
mod tests;
mod tree;

pub use pcocc_layers::squashfs::FileType;
pub use server::{Served, serve};
pub use tree::{Found, RootTree, TreeError};
