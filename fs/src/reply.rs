//! What all FUSE adapters say in the same words: sizes, attributes, errors, extended attributes.

use std::cell::RefCell;

use fuser::{
    Errno as FuseErrno, FileAttr, FileType, Generation, INodeNo, InitFlags, KernelConfig,
    ReplyData, ReplyXattr,
};

use crate::errno::Errno;
use crate::tree::look::{Attributes, Kind};

/// Largest request to read or write, in bytes; each event loop keeps a buffer of this size.
pub(crate) const MAX_REQUEST: u32 = 1 << 20;

/// Inode numbers are never given to something else.
pub(crate) const NO_GENERATION: Generation = Generation(0);

/// Sizes, and what the kernel is asked for as far as it offers it.
pub(crate) fn prepare(config: &mut KernelConfig, flags: &[InitFlags]) {
    // The nearest accepted value is as good.
    let _ = config.set_max_write(MAX_REQUEST);
    let _ = config.set_max_readahead(MAX_REQUEST);
    let _ = config.set_max_background(64);
    for flag in flags {
        if config.add_capabilities(*flag).is_err() {
            tracing::debug!(?flag, "the kernel does not offer this");
        }
    }
}

pub(crate) fn errno(error: Errno) -> FuseErrno {
    FuseErrno::from_i32(error.raw_os_error())
}

pub(crate) fn kind(kind: Kind) -> FileType {
    match kind {
        Kind::Directory => FileType::Directory,
        Kind::Regular => FileType::RegularFile,
        Kind::Symlink => FileType::Symlink,
        Kind::BlockDevice => FileType::BlockDevice,
        Kind::CharDevice => FileType::CharDevice,
        Kind::Fifo => FileType::NamedPipe,
        Kind::Socket => FileType::Socket,
    }
}

pub(crate) fn attr(attributes: &Attributes) -> FileAttr {
    FileAttr {
        ino: INodeNo(attributes.number),
        size: attributes.size,
        blocks: attributes.blocks,
        atime: attributes.modified,
        mtime: attributes.modified,
        ctime: attributes.changed,
        crtime: attributes.modified,
        kind: kind(attributes.kind),
        perm: attributes.mode,
        nlink: attributes.links,
        uid: attributes.owner.0,
        gid: attributes.owner.1,
        rdev: attributes.device,
        blksize: 4096,
        flags: 0,
    }
}

thread_local! {
    /// What is read before it is handed on; clearing a new one each time costs as much as copying it.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Answers a request to read `size` bytes by `read`, which says how many it put into its buffer.
pub(crate) fn data(
    reply: ReplyData,
    size: u32,
    read: impl FnOnce(&mut [u8]) -> Result<usize, Errno>,
) {
    BUFFER.with_borrow_mut(|buffer| {
        let size = size.min(MAX_REQUEST) as usize;
        if buffer.len() < size {
            buffer.resize(size, 0);
        }
        let buffer = buffer.get_mut(..size).unwrap_or_default();
        match read(buffer) {
            Ok(n) => reply.data(buffer.get(..n).unwrap_or_default()),
            Err(error) => reply.error(errno(error)),
        }
    });
}

/// Answers for the value of an extended attribute or the names of all: a size of 0 asks for the length.
pub(crate) fn xattr(reply: ReplyXattr, size: u32, result: Result<Vec<u8>, Errno>) {
    match result {
        Err(error) => reply.error(errno(error)),
        Ok(value) => match u32::try_from(value.len()) {
            Err(_) => reply.error(FuseErrno::E2BIG),
            Ok(length) if size == 0 => reply.size(length),
            Ok(length) if length > size => reply.error(FuseErrno::ERANGE),
            Ok(_) => reply.data(&value),
        },
    }
}
