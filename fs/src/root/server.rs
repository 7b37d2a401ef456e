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
    AccessFlags, Config, Errno as FuseErrno, FileAttr, FileHandle, FileType, Filesystem, INodeNo,
    InitFlags, KernelConfig, LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory,
    ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyXattr, Request,
    Session, SessionACL,
};
use lru::LruCache;
use parking_lot::Mutex;
use pcocc_image::Error;
use pcocc_layers::squashfs::{FileType as Kind, InodeNo};

use crate::errno::{Errno, errno_of};
use crate::reply::{NO_GENERATION, attr, data, errno, kind, prepare, xattr};
use crate::root::tree::{Added, Found, Named, Place, RootTree};
use crate::tree::ALWAYS;
use crate::tree::look::{Attributes, is_unsupported, rootfs_attributes};

/// Folders whose names are kept while they are being listed.
const LISTINGS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(31);

/// The root's number.
const TOP: u64 = 1;

/// What lies between an inode's place in the squashfs and its number: 0 and 1 have a meaning of their own.
const SHIFT: u64 = 2;

/// Marks the numbers of added files.
const ADDED: u64 = 1 << 62;

/// Names and inodes of a folder.
type Listing = Arc<Vec<Named>>;

/// Name and value of an extended attribute.
type Extended = (Vec<u8>, Vec<u8>);

/// A root file system being served. Dropping this does not end it: closing the device does.
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

/// Serves `tree` on `device`, an open `/dev/fuse` that was mounted just now, with `threads` threads.
/// Returns when the kernel was greeted.
pub fn serve(tree: RootTree, device: OwnedFd, threads: usize) -> io::Result<Served> {
    let mut config = Config::default();
    config.n_threads = Some(threads.max(1));
    let server = Server {
        modified: SystemTime::now(),
        tree,
        listings: Mutex::new(LruCache::new(LISTINGS)),
    };
    // Who may use the mount was said when it was mounted.
    let session = Session::from_fd(server, device, SessionACL::All, config)?;
    let thread = std::thread::Builder::new()
        .name("pcocc-root".into())
        .spawn(move || session.run())?;
    Ok(Served { thread })
}

#[derive(Debug)]
struct Server {
    tree: RootTree,
    /// Time of what was added.
    modified: SystemTime,
    listings: Mutex<LruCache<Place, Listing>>,
}

impl Server {
    fn number(&self, found: Found) -> u64 {
        match found {
            Found::Image(inode, _) if inode == self.tree.top => TOP,
            Found::Image(InodeNo(place), _) => place + SHIFT,
            Found::Added(number) => ADDED | number as u64,
        }
    }

    fn place_of(&self, number: u64) -> Place {
        match number {
            TOP => Place::Image(self.tree.top),
            number if number & ADDED != 0 => Place::Added((number & !ADDED) as usize),
            number => Place::Image(InodeNo(number.wrapping_sub(SHIFT))),
        }
    }

    fn attributes(&self, number: u64, place: Place) -> Result<Attributes, Error> {
        let plain = Attributes {
            number,
            kind: Kind::Directory,
            mode: 0o755,
            owner: self.tree.owner,
            size: 0,
            blocks: 0,
            // One link says that the number of folders inside is not told.
            links: 1,
            device: 0,
            modified: self.modified,
            changed: self.modified,
        };
        match place {
            Place::Added(added) => Ok(match self.tree.added.get(added) {
                Some(Added::File { content, mode }) => Attributes {
                    size: content.len() as u64,
                    blocks: (content.len() as u64).div_ceil(512),
                    kind: Kind::Regular,
                    mode: *mode,
                    ..plain
                },
                _ => plain,
            }),
            Place::Image(inode) => {
                let found = self.tree.squashfs.attributes(inode)?;
                Ok(rootfs_attributes(number, &found))
            }
        }
    }

    fn attr(&self, number: u64, place: Place) -> Result<FileAttr, Error> {
        Ok(attr(&self.attributes(number, place)?))
    }

    fn attr_of(&self, found: Found) -> Result<FileAttr, Error> {
        let number = self.number(found);
        self.attr(number, self.place_of(number))
    }

    /// The names in a folder, kept for as long as the kernel asks for more of them.
    fn listing(&self, number: u64) -> Result<Listing, Error> {
        let place = self.place_of(number);
        if let Some(listing) = self.listings.lock().get(&place) {
            return Ok(Arc::clone(listing));
        }
        let mut names = self.tree.list(place)?;
        let parent = match place {
            Place::Added(number) => match self.tree.added.get(number) {
                Some(Added::Folder { parent }) => *parent,
                _ => place,
            },
            // Nobody looks at this number: the kernel knows the way up by itself.
            Place::Image(_) => place,
        };
        for (name, place) in [(&b".."[..], parent), (b".", place)] {
            let found = match place {
                Place::Image(inode) => Found::Image(inode, Kind::Directory),
                Place::Added(number) => Found::Added(number),
            };
            names.push((name.into(), found));
        }
        // The two come first.
        names.rotate_right(2);
        let listing = Arc::new(names);
        self.listings.lock().put(place, Arc::clone(&listing));
        Ok(listing)
    }

