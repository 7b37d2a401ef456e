//! A name handed to the kernel while it reads a folder.

use std::time::Duration;

use pcocc_layers::squashfs::FileType;

use crate::attributes::Attributes;

/// A name in a folder.
#[derive(Debug)]
pub struct DirItem<'a> {
    /// Inode number.
    pub number: u64,
    /// Where the next read goes on.
    pub next: u64,
    /// What it is.
    pub kind: FileType,
    /// The name.
    pub name: &'a [u8],
    /// Attributes and how long they hold, when they were asked for.
    pub attributes: Option<(Attributes, Duration)>,
}

/// Takes names until it returns that it is full.
pub type TakeItem<'a> = dyn FnMut(DirItem<'_>) -> bool + 'a;
