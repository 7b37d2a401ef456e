//! A name that the kernel gets while it reads a folder.

use std::time::Duration;

use pcocc_layers::squashfs::FileType;

use crate::attributes::Attributes;

/// A name in a folder.
#[derive(Debug)]
pub struct DirItem<'a> {
    /// Inode number.
    pub number: u64,
    /// Offset of the next read.
    pub next: u64,
    /// Kind of file.
    pub kind: FileType,
    /// The name.
    pub name: &'a [u8],
    /// Attributes and their validity, if the kernel asked for them.
    pub attributes: Option<(Attributes, Duration)>,
}

/// Takes a name; returns whether there is no more room.
pub type TakeItem<'a> = dyn FnMut(DirItem<'_>) -> bool + 'a;
