//! Reads extended attributes.

use super::source::{Cursor, Position, broken};
use super::{InodeNo, Squashfs};
use crate::error::Result;

/// Marks an attribute whose value is stored elsewhere.
const ELSEWHERE: u16 = 1 << 8;
/// Longest value, as in the kernel.
const MAX_VALUE: u32 = 64 << 10;
/// Most bytes of names and values of one file.
const MAX_ALL: usize = 16 << 20;

impl Squashfs {
    /// The extended attributes, full names and values.
    pub fn xattrs(&self, inode: InodeNo) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let mut list = Vec::new();
        let header = self.superblock.xattr_table;
        let Some(number) = self.inode(inode)?.xattrs.filter(|_| header != u64::MAX) else {
            return Ok(list);
        };
        let mut head = [0; 12];
        self.source.read(header, &mut head)?;
        let [a, b, c, d, e, f, g, h, count @ ..] = head;
        let pairs = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
        if number >= u32::from_le_bytes(count) {
            return Err(broken("has a file with attributes that do not exist"));
        }
        let list_start = header.saturating_add(16);
        let mut set = self.table(list_start, u64::from(number), 16)?;
        let reference = set.u64()?;
        let count = set.u32()?;
        let mut cursor = self.pairs(pairs, reference)?;
        let mut bytes = 0;
        for _ in 0..count {
            let kind = cursor.u16()?;
            let length = usize::from(cursor.u16()?);
            let prefix: &[u8] = match kind & 0xff {
                0 => b"user.",
                1 => b"trusted.",
                2 => b"security.",
                _ => return Err(broken("has an extended attribute of an unknown kind")),
            };
            let mut name = prefix.to_vec();
            name.extend(cursor.bytes(length)?);
            let stored = cursor.u32()?;
            let value = if kind & ELSEWHERE != 0 {
                if stored != 8 {
                    return Err(broken("has an extended attribute with a broken reference"));
                }
                let mut elsewhere = self.pairs(pairs, cursor.u64()?)?;
                let length = elsewhere.u32()?;
                value(&mut elsewhere, length)?
            } else {
                value(&mut cursor, stored)?
            };
            bytes += name.len() + value.len() + 64;
            if bytes > MAX_ALL {
                return Err(broken("has a file with too many extended attributes"));
            }
            list.push((name, value));
        }
        Ok(list)
    }

    fn pairs(&self, table: u64, reference: u64) -> Result<Cursor<'_>> {
        let position = Position {
            block: table.saturating_add(reference >> 16),
            offset: (reference & 0xffff) as usize,
        };
        Cursor::new(&self.source, position, self.source.end)
    }
}

fn value(cursor: &mut Cursor<'_>, length: u32) -> Result<Vec<u8>> {
    if length > MAX_VALUE {
        return Err(broken("has an extended attribute that is too long"));
    }
    cursor.bytes(length as usize)
}
