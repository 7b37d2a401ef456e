//! Answers the kernel from a [`RootTree`].

use std::ffi::OsStr;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::SystemTime;

use fuser::{
    AccessFlags, Config, Errno as FuseErrno, FileHandle, Filesystem, INodeNo, InitFlags,
    KernelConfig, LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyDirectoryPlus,
    ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyXattr, Request, Session, SessionACL,
};
use lru::LruCache;
use parking_lot::Mutex;
use pcocc_layers::Error;
use pcocc_layers::squashfs::{FileType, InodeNo};

use crate::attributes::{
    ALWAYS, Attributes, ExtendedAttribute, is_unsupported, names_of, value_of,
};
use crate::dir_item::{DirItem, TakeItem};
use crate::errno::{Errno, Result, to_errno};
use crate::reply::{
    attributes, data, entry, errno, link, missing, names, names_plus, prepare, xattr,
};
use crate::root::tree::{Added, Found, Named, NodeId, RootTree};

/// Number of folders whose names are kept while they are read.
const LISTINGS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(31);

/// The root's number.
const TOP: u64 = 1;

/// Difference between an inode's number and its position in the squashfs: the numbers 0 and 1 have a meaning of
/// their own.
const SHIFT: u64 = 2;

/// Marks the numbers of added files.
const ADDED: u64 = 1 << 62;

/// Names and inodes of a folder.
type Listing = Arc<Vec<Named>>;

/// A root file system that is served until its device is closed. Dropping this value does not end it.
#[derive(Debug)]
pub struct Served {
    thread: JoinHandle<io::Result<()>>,
}

impl Served {
    /// Waits until the file system is unmounted everywhere.
    pub fn wait(self) -> io::Result<()> {
        self.thread.join().unwrap_or_else(|_| {
            Err(io::Error::other(
                "the server of the root file system failed",
            ))
        })
    }
}

/// Serves `tree` on `device`, a `/dev/fuse` that has just been mounted, with `threads` threads. Returns after
/// the greeting of the kernel.
pub fn serve(tree: RootTree, device: OwnedFd, threads: usize) -> io::Result<Served> {
    let mut config = Config::default();
    config.n_threads = Some(threads.max(1));
    let server = Server {
        modified: SystemTime::now(),
        tree,
        listings: Mutex::new(LruCache::new(LISTINGS)),
    };
    // The mount options say who may use the mount.
    let session = Session::from_fd(server, device, SessionACL::All, config)?;
    let thread = std::thread::Builder::new()
        .name("pcocc-root".into())
        .spawn(move || session.run())?;
    Ok(Served { thread })
}

#[derive(Debug)]
struct Server {
    tree: RootTree,
    /// Time of added files.
    modified: SystemTime,
    listings: Mutex<LruCache<NodeId, Listing>>,
}

impl Server {
    fn number(&self, found: Found) -> u64 {
        match found {
            Found::Image(inode, _) if inode == self.tree.top => TOP,
            Found::Image(InodeNo(place), _) => place + SHIFT,
            Found::Added(number) => ADDED | number as u64,
        }
    }

    fn node_of(&self, number: u64) -> NodeId {
        match number {
            TOP => NodeId::Image(self.tree.top),
            number if number & ADDED != 0 => NodeId::Added((number & !ADDED) as usize),
            number => NodeId::Image(InodeNo(number.wrapping_sub(SHIFT))),
        }
    }

    fn attributes(&self, number: u64) -> Result<Attributes, Error> {
        let owner = self.tree.owner;
        let found = match self.node_of(number) {
            NodeId::Added(added) => match self.tree.added.get(added) {
                Some(Added::File { content, mode }) => {
                    Attributes::file(owner, *mode, content.len() as u64, self.modified)
                }
                _ => Attributes::folder(owner, 0o755, self.modified),
            },
            NodeId::Image(inode) => Attributes::in_image(&self.tree.squashfs.attributes(inode)?),
        };
        Ok(found.numbered(number))
    }

    /// The names in a folder, kept while the kernel reads them.
    fn listing(&self, folder: NodeId) -> Result<Listing, Error> {
        if let Some(listing) = self.listings.lock().get(&folder) {
            return Ok(Arc::clone(listing));
        }
        let mut names = self.tree.list(folder)?;
        let parent = match folder {
            NodeId::Added(number) => match self.tree.added.get(number) {
                Some(Added::Folder { parent }) => *parent,
                _ => folder,
            },
            // The number does not matter: the kernel knows the way up.
            NodeId::Image(_) => folder,
        };
        for (name, id) in [(&b".."[..], parent), (b".", folder)] {
            let found = match id {
                NodeId::Image(inode) => Found::Image(inode, FileType::Directory),
                NodeId::Added(number) => Found::Added(number),
            };
            names.push((name.into(), found));
        }
        // `.` and `..` come first.
        names.rotate_right(2);
        let listing = Arc::new(names);
        self.listings.lock().put(folder, Arc::clone(&listing));
        Ok(listing)
    }

