//! The second connection to the kernel, mounted on `rootfs`: root file systems, read only.
//!
//! The kernel opens files and folders below `rootfs` without asking, and keeps what it has read. Only a whole
//! connection can be set up like this: then a second read costs no request, as in a file system of the kernel's
//! own. All other requests are answered as by the first connection.

use std::ffi::OsStr;
use std::io;

use fuser::{
    AccessFlags, Errno as FuseErrno, FileHandle, Filesystem, INodeNo, InitFlags, KernelConfig,
    LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty,
    ReplyEntry, ReplyOpen, ReplyXattr, Request,
};

use super::Adapter;
use crate::reply::{data, names, names_plus, prepare};
use crate::tree::inodes::{ROOT, ROOTFS};

/// Answers the kernel below `rootfs`.
#[derive(Debug)]
pub(crate) struct Roots(pub(crate) Adapter);

/// The tree's number of an inode: the root of this connection is the folder `rootfs` there.
fn inside(number: INodeNo) -> INodeNo {
    match number.0 {
        ROOT => INodeNo(ROOTFS),
        _ => number,
    }
}

impl Filesystem for Roots {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        prepare(
            config,
            &[
                InitFlags::FUSE_ASYNC_READ,
                // The kernel recognises changed names by the folder's time.
                InitFlags::FUSE_AUTO_INVAL_DATA,
                InitFlags::FUSE_DO_READDIRPLUS,
                InitFlags::FUSE_PARALLEL_DIROPS,
                InitFlags::FUSE_CACHE_SYMLINKS,
                InitFlags::FUSE_NO_OPEN_SUPPORT,
                InitFlags::FUSE_NO_OPENDIR_SUPPORT,
            ],
        );
        Ok(())
    }

    fn lookup(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.0.lookup(request, inside(parent), name, reply);
    }

    fn forget(&self, request: &Request, number: INodeNo, count: u64) {
        if number.0 != ROOT {
            self.0.forget(request, number, count);
        }
    }

    fn getattr(
        &self,
        request: &Request,
        number: INodeNo,
        handle: Option<FileHandle>,
        reply: ReplyAttr,
    ) {
        self.0.getattr(request, inside(number), handle, reply);
    }

    fn readlink(&self, request: &Request, number: INodeNo, reply: ReplyData) {
        self.0.readlink(request, number, reply);
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.error(FuseErrno::ENOSYS);
    }

    fn opendir(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.error(FuseErrno::ENOSYS);
    }

    fn read(
        &self,
        _: &Request,
        number: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        data(reply, size, |buffer| {
            self.0.tree.read_open(number.0, offset, buffer)
        });
    }

    fn readdir(
        &self,
        request: &Request,
        number: INodeNo,
        _: FileHandle,
        offset: u64,
        reply: ReplyDirectory,
    ) {
        let number = inside(number).0;
        let waits = self.0.tree.may_wait(number);
        self.0.run_for(request, waits, move |tree| {
            names(reply, |take| {
                tree.read_open_dir(number, offset, false, take)
            });
        });
    }

    fn readdirplus(
        &self,
        request: &Request,
        number: INodeNo,
        _: FileHandle,
        offset: u64,
        reply: ReplyDirectoryPlus,
    ) {
        let number = inside(number).0;
        let waits = self.0.tree.may_wait(number);
        self.0.run_for(request, waits, move |tree| {
            names_plus(reply, |take| tree.read_open_dir(number, offset, true, take));
        });
    }

    fn getxattr(
        &self,
        request: &Request,
        number: INodeNo,
        name: &OsStr,
        size: u32,
        reply: ReplyXattr,
    ) {
        self.0.getxattr(request, inside(number), name, size, reply);
    }

    fn listxattr(&self, request: &Request, number: INodeNo, size: u32, reply: ReplyXattr) {
        self.0.listxattr(request, inside(number), size, reply);
    }

    fn access(&self, _: &Request, _: INodeNo, _: AccessFlags, reply: ReplyEmpty) {
        // A user who may enter may read all of an image. The kernel does not ask again.
        reply.error(FuseErrno::ENOSYS);
    }
}