    fn kind_of(&self, found: Found) -> FileType {
        match found {
            Found::Image(_, file_type) => kind(file_type),
            Found::Added(_) if self.tree.place(found).is_some() => FileType::Directory,
            Found::Added(_) => FileType::RegularFile,
        }
    }

    fn xattrs(&self, number: INodeNo) -> Result<Vec<Extended>, Errno> {
        match self.place_of(number.0) {
            Place::Added(_) => Ok(Vec::new()),
            Place::Image(inode) => {
                let found = self.tree.squashfs.xattrs(inode);
                found.map_err(|error| errno_of(&error.into()))
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
        let found = self.tree.lookup(self.place_of(parent.0), name.as_bytes());
        let attr = found.and_then(|found| found.map(|found| self.attr_of(found)).transpose());
        match attr {
            Ok(Some(attr)) => reply.entry(&ALWAYS, &attr, NO_GENERATION),
            // Inode number zero is how FUSE caches that there is no such name.
            Ok(None) => match self.attr(0, Place::Added(usize::MAX)) {
                Ok(nothing) => reply.entry(&ALWAYS, &nothing, NO_GENERATION),
                Err(error) => reply.error(errno(errno_of(&error.into()))),
            },
            Err(error) => reply.error(errno(errno_of(&error.into()))),
        }
    }

    fn forget(&self, _: &Request, _: INodeNo, _: u64) {}

    fn getattr(&self, _: &Request, number: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.attr(number.0, self.place_of(number.0)) {
            Ok(attr) => reply.attr(&ALWAYS, &attr),
            Err(error) => reply.error(errno(errno_of(&error.into()))),
        }
    }

    fn readlink(&self, _: &Request, number: INodeNo, reply: ReplyData) {
        match self.place_of(number.0) {
            Place::Added(_) => reply.error(FuseErrno::EINVAL),
            Place::Image(inode) => match self.tree.squashfs.read_link(inode) {
                Ok(target) => reply.data(&target),
                Err(error) => reply.error(errno(errno_of(&error.into()))),
            },
        }
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        // The kernel then opens files by itself, and keeps what it read of them.
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
        match self.place_of(number.0) {
            Place::Image(inode) => data(reply, size, |buffer| {
                let read = self.tree.squashfs.read_at(inode, offset, buffer);
                read.map_err(|error| errno_of(&error.into()))
            }),
            Place::Added(number) => match self.tree.added.get(number) {
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
        mut reply: ReplyDirectory,
    ) {
        let listing = match self.listing(number.0) {
            Ok(listing) => listing,
            Err(error) => return reply.error(errno(errno_of(&error.into()))),
        };
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        for (place, (name, found)) in listing.iter().enumerate().skip(start) {
            let number = INodeNo(self.number(*found));
            let kind = self.kind_of(*found);
            if reply.add(number, place as u64 + 1, kind, OsStr::from_bytes(name)) {
                break;
            }
        }
        reply.ok();
    }

    fn readdirplus(
        &self,
        _: &Request,
        number: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let listing = match self.listing(number.0) {
            Ok(listing) => listing,
            Err(error) => return reply.error(errno(errno_of(&error.into()))),
        };
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        for (place, (name, found)) in listing.iter().enumerate().skip(start) {
            let attr = match self.attr_of(*found) {
                Ok(attr) => attr,
                Err(error) => return reply.error(errno(errno_of(&error.into()))),
            };
            let next = place as u64 + 1;
            let name = OsStr::from_bytes(name);
            if reply.add(attr.ino, next, name, &ALWAYS, &attr, NO_GENERATION) {
                break;
            }
        }
        reply.ok();
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
        let value = self.xattrs(number).and_then(|all| {
            all.into_iter()
                .find_map(|(known, value)| (known == name.as_bytes()).then_some(value))
                .ok_or(Errno::NODATA)
        });
        xattr(reply, size, value);
    }

    fn listxattr(&self, _: &Request, number: INodeNo, size: u32, reply: ReplyXattr) {
        if !self.tree.squashfs.has_xattrs() {
            return reply.error(FuseErrno::ENOSYS);
        }
        let names = self.xattrs(number).map(|all| {
            let ended = all.into_iter().map(|(name, _)| [&*name, b"\0"].concat());
            ended.collect::<Vec<_>>().concat()
        });
        xattr(reply, size, names);
    }

    fn access(&self, _: &Request, _: INodeNo, _: AccessFlags, reply: ReplyEmpty) {
        // Whoever may run the image may read all of it.
        reply.error(FuseErrno::ENOSYS);
    }
}
