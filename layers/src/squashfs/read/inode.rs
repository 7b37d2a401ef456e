//! Decodes inodes.

use super::source::{Cursor, Position, broken};
use super::{FileType, InodeNo, Squashfs};
use crate::error::Result;

/// Means "none" where a 32-bit number refers to something.
const NONE: u32 = u32::MAX;

/// An inode's records of fixed length.
#[derive(Debug)]
pub(super) struct Inode {
    pub(super) file_type: FileType,
    pub(super) mode: u16,
    pub(super) owner: u16,
    pub(super) group: u16,
    pub(super) mtime: u32,
    pub(super) number: u32,
    pub(super) nlink: u32,
    pub(super) size: u64,
    pub(super) device: u32,
    pub(super) xattrs: Option<u32>,
    pub(super) body: Body,
    /// Where the records of variable length start.
    pub(super) tail: Position,
}

/// The fields that depend on the kind of file.
#[derive(Clone, Copy, Debug)]
pub(super) enum Body {
    Directory {
        /// Block of the listing, relative to the directory table.
        block: u32,
        offset: u16,
        index_count: u16,
    },
    File {
        start: u64,
        fragment: Option<(u32, u32)>,
        sparse: u64,
    },
    Other,
}

impl Squashfs {
    /// Decodes the inode at `inode`.
    pub(super) fn inode(&self, inode: InodeNo) -> Result<Inode> {
        let position = Position {
            block: self.superblock.inode_table.saturating_add(inode.0 >> 16),
            offset: (inode.0 & 0xffff) as usize,
        };
        let mut cursor = Cursor::new(&self.source, position, self.superblock.dir_table)?;
        let kind = cursor.u16()?;
        let mut inode = Inode {
            file_type: file_type(if kind > 7 { kind - 7 } else { kind })?,
            mode: cursor.u16()? & 0o7777,
            owner: cursor.u16()?,
            group: cursor.u16()?,
            mtime: cursor.u32()?,
            number: cursor.u32()?,
            nlink: 1,
            size: 0,
            device: 0,
            xattrs: None,
            body: Body::Other,
            tail: position,
        };
        let extended = kind > 7;
        match inode.file_type {
            FileType::Directory => directory(&mut inode, &mut cursor, extended)?,
            FileType::Regular => file(&mut inode, &mut cursor, extended)?,
            FileType::Symlink => {
                inode.nlink = cursor.u32()?;
                inode.size = u64::from(cursor.u32()?);
                inode.tail = cursor.position();
                if extended {
                    // No target is longer than a page.
                    cursor.skip(symlink_length(inode.size)?)?;
                    inode.xattrs = optional(cursor.u32()?);
                }
            }
            FileType::BlockDevice | FileType::CharDevice => {
                inode.nlink = cursor.u32()?;
                inode.device = cursor.u32()?;
                if extended {
                    inode.xattrs = optional(cursor.u32()?);
                }
            }
            FileType::Fifo | FileType::Socket => {
                inode.nlink = cursor.u32()?;
                if extended {
                    inode.xattrs = optional(cursor.u32()?);
                }
            }
        }
        if inode.file_type != FileType::Symlink {
            inode.tail = cursor.position();
        }
        Ok(inode)
    }
}

fn directory(inode: &mut Inode, cursor: &mut Cursor<'_>, extended: bool) -> Result<()> {
    let (block, offset, index_count);
    if extended {
        inode.nlink = cursor.u32()?;
        inode.size = u64::from(cursor.u32()?);
        block = cursor.u32()?;
        cursor.skip(4)?;
        index_count = cursor.u16()?;
        offset = cursor.u16()?;
        inode.xattrs = optional(cursor.u32()?);
    } else {
        block = cursor.u32()?;
        inode.nlink = cursor.u32()?;
        inode.size = u64::from(cursor.u16()?);
        offset = cursor.u16()?;
        index_count = 0;
        cursor.skip(4)?;
    }
    inode.body = Body::Directory {
        block,
        offset,
        index_count,
    };
    Ok(())
}

fn file(inode: &mut Inode, cursor: &mut Cursor<'_>, extended: bool) -> Result<()> {
    let (start, sparse, fragment, offset);
    if extended {
        start = cursor.u64()?;
        inode.size = cursor.u64()?;
        sparse = cursor.u64()?;
        inode.nlink = cursor.u32()?;
        fragment = cursor.u32()?;
        offset = cursor.u32()?;
        inode.xattrs = optional(cursor.u32()?);
    } else {
        start = u64::from(cursor.u32()?);
        sparse = 0;
        fragment = cursor.u32()?;
        offset = cursor.u32()?;
        inode.size = u64::from(cursor.u32()?);
    }
    if inode.size > i64::MAX as u64 {
        return Err(broken("has a file of impossible size"));
    }
    inode.body = Body::File {
        start,
        fragment: optional(fragment).map(|fragment| (fragment, offset)),
        sparse,
    };
    Ok(())
}

fn optional(number: u32) -> Option<u32> {
    Some(number).filter(|number| *number != NONE)
}

/// Checks the length of a symbolic link's target.
pub(super) fn symlink_length(size: u64) -> Result<usize> {
    match usize::try_from(size) {
        Ok(length) if length <= 65536 => Ok(length),
        _ => Err(broken("has a symbolic link of impossible length")),
    }
}

/// The kind of file of a basic inode type.
pub(super) fn file_type(kind: u16) -> Result<FileType> {
    Ok(match kind {
        1 => FileType::Directory,
        2 => FileType::Regular,
        3 => FileType::Symlink,
        4 => FileType::BlockDevice,
        5 => FileType::CharDevice,
        6 => FileType::Fifo,
        7 => FileType::Socket,
        _ => return Err(broken(format!("has an inode of the unknown type {kind}"))),
    })
}
