//! The FUSE side: decodes a request, makes one call, replies. Only this and what mounts names fuser.
//!
//! A call that may wait for a store goes to a worker, together with its reply. The event loop's thread answers
//! all other requests.

mod roots;

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, Errno as FuseErrno, FileHandle, Filesystem,
    FopenFlags, INodeNo, InitFlags, KernelConfig, LockOwner, OpenAccMode, OpenFlags, RenameFlags,
    ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry,
    ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};

use crate::process;
use crate::reply::{
    NO_GENERATION, attr, attributes, data, empty, entry, errno, link, missing, names, names_plus,
    prepare, xattr,
};
use crate::tree::{Caching, Lookup, Tree};
use crate::workers::Workers;

pub(crate) use roots::Roots;

/// Answers the kernel from a tree.
#[derive(Debug)]
pub(crate) struct Adapter {
    tree: Arc<Tree>,
    workers: Workers,
}

impl Adapter {
    pub(crate) fn new(tree: Arc<Tree>, workers: Workers) -> Self {
        Self { tree, workers }
    }

    fn run(&self, waits: bool, call: impl FnOnce(&Tree) + Send + 'static) {
        if waits {
            let tree = Arc::clone(&self.tree);
            self.workers.run(move || call(&tree));
        } else {
            call(&self.tree);
        }
    }

    /// As `run`, for a call that may wait for long: it ends early with the requesting process.
    fn run_for(&self, request: &Request, waits: bool, call: impl FnOnce(&Tree) + Send + 'static) {
        let thread = request.pid();
        self.run(waits, move |tree| process::serving(thread, || call(tree)));
    }
}

