//! Replies that all FUSE adapters share: sizes, attributes, errors, extended attributes.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, SystemTime};

use fuser::{
    Errno as FuseErrno, FileAttr, FileType as FuseType, Generation, INodeNo, InitFlags,
    KernelConfig, ReplyAttr, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry,
    ReplyXattr,
};
use pcocc_layers::squashfs::FileType;

use crate::attributes::Attributes;
use crate::dir_item::TakeItem;
use crate::errno::{Errno, Result};

/// Largest request to read or write, in bytes; each event loop keeps a buffer of this size.
pub(crate) const MAX_REQUEST: u32 = 1 << 20;

/// Inode numbers are never reused.
pub(crate) const NO_GENERATION: Generation = Generation(0);

/// Sets sizes, and requests the features `flags` as far as the kernel has them.
pub(crate) fn prepare(config: &mut KernelConfig, flags: &[InitFlags]) {
    // The nearest accepted value is good enough.
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

pub(crate) fn file_type(kind: FileType) -> FuseType {
    match kind {
        FileType::Directory => FuseType::Directory,
        FileType::Regular => FuseType::RegularFile,
        FileType::Symlink => FuseType::Symlink,
        FileType::BlockDevice => FuseType::BlockDevice,
        FileType::CharDevice => FuseType::CharDevice,
        FileType::Fifo => FuseType::NamedPipe,
        FileType::Socket => FuseType::Socket,
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
        kind: file_type(attributes.kind),
        perm: attributes.mode,
        nlink: attributes.links,
        uid: attributes.owner.0,
        gid: attributes.owner.1,
        rdev: attributes.device,
        blksize: 4096,
        flags: 0,
    }
}

/// Answers with the entry of a name.
pub(crate) fn entry(reply: ReplyEntry, result: Result<(Attributes, Duration)>) {
    match result {
        Ok((found, validity)) => reply.entry(&validity, &attr(&found), NO_GENERATION),
        Err(error) => reply.error(errno(error)),
    }
}

/// Replies that the name is missing, with the validity of this answer.
pub(crate) fn missing(reply: ReplyEntry, validity: Duration) {
    if validity.is_zero() {
        reply.error(FuseErrno::ENOENT);
    } else {
        // For FUSE, inode number zero is a cached missing name.
        let nothing = Attributes::file((0, 0), 0, 0, SystemTime::UNIX_EPOCH);
        reply.entry(&validity, &attr(&nothing), NO_GENERATION);
    }
}

/// Answers with attributes.
pub(crate) fn attributes(reply: ReplyAttr, result: Result<(Attributes, Duration)>) {
    match result {
        Ok((found, validity)) => reply.attr(&validity, &attr(&found)),
        Err(error) => reply.error(errno(error)),
    }
}

/// Answers with success or an error.
pub(crate) fn empty(reply: ReplyEmpty, result: Result<()>) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(errno(error)),
    }
}

/// Answers with a link's target.
pub(crate) fn link(reply: ReplyData, target: Result<Vec<u8>>) {
    match target {
        Ok(target) => reply.data(&target),
        Err(error) => reply.error(errno(error)),
    }
}

/// Replies with the names that `read` passes on.
pub(crate) fn names(mut reply: ReplyDirectory, read: impl FnOnce(&mut TakeItem<'_>) -> Result<()>) {
    let result = read(&mut |item| {
        let (number, kind) = (INodeNo(item.number), file_type(item.kind));
        reply.add(number, item.next, kind, OsStr::from_bytes(item.name))
    });
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(errno(error)),
    }
}

/// Replies with the names and attributes that `read` passes on.
pub(crate) fn names_plus(
    mut reply: ReplyDirectoryPlus,
    read: impl FnOnce(&mut TakeItem<'_>) -> Result<()>,
) {
    let result = read(&mut |item| {
        let Some((found, validity)) = item.attributes else {
            return true;
        };
        let (number, name) = (INodeNo(item.number), OsStr::from_bytes(item.name));
        let attr = attr(&found);
        reply.add(number, item.next, name, &validity, &attr, NO_GENERATION)
    });
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(errno(error)),
    }
}

thread_local! {
    /// The buffer of replies: clearing a new buffer each time would cost as much as copying its content.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Replies to a read of `size` bytes; `read` fills a buffer and returns the number of bytes.
pub(crate) fn data(reply: ReplyData, size: u32, read: impl FnOnce(&mut [u8]) -> Result<usize>) {
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

/// Replies with an extended attribute's value or with all names; a size of 0 asks for the length.
pub(crate) fn xattr(reply: ReplyXattr, size: u32, result: Result<Vec<u8>>) {
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
