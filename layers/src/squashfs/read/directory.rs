//! Reads directory listings: in order, or by the index towards one name.

use std::cmp::Ordering;
use std::ops::ControlFlow;

use super::inode::{Body, Inode, file_type};
use super::source::{Cursor, METADATA_SIZE, Position, broken};
use super::{DirEntry, FileType, InodeNo, Squashfs};
use crate::error::{Error, Result};

/// Most entries under one header.
const MAX_RUN: u32 = 256;
/// Longest listing read at once: some two million names.
const MAX_LISTING: u64 = 256 << 20;

/// A name in the listing.
struct Listed<'n> {
    name: &'n [u8],
    inode: InodeNo,
    file_type: FileType,
}

impl Listed<'_> {
    fn to_entry(&self) -> DirEntry {
        DirEntry {
            name: self.name.into(),
            inode: self.inode,
            file_type: self.file_type,
        }
    }
}

impl Squashfs {
    /// Finds a name in a directory; `None` when there is no such name.
    pub fn lookup(&self, directory: InodeNo, name: &[u8]) -> Result<Option<DirEntry>> {
        let inode = self.inode(directory)?;
        let skip = self.indexed(&inode, name)?;
        let mut found = None;
        self.scan(&inode, skip, &mut |listed| match listed.name.cmp(name) {
            Ordering::Less => ControlFlow::Continue(()),
            Ordering::Equal => {
                found = Some(listed.to_entry());
                ControlFlow::Break(())
            }
            // Listings are sorted.
            Ordering::Greater => ControlFlow::Break(()),
        })?;
        Ok(found)
    }

    /// Lists a directory in byte order of the names, without `.` and `..`.
    pub fn read_dir(&self, directory: InodeNo) -> Result<Vec<DirEntry>> {
        let inode = self.inode(directory)?;
        if inode.size > MAX_LISTING {
            return Err(broken("has a directory that is too large"));
        }
        let mut entries = Vec::new();
        self.scan(&inode, None, &mut |listed| {
            entries.push(listed.to_entry());
            ControlFlow::Continue(())
        })?;
        Ok(entries)
    }

    /// The position that the index gives for `name`: the listing's bytes before it, and the metadata block.
    fn indexed(&self, inode: &Inode, name: &[u8]) -> Result<Option<(u64, u64)>> {
        let Body::Directory { index_count, .. } = inode.body else {
            return Err(not_a_directory());
        };
        let mut found = None;
        if index_count > 0 {
            let mut cursor = Cursor::new(&self.source, inode.tail, self.superblock.dir_table)?;
            for _ in 0..index_count {
                let bytes = u64::from(cursor.u32()?);
                let block = u64::from(cursor.u32()?);
                let length = cursor.u32()?;
                if length >= 256 {
                    return Err(broken("has a directory index with an impossible name"));
                }
                let first = cursor.bytes(length as usize + 1)?;
                if first.as_slice() > name {
                    break;
                }
                found = Some((bytes, block));
            }
        }
        Ok(found)
    }

    fn scan(
        &self,
        inode: &Inode,
        skip: Option<(u64, u64)>,
        visit: &mut dyn FnMut(Listed<'_>) -> ControlFlow<()>,
    ) -> Result<()> {
        let Body::Directory { block, offset, .. } = inode.body else {
            return Err(not_a_directory());
        };
        // The size counts three bytes for `.` and `..`, which are not stored.
        let size = inode.size.saturating_sub(3);
        let (skipped, block) = skip.unwrap_or((0, u64::from(block)));
        let mut left = size.saturating_sub(skipped);
        if left == 0 {
            return Ok(());
        }
        let position = Position {
            block: self.superblock.dir_table.saturating_add(block),
            offset: (u64::from(offset) + skipped) as usize % METADATA_SIZE,
        };
        let mut cursor = Cursor::new(&self.source, position, self.source.end)?;
        let mut buffer = [0; 256];
        let mut take = |bytes: u64| match left.checked_sub(bytes) {
            Some(rest) => {
                left = rest;
                Ok(rest)
            }
            None => Err(broken("has a directory listing that is cut off")),
        };
        loop {
            take(12)?;
            let count = cursor.u32()?;
            if count >= MAX_RUN {
                return Err(broken("has a directory header with too many entries"));
            }
            let block = u64::from(cursor.u32()?);
            cursor.skip(4)?;
            let mut rest = 0;
            for _ in 0..=count {
                let offset = u64::from(cursor.u16()?);
                cursor.skip(2)?;
                let kind = cursor.u16()?;
                let length = usize::from(cursor.u16()?) + 1;
                let Some(name) = buffer.get_mut(..length) else {
                    return Err(broken("has a directory entry with an impossible name"));
                };
                cursor.read(name)?;
                if name.contains(&b'/') || name.contains(&0) || matches!(&*name, b"." | b"..") {
                    return Err(broken("has a directory entry with an impossible name"));
                }
                rest = take(8 + length as u64)?;
                let listed = Listed {
                    name,
                    inode: InodeNo(block << 16 | offset),
                    file_type: file_type(kind)?,
                };
                if visit(listed).is_break() {
                    return Ok(());
                }
            }
            if rest == 0 {
                return Ok(());
            }
        }
    }
}

fn not_a_directory() -> Error {
    Error::invalid("inode", "is not a directory")
}