impl Filesystem for Adapter {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        prepare(
            config,
            &[
                InitFlags::FUSE_DO_READDIRPLUS,
                InitFlags::FUSE_READDIRPLUS_AUTO,
                InitFlags::FUSE_PARALLEL_DIROPS,
                InitFlags::FUSE_ATOMIC_O_TRUNC,
                InitFlags::FUSE_CACHE_SYMLINKS,
                InitFlags::FUSE_ASYNC_DIO,
            ],
        );
        Ok(())
    }

    fn lookup(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let name = name.to_owned();
        self.run_for(
            request,
            self.tree.may_wait(parent.0),
            move |tree| match tree.lookup(parent.0, &name) {
                Ok(Lookup::Found(found, validity)) => entry(reply, Ok((found, validity))),
                Ok(Lookup::Missing(validity)) => missing(reply, validity),
                Err(error) => reply.error(errno(error)),
            },
        );
    }

    fn forget(&self, _: &Request, number: INodeNo, count: u64) {
        self.tree.forget(number.0, count);
    }

    fn getattr(&self, request: &Request, number: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        self.run_for(request, self.tree.may_wait(number.0), move |tree| {
            attributes(reply, tree.attributes(number.0));
        });
    }

    fn setattr(
        &self,
        _: &Request,
        number: INodeNo,
        _mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let waits = size.is_some() || self.tree.may_wait(number.0);
        self.run(waits, move |tree| {
            attributes(reply, tree.change(number.0, size));
        });
    }

    fn readlink(&self, _: &Request, number: INodeNo, reply: ReplyData) {
        link(reply, self.tree.read_link(number.0));
    }

    fn mknod(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, _: u32, _: u32, reply: ReplyEntry) {
        reply.error(FuseErrno::EPERM);
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        _mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        let (name, thread) = (name.to_owned(), request.pid());
        self.run(true, move |tree| {
            entry(reply, tree.make_dir(parent.0, &name, thread));
        });
    }

    fn unlink(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(reply, self.tree.unlink(parent.0, name, request.pid()));
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = name.to_owned();
        self.run(true, move |tree| {
            empty(reply, tree.remove_dir(parent.0, &name))
        });
    }

    fn symlink(&self, _: &Request, _: INodeNo, _: &OsStr, _: &Path, reply: ReplyEntry) {
        reply.error(FuseErrno::EPERM);
    }

    fn rename(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        if flags.intersects(RenameFlags::RENAME_EXCHANGE | RenameFlags::RENAME_WHITEOUT) {
            reply.error(FuseErrno::EINVAL);
            return;
        }
        let replace = !flags.contains(RenameFlags::RENAME_NOREPLACE);
        let names: (OsString, OsString) = (name.to_owned(), new_name.to_owned());
        let thread = request.pid();
        self.run(true, move |tree| {
            let (from, to) = ((parent.0, &*names.0), (new_parent.0, &*names.1));
            empty(reply, tree.rename(from, to, replace, thread));
        });
    }

    fn link(&self, _: &Request, _: INodeNo, _: INodeNo, _: &OsStr, reply: ReplyEntry) {
        reply.error(FuseErrno::EPERM);
    }

    fn open(&self, request: &Request, number: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let write = flags.acc_mode() != OpenAccMode::O_RDONLY;
        let truncate = flags.0 & TRUNCATE != 0;
        let thread = request.pid();
        self.run_for(
            request,
            self.tree.may_wait(number.0),
            move |tree| match tree.open(number.0, write, truncate, thread) {
                Ok((handle, caching)) => reply.opened(FileHandle(handle), caching_flags(caching)),
                Err(error) => reply.error(errno(error)),
            },
        );
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        self.run(self.tree.read_may_wait(handle.0), move |tree| {
            data(reply, size, |buffer| tree.read(handle.0, offset, buffer));
        });
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let done = |reply: ReplyWrite, length: usize, result| match result {
            Ok(()) => reply.written(u32::try_from(length).unwrap_or(u32::MAX)),
            Err(error) => reply.error(errno(error)),
        };
        if self.tree.write_may_wait(handle.0) {
            let data = data.to_vec();
            self.run(true, move |tree| {
                let result = tree.write(handle.0, offset, &data);
                done(reply, data.len(), result);
            });
        } else {
            let result = self.tree.write(handle.0, offset, data);
            done(reply, data.len(), result);
        }
    }

    fn flush(
        &self,
        request: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: LockOwner,
        reply: ReplyEmpty,
    ) {
        let thread = request.pid();
        self.run(self.tree.flush_may_wait(handle.0), move |tree| {
            empty(reply, tree.flush(handle.0, thread));
        });
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.tree.release(handle.0);
        reply.ok();
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        // Only the image survives a crash, once it is in its store.
        reply.ok();
    }

    fn opendir(&self, request: &Request, number: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        self.run_for(
            request,
            self.tree.may_wait(number.0),
            move |tree| match tree.open_dir(number.0) {
                Ok((handle, caching)) => {
                    let mut flags = FopenFlags::empty();
                    if caching == Caching::Keep {
                        flags |= FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_CACHE_DIR;
                    }
                    reply.opened(FileHandle(handle), flags);
                }
                Err(error) => reply.error(errno(error)),
            },
        );
    }

    fn readdir(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        reply: ReplyDirectory,
    ) {
        self.run(self.tree.read_dir_may_wait(handle.0), move |tree| {
            names(reply, |take| tree.read_dir(handle.0, offset, false, take));
        });
    }

    fn readdirplus(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        reply: ReplyDirectoryPlus,
    ) {
        self.run(self.tree.read_dir_may_wait(handle.0), move |tree| {
            names_plus(reply, |take| tree.read_dir(handle.0, offset, true, take));
        });
    }

    fn releasedir(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.tree.release(handle.0);
        reply.ok();
    }

    fn fsyncdir(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let space = self.tree.space();
        reply.statfs(
            space.blocks,
            space.free,
            space.free,
            0,
            0,
            space.block_size,
            255,
            space.block_size,
        );
    }

    fn setxattr(
        &self,
        _: &Request,
        number: INodeNo,
        _: &OsStr,
        _: &[u8],
        _: i32,
        _: u32,
        reply: ReplyEmpty,
    ) {
        empty(reply, self.tree.accepts_attributes(number.0));
    }

    fn getxattr(&self, _: &Request, number: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        xattr(reply, size, self.tree.attribute(number.0, name));
    }

    fn listxattr(&self, _: &Request, number: INodeNo, size: u32, reply: ReplyXattr) {
        xattr(reply, size, self.tree.attribute_names(number.0));
    }

    fn removexattr(&self, _: &Request, number: INodeNo, _: &OsStr, reply: ReplyEmpty) {
        empty(reply, self.tree.accepts_attributes(number.0));
    }

    fn access(&self, _: &Request, _: INodeNo, _: AccessFlags, reply: ReplyEmpty) {
        // Images belong to the user of the mount; an attempt to write reports what cannot be written.
        reply.ok();
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        _mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        let (name, thread) = (name.to_owned(), request.pid());
        self.run(self.tree.may_wait(parent.0), move |tree| {
            match tree.create(parent.0, &name, thread) {
                Ok((attributes, validity, handle)) => reply.created(
                    &validity,
                    &attr(&attributes),
                    NO_GENERATION,
                    FileHandle(handle),
                    FopenFlags::empty(),
                ),
                Err(error) => reply.error(errno(error)),
            }
        });
    }

    fn lseek(&self, _: &Request, _: INodeNo, _: FileHandle, _: i64, _: i32, reply: ReplyLseek) {
        // The kernel falls back to its own implementation, which treats all of a file as data.
        reply.error(FuseErrno::ENOSYS);
    }

    fn copy_file_range(
        &self,
        _: &Request,
        _: INodeNo,
        from: FileHandle,
        from_offset: u64,
        _: INodeNo,
        to: FileHandle,
        to_offset: u64,
        length: u64,
        _: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        self.run(true, move |tree| {
            match tree.copy_range(from.0, from_offset, to.0, to_offset, length) {
                Ok(n) => reply.written(n),
                Err(error) => reply.error(errno(error)),
            }
        });
    }
}

/// `O_TRUNC`, the same on every architecture with FUSE.
const TRUNCATE: i32 = rustix::fs::OFlags::TRUNC.bits() as i32;

fn caching_flags(caching: Caching) -> FopenFlags {
    match caching {
        Caching::Refresh => FopenFlags::empty(),
        // Nothing was written, so a close cannot complete a copy.
        Caching::Keep => FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_NOFLUSH,
        Caching::Direct => FopenFlags::FOPEN_DIRECT_IO,
    }
}
