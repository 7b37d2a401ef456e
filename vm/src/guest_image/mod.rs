//! The guest image: how it is built from Debian packages, kept, and unpacked on a node.
//!
//! Data path of a build: [`packages`] lets apt fetch a fixed list of packages into a folder of its own (no root,
//! nothing installed) → [`contents`] picks single files out of them, all owned by root → [`modules`] finds the
//! kernel modules that docker needs and their order → squashfs, initramfs and an empty data disk → one tar
//! archive, [`archive`], which the repository keeps as a disk of kind `vm`: so `image list`, `copy`, `export`
//! and `import` know it.
//!
//! Data path of its use: the disk's bytes → [`GuestImage::unpack`] → a folder of the node with one file for each part.

mod archive;
mod build;
mod contents;
mod cpio;
mod modules;
mod packages;

pub use archive::{GuestDisk, GuestImage, IMAGE_NAME, Manifest, manifest};
pub use build::{BuildOptions, build};
