//! The mounted tree: images of a docker daemon and of repositories as folders. A copy by `cp -r` is a transfer.
//!
//! Data path: `fuse` decodes a request and calls [`tree::Tree`] once, on a worker if the answer may take long →
//! the tree answers from a store's listing, an image's layout, a root file system or a staged folder → the
//! close or rename that completes a staged folder runs [`pcocc_image::transfer::copy`] into the store and waits
//! for it.
#![cfg_attr(not(test), deny(clippy::expect_used, clippy::unwrap_used))]

mod attributes;
pub mod blob;
mod dir_item;
pub mod errno;
mod fuse;
pub mod guard;
pub mod mount;
mod mount_error;
mod mountpoint;
pub mod naming;
pub mod process;
mod reply;
pub mod root;
pub mod staged;
pub mod status;
pub mod testing;
pub mod tree;
mod workers;

pub use mount::{MountOptions, Mounted, mount};
pub use mount_error::MountError;
pub use mountpoint::{is_dead, mount_points, unmount};
