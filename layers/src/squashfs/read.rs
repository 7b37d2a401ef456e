//! Reads a squashfs file for the mounted tree.
//!
//! Opening reads only the superblock and the owners' table. An inode number is the inode's position in the
//! file, so every request needs only a few metadata blocks. Data path: inode → list of block sizes → stored
//! block → inflated block in the shared [`BlockCache`] → caller. Uncompressed blocks go straight to the caller.
//! No length or position in the file is believed unchecked: a hostile file gives errors, never a panic or an
//! unbounded allocation.
//!
//! The layout is that of `Documentation/filesystems/squashfs.rst` in the kernel's tree. Files by
//! [`RootfsWriter`](super::RootfsWriter), by `mksquashfs` (gzip, xz, zstd) and by pcocc 0.7 are read.

mod ahead;
mod cache;
mod content;
mod directory;
mod inode;
mod source;
mod xattr;

use std::fs::File;
use std::sync::Arc;

use backhand::{MAX_BLOCK_SIZE, MIN_BLOCK_SIZE, SuperBlock};
use deku::DekuReader;
use deku::ctx::Endian;
use deku::reader::Reader;

use self::content::LongFiles;
use self::inode::{Body, symlink_length};
use self::source::{Cursor, METADATA_SIZE, Position, Source, broken, read_exact};
use crate::error::{Error, Result};

pub use self::cache::BlockCache;

/// Position of an inode within its squashfs file, the same for all hard links. Fits in 48 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InodeNo(pub u64);

/// Kind of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FileType {
    /// A directory.
    Directory,
    /// A regular file.
    Regular,
    /// A symbolic link.
    Symlink,
    /// A block device node.
    BlockDevice,
    /// A character device node.
    CharDevice,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

/// The attributes that `stat` shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// Kind of file.
    pub file_type: FileType,
    /// The twelve permission bits.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Length in bytes.
    pub size: u64,
    /// Seconds since 1970.
    pub mtime: u32,
    /// Number of names.
    pub nlink: u32,
    /// Device number of a device node as the kernel encodes it (`new_encode_dev`), else 0.
    pub rdev: u32,
    /// Space in units of 512 bytes, holes left out.
    pub blocks: u64,
    /// Number of the inode in the file, from 1.
    pub number: u32,
}

/// A name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// The name, without a slash, not necessarily UTF-8.
    pub name: Box<[u8]>,
    /// Its inode.
    pub inode: InodeNo,
    /// Kind of file.
    pub file_type: FileType,
}

/// An open squashfs file. All methods may be called from many threads.
#[derive(Debug)]
pub struct Squashfs {
    source: Source,
    superblock: SuperBlock,
    ids: Vec<u32>,
    long_files: LongFiles,
}

impl Squashfs {
    /// Opens the squashfs file and checks its superblock and owners' table.
    ///
    /// Inflated blocks are kept in `cache`, which may serve many files.
    pub fn open(file: Arc<File>, cache: Arc<BlockCache>) -> Result<Self> {
        let superblock = superblock(&file)?;
        let length = file
            .metadata()
            .map_err(Error::io("read", "squashfs file"))?
            .len();
        if superblock.bytes_used > length {
            return Err(broken("is truncated"));
        }
        let source = Source::new(file, cache, superblock.compressor, superblock.bytes_used)?;
        let mut squashfs = Self {
            source,
            superblock,
            ids: Vec::new(),
            long_files: LongFiles::new(),
        };
        squashfs.ids = squashfs.read_ids()?;
        if squashfs.inode(squashfs.root())?.file_type != FileType::Directory {
            return Err(broken("has a root that is not a directory"));
        }
        Ok(squashfs)
    }

    /// The root directory.
    pub fn root(&self) -> InodeNo {
        InodeNo(self.superblock.root_inode)
    }

    /// Whether any file has extended attributes.
    pub fn has_xattrs(&self) -> bool {
        self.superblock.xattr_table != u64::MAX
    }

    /// Number of inodes, as the file states it.
    pub fn inode_count(&self) -> u32 {
        self.superblock.inode_count
    }

