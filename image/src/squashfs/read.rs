//! Reads a squashfs file for the mounted tree.

use std::fs::File;
use std::sync::Arc;

use crate::error::{Error, Result};

/// Decompressed blocks of all open squashfs files, bounded in bytes.
#[derive(Debug)]
pub struct BlockCache {
    limit: usize,
}

impl BlockCache {
    /// Makes a cache that keeps at most `limit` bytes.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit })
    }

    /// The limit in bytes.
    pub fn limit(&self) -> usize {
        self.limit
    }
}

/// Place of an inode within its squashfs file. Hard links have the same one. Fits in 48 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InodeNo(pub u64);

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// What `stat` tells about an inode.
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
    file: Arc<File>,
}

impl Squashfs {
    /// Opens the squashfs file and checks its superblock and lookup tables.
    pub fn open(file: Arc<File>, cache: Arc<BlockCache>) -> Result<Self> {
        let _ = cache;
        Ok(Self { file })
    }

    fn unread<T>(&self) -> Result<T> {
        Err(Error::invalid(
            format!("{:?}", self.file),
            "cannot be read yet",
        ))
    }

    /// The root directory.
    pub fn root(&self) -> InodeNo {
        InodeNo(0)
    }

    /// The attributes of an inode.
    pub fn attributes(&self, _inode: InodeNo) -> Result<Attributes> {
        self.unread()
    }

    /// Finds a name in a directory; `None` when there is no such name.
    pub fn lookup(&self, _directory: InodeNo, _name: &[u8]) -> Result<Option<DirEntry>> {
        self.unread()
    }

    /// Lists a directory in byte order of the names, without `.` and `..`.
    pub fn read_dir(&self, _directory: InodeNo) -> Result<Vec<DirEntry>> {
        self.unread()
    }

    /// The target of a symbolic link.
    pub fn read_link(&self, _inode: InodeNo) -> Result<Vec<u8>> {
        self.unread()
    }

    /// Reads file content at `offset`; returns how much was read, less than asked only at the end.
    pub fn read_at(&self, _inode: InodeNo, _offset: u64, _buffer: &mut [u8]) -> Result<usize> {
        self.unread()
    }

    /// The extended attributes, full name and value.
    pub fn xattrs(&self, _inode: InodeNo) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        self.unread()
    }
}
