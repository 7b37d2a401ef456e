//! Writes the tables behind the content, and the superblock.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, Cursor, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;

use backhand::compression::Compressor;
use backhand::{DataSize, Export, Flags, Fragment, Id, SuperBlock};
use deku::DekuWriter;
use deku::ctx::Endian;
use deku::writer::Writer;

use super::BLOCK_SIZE;
use super::inodes::{Failure, InodeTables};
use super::metadata::MetadataWriter;
use super::pipeline::{UNCOMPRESSED, Written};
use crate::error::{Error, Result};
use crate::squashfs::tree::{Meta, NodeId, Tree};
use pcocc_core::cancel::Cancel;

/// Position of a table that does not exist.
const NO_TABLE: u64 = u64::MAX;
/// The file's length is a multiple of this, for loop devices.
const PADDING: u64 = 4096;

/// Extended attributes of one file, sorted: full names and values.
pub(super) type XattrSet = Vec<(Vec<u8>, Vec<u8>)>;

/// Longest value of an extended attribute, as in the kernel.
const MAX_XATTR: usize = 64 << 10;

/// Whether squashfs has room for an extended attribute of this name at all. Access lists and the overlay's own marks
/// have no place in it.
pub(super) fn has_place(name: &[u8]) -> bool {
    let known = [&b"user."[..], b"trusted.", b"security."]
        .iter()
        .any(|prefix| name.len() > prefix.len() && name.starts_with(prefix));
    known && !name.starts_with(b"trusted.overlay.")
}

/// Whether a squashfs file may have the extended attribute.
pub(super) fn is_kept(name: &[u8], value: &[u8]) -> bool {
    has_place(name) && name.len() <= 255 && !name.contains(&0) && value.len() <= MAX_XATTR
}

/// The distinct sets of extended attributes.
#[derive(Debug, Default)]
pub(super) struct XattrSets {
    list: Vec<Arc<XattrSet>>,
    places: HashMap<Arc<XattrSet>, u32>,
}

impl XattrSets {
    /// Most attributes of one file.
    pub(super) const MAX: usize = 1000;

    /// The set with this number.
    pub(super) fn get(&self, number: u32) -> Option<&XattrSet> {
        self.list.get(number as usize).map(|set| &**set)
    }

    /// The number of a set; [`Meta::NO_XATTRS`] for the empty set.
    pub(super) fn intern(&mut self, set: XattrSet) -> u32 {
        if set.is_empty() {
            return Meta::NO_XATTRS;
        }
        if let Some(&number) = self.places.get(&set) {
            return number;
        }
        let set = Arc::new(set);
        let number = self.list.len() as u32;
        self.list.push(Arc::clone(&set));
        self.places.insert(set, number);
        number
    }
}

/// Completes the file; returns its length and the number of inodes.
pub(super) fn write(
    file: File,
    path: &Path,
    tree: &Tree,
    root: NodeId,
    written: &Written,
    xattrs: &XattrSets,
    cancel: &Cancel,
) -> Result<(u64, u32)> {
    write_all(file, tree, root, written, xattrs, cancel).map_err(|failure| match failure {
        Failure::Write(error) => Error::io("write", path)(error),
        Failure::Typed(error) => error,
    })
}

fn write_all(
    mut file: File,
    tree: &Tree,
    root: NodeId,
    written: &Written,
    xattrs: &XattrSets,
    cancel: &Cancel,
) -> Result<(u64, u32), Failure> {
    file.seek(SeekFrom::Start(written.end))?;
    let mut output = BufWriter::with_capacity(256 << 10, file);
    let mut tables = InodeTables::new(tree, written, &mut output)?;
    let root_inode = tables.write(root, cancel)?;
    let references = tables.references;
    let ids = tables.ids;
    let used = tables.xattrs.list;
    let (_, inode_bytes, _) = tables.inodes.finish()?;
    let (directories, directory_bytes, _) = tables.directories.finish()?;
    output.write_all(&directories)?;

    let inode_table = written.end;
    let dir_table = inode_table + inode_bytes;
    let mut tail = Tail {
        position: dir_table + directory_bytes,
        output: &mut output,
    };
    let frag_table = if written.fragments.is_empty() {
        NO_TABLE
    } else {
        tail.lookup_table(written.fragments.iter().map(|&(start, size)| {
            let stored = size & UNCOMPRESSED != 0;
            encoded(Fragment::new(
                start,
                DataSize::new(size & !UNCOMPRESSED, stored),
                0,
            ))
        }))?
    };
    let export_table = tail.lookup_table(references.iter().map(|&num| encoded(Export { num })))?;
    let id_table = tail.lookup_table(ids.list.iter().map(|&id| encoded(Id::new(id))))?;
    let xattr_table = tail.xattr_table(xattrs, &used)?;
    let bytes_used = tail.position;

    let padded = bytes_used.next_multiple_of(PADDING);
    output.write_all(&vec![0; (padded - bytes_used) as usize])?;
    let mut file = output
        .into_inner()
        .map_err(io::IntoInnerError::into_error)?;
    let no_xattrs = xattr_table == NO_TABLE;
    let superblock = SuperBlock {
        magic: *b"hsqs",
        inode_count: references.len() as u32,
        // A fixed time keeps equal images equal; the image's own times are in its files.
        mod_time: 0,
        block_size: BLOCK_SIZE as u32,
        frag_count: written.fragments.len() as u32,
        compressor: Compressor::Zstd,
        block_log: BLOCK_SIZE.ilog2() as u16,
        flags: Flags::NFSExportTableExists as u16
            | if no_xattrs {
                Flags::NoXattrsInArchive as u16
            } else {
                0
            },
        id_count: ids.list.len() as u16,
        version_major: 4,
        version_minor: 0,
        root_inode,
        bytes_used,
        id_table,
        xattr_table,
        inode_table,
        dir_table,
        frag_table,
        export_table,
    };
    let mut bytes = Cursor::new(Vec::new());
    superblock
        .to_writer(
            &mut Writer::new(&mut bytes),
            (*b"hsqs", 4, 0, Endian::Little),
        )
        .map_err(io::Error::other)?;
    file.seek(SeekFrom::Start(0))?;
    file.write_all(bytes.get_ref())?;
    Ok((padded, references.len() as u32))
}