    /// Passes the names from `offset` on to `take` until there is no more room.
    fn read_dir(
        &self,
        number: INodeNo,
        offset: u64,
        attributes: bool,
        take: &mut TakeItem<'_>,
    ) -> Result<()> {
        let listing = self.listing(self.node_of(number.0)).map_err(to_errno)?;
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        for (place, (name, found)) in listing.iter().enumerate().skip(start) {
            let number = self.number(*found);
            let attributes = match attributes {
                true => Some((self.attributes(number).map_err(to_errno)?, ALWAYS)),
                false => None,
            };
            let item = DirItem {
                number,
                next: place as u64 + 1,
                kind: self.kind_of(*found),
                name,
                attributes,
            };
            if take(item) {
                break;
            }
        }
        Ok(())
    }

    fn kind_of(&self, found: Found) -> FileType {
        match found {
            Found::Image(_, file_type) => file_type,
            Found::Added(_) if self.tree.folder_id(found).is_some() => FileType::Directory,
            Found::Added(_) => FileType::Regular,
        }
    }

    fn xattrs(&self, number: INodeNo) -> Result<Vec<ExtendedAttribute>> {
        match self.node_of(number.0) {
            NodeId::Added(_) => Ok(Vec::new()),
            NodeId::Image(inode) => {
                let found = self.tree.squashfs.xattrs(inode);
                found.map_err(to_errno)
            }
        }
    }
}

impl Filesystem for Server {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        prepare(
            config,
            &[
                InitFlags::FUSE_ASYNC_READ,
                InitFlags::FUSE_DO_READDIRPLUS,
                InitFlags::FUSE_READDIRPLUS_AUTO,
                InitFlags::FUSE_PARALLEL_DIROPS,
                InitFlags::FUSE_CACHE_SYMLINKS,
                InitFlags::FUSE_NO_OPEN_SUPPORT,
                InitFlags::FUSE_NO_OPENDIR_SUPPORT,
            ],
        );
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = self.tree.lookup(self.node_of(parent.0), name.as_bytes());
        let found = found.and_then(|found| {
            found
                .map(|found| self.attributes(self.number(found)))
                .transpose()
        });
        match found {
            Ok(Some(found)) => entry(reply, Ok((found, ALWAYS))),
            Ok(None) => missing(reply, ALWAYS),
            Err(error) => reply.error(errno(to_errno(error))),
        }
    }

    fn forget(&self, _: &Request, _: INodeNo, _: u64) {}

    fn getattr(&self, _: &Request, number: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        let found = self.attributes(number.0);
        let found = found.map_err(to_errno);
        attributes(reply, found.map(|found| (found, ALWAYS)));
    }

    fn readlink(&self, _: &Request, number: INodeNo, reply: ReplyData) {
        match self.node_of(number.0) {
            NodeId::Added(_) => reply.error(FuseErrno::EINVAL),
            NodeId::Image(inode) => {
                let target = self.tree.squashfs.read_link(inode);
                link(reply, target.map_err(to_errno));
            }
        }
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        // After this answer the kernel opens files without asking, and keeps what it has read.
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
        match self.node_of(number.0) {
            NodeId::Image(inode) => data(reply, size, |buffer| {
                let read = self.tree.squashfs.read_at(inode, offset, buffer);
                read.map_err(to_errno)
            }),
            NodeId::Added(number) => match self.tree.added.get(number) {
                Some(Added::File { content, .. }) => {
                    let start = usize::try_from(offset)
                        .unwrap_or(usize::MAX)
                        .min(content.len());
                    let end = start.saturating_add(size as usize).min(content.len());
                    reply.data(content.get(start..end).unwrap_or_default());
                }
                _ => reply.error(FuseErrno::EISDIR),
            },
        }
    }

    fn readdir(
        &self,
        _: &Request,
        number: INodeNo,
        _: FileHandle,
        offset: u64,
        reply: ReplyDirectory,
    ) {
        names(reply, |take| self.read_dir(number, offset, false, take));
    }

    fn readdirplus(
        &self,
        _: &Request,
        number: INodeNo,
        _: FileHandle,
        offset: u64,
        reply: ReplyDirectoryPlus,
    ) {
        names_plus(reply, |take| self.read_dir(number, offset, true, take));
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let files = u64::from(self.tree.squashfs.inode_count());
        let size = self.tree.squashfs.block_size();
        reply.statfs(0, 0, 0, files, 0, size, 255, size);
    }

    fn getxattr(&self, _: &Request, number: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        if !self.tree.squashfs.has_xattrs() {
            // The kernel does not ask again.
            return reply.error(FuseErrno::ENOSYS);
        }
        if is_unsupported(name) {
            return reply.error(FuseErrno::EOPNOTSUPP);
        }
        let found = self.xattrs(number);
        let value = found.and_then(|found| value_of(found, name).ok_or(Errno::NODATA));
        xattr(reply, size, value);
    }

    fn listxattr(&self, _: &Request, number: INodeNo, size: u32, reply: ReplyXattr) {
        if !self.tree.squashfs.has_xattrs() {
            return reply.error(FuseErrno::ENOSYS);
        }
        xattr(reply, size, self.xattrs(number).map(names_of));
    }

    fn access(&self, _: &Request, _: INodeNo, _: AccessFlags, reply: ReplyEmpty) {
        // A user who may run the image may read all of it.
        reply.error(FuseErrno::ENOSYS);
    }
}