    /// Length of a data block. Reads of whole blocks, at multiples of this length, are the cheapest.
    pub fn block_size(&self) -> u32 {
        self.superblock.block_size
    }

    /// The attributes of an inode.
    pub fn attributes(&self, inode: InodeNo) -> Result<Attributes> {
        let inode = self.inode(inode)?;
        let stored = match inode.body {
            Body::File { sparse, .. } => inode.size.saturating_sub(sparse),
            _ => 0,
        };
        Ok(Attributes {
            file_type: inode.file_type,
            mode: inode.mode,
            uid: self.id(inode.owner)?,
            gid: self.id(inode.group)?,
            size: inode.size,
            mtime: inode.mtime,
            nlink: inode.nlink,
            rdev: inode.device,
            blocks: stored.div_ceil(512),
            number: inode.number,
        })
    }

    /// The target of a symbolic link.
    pub fn read_link(&self, inode: InodeNo) -> Result<Vec<u8>> {
        let inode = self.inode(inode)?;
        if inode.file_type != FileType::Symlink {
            return Err(Error::invalid("inode", "is not a symbolic link"));
        }
        let length = symlink_length(inode.size)?;
        Cursor::new(&self.source, inode.tail, self.superblock.dir_table)?.bytes(length)
    }

    /// Finds a path from the root, without following symbolic links.
    pub fn find(&self, path: &[u8]) -> Result<Option<InodeNo>> {
        let mut inode = self.root();
        for name in path.split(|&byte| byte == b'/') {
            if !name.is_empty() {
                match self.lookup(inode, name)? {
                    Some(entry) => inode = entry.inode,
                    None => return Ok(None),
                }
            }
        }
        Ok(Some(inode))
    }

    fn id(&self, place: u16) -> Result<u32> {
        self.ids
            .get(usize::from(place))
            .copied()
            .ok_or_else(|| broken("has an inode with an owner that does not exist"))
    }

    fn read_ids(&self) -> Result<Vec<u32>> {
        (0..u64::from(self.superblock.id_count))
            .map(|number| self.table(self.superblock.id_table, number, 4)?.u32())
            .collect()
    }

    /// A cursor at record `number` of a table whose blocks are in a list.
    fn table(&self, list: u64, number: u64, record: u64) -> Result<Cursor<'_>> {
        let byte = number * record;
        let entry = list.checked_add(byte / METADATA_SIZE as u64 * 8);
        let Some(entry) = entry.filter(|entry| *entry < self.source.end) else {
            return Err(broken("has a table that leaves it"));
        };
        let position = Position {
            block: self.source.read_u64(entry)?,
            offset: (byte % METADATA_SIZE as u64) as usize,
        };
        Cursor::new(&self.source, position, self.source.end)
    }
}

/// Whether a file begins as a squashfs file does and is as long as it says.
pub fn is_whole(file: &File) -> bool {
    let length = file.metadata().map(|metadata| metadata.len());
    let end = superblock(file).map(|superblock| superblock.bytes_used);
    matches!((end, length), (Ok(end), Ok(length)) if end <= length)
}

/// Reads and checks the superblock.
fn superblock(file: &File) -> Result<SuperBlock> {
    let mut bytes = [0; SuperBlock::SIZE];
    read_exact(file, 0, &mut bytes)?;
    let mut bytes = std::io::Cursor::new(bytes);
    let context = (*b"hsqs", 4, 0, Endian::Little);
    let superblock = SuperBlock::from_reader_with_ctx(&mut Reader::new(&mut bytes), context)
        .map_err(|_| broken("has no squashfs 4.0 superblock"))?;
    let block_size = superblock.block_size;
    let sound = (MIN_BLOCK_SIZE..=MAX_BLOCK_SIZE).contains(&block_size)
        && block_size.is_power_of_two()
        && block_size.ilog2() == u32::from(superblock.block_log)
        && superblock.inode_table <= superblock.dir_table
        && superblock.dir_table <= superblock.bytes_used
        && superblock.id_table < superblock.bytes_used;
    if sound {
        Ok(superblock)
    } else {
        Err(broken("has a superblock that contradicts itself"))
    }
}