/// Encodes one of backhand's records.
fn encoded<T: DekuWriter<Endian>>(record: T) -> io::Result<Vec<u8>> {
    let mut bytes = Cursor::new(Vec::new());
    record
        .to_writer(&mut Writer::new(&mut bytes), Endian::Little)
        .map_err(io::Error::other)?;
    Ok(bytes.into_inner())
}

/// The tables after the directories.
struct Tail<'o, W> {
    output: &'o mut W,
    position: u64,
}

impl<W: Write> Tail<'_, W> {
    /// Writes records as metadata blocks, then a list of the blocks' positions; returns the position of the
    /// list.
    fn lookup_table(
        &mut self,
        records: impl Iterator<Item = io::Result<Vec<u8>>>,
    ) -> io::Result<u64> {
        let mut table = MetadataWriter::new(&mut *self.output)?;
        for record in records {
            table.write(&record?)?;
        }
        let (_, length, starts) = table.finish()?;
        let first = self.position;
        self.position += length;
        let list = self.position;
        self.list(first, &starts)?;
        Ok(list)
    }

    fn list(&mut self, first: u64, starts: &[u64]) -> io::Result<()> {
        for start in starts {
            self.output.write_all(&(first + start).to_le_bytes())?;
            self.position += 8;
        }
        Ok(())
    }

    /// Writes names and values, then the sets, then a header with the list of the sets' blocks.
    fn xattr_table(&mut self, sets: &XattrSets, used: &[u32]) -> io::Result<u64> {
        let sets: Vec<&XattrSet> = used.iter().filter_map(|&set| sets.get(set)).collect();
        if sets.is_empty() {
            return Ok(NO_TABLE);
        }
        let mut pairs = MetadataWriter::new(&mut *self.output)?;
        let mut records = Vec::with_capacity(sets.len());
        for set in &sets {
            let place = pairs.place();
            let mut size = 0;
            for (name, value) in set.iter() {
                let (kind, rest) = prefix(name);
                pairs.write(&kind.to_le_bytes())?;
                pairs.write(&(rest.len() as u16).to_le_bytes())?;
                pairs.write(rest)?;
                pairs.write(&(value.len() as u32).to_le_bytes())?;
                pairs.write(value)?;
                size += name.len() as u32 + 1;
            }
            records.push((place.reference(), set.len() as u32, size));
        }
        let (_, length, _) = pairs.finish()?;
        let first = self.position;
        self.position += length;

        let mut table = MetadataWriter::new(&mut *self.output)?;
        for (reference, count, size) in records {
            table.write(&reference.to_le_bytes())?;
            table.write(&count.to_le_bytes())?;
            table.write(&size.to_le_bytes())?;
        }
        let (_, length, starts) = table.finish()?;
        let set_table = self.position;
        self.position += length;

        let header = self.position;
        self.output.write_all(&first.to_le_bytes())?;
        self.output.write_all(&(sets.len() as u32).to_le_bytes())?;
        self.output.write_all(&0u32.to_le_bytes())?;
        self.position += 16;
        self.list(set_table, &starts)?;
        Ok(header)
    }
}

/// Squashfs's number for a name's prefix, and the rest of the name.
fn prefix(name: &[u8]) -> (u16, &[u8]) {
    for (kind, prefix) in [(0, &b"user."[..]), (1, b"trusted."), (2, b"security.")] {
        if let Some(rest) = name.strip_prefix(prefix) {
            return (kind, rest);
        }
    }
    (0, name)
}
