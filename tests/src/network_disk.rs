//! A folder as a file system of the network may show it: every change is written down, and replies may get lost.
//!
//! Data path: a program's call → the kernel's FUSE request → the same call in the folder behind → the note of the call → the
//! reply. When replies get lost, the call is done and its repetition is what is answered: LINK and MKDIR find the name
//! taken, RENAME, UNLINK and RMDIR find it gone. An NFS client shows programs the same (nfs(5), open(2)).
//!
//! Nodes are descriptors, so that files keep their identity under other names. Nothing is cached by the kernel.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{
    BackgroundSession, BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem,
    FopenFlags, Generation, INodeNo, LockOwner, MountOption, OpenFlags, RenameFlags, ReplyAttr,
    ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite, Request,
    Session, TimeOrNow, WriteFlags,
};
use rustix::fs::{self as sys, AtFlags, Dir, Mode, OFlags, Stat, Timespec, Timestamps};

/// A change of the file system, with paths below the mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A new folder, or a new name of a folder.
    Folder(PathBuf),
    /// A new name, made, linked or renamed, of the file with this inode number.
    Name(PathBuf, u64),
    /// The content of the file with this inode number was flushed to disk.
    Flushed(u64),
    /// A folder's names were flushed to disk.
    NamesFlushed(PathBuf),
}

/// The mount; unmounted when dropped.
#[derive(Debug)]
pub struct NetworkDisk {
    at: PathBuf,
    state: Arc<State>,
    _session: BackgroundSession,
}

#[derive(Debug)]
struct State {
    top: PathBuf,
    nodes: Mutex<HashMap<u64, Arc<OwnedFd>>>,
    files: Mutex<HashMap<u64, Arc<File>>>,
    next: AtomicU64,
    changes: Mutex<Vec<Change>>,
    loses: AtomicBool,
}

impl NetworkDisk {
    /// Shows the folder `behind` at `at`; both exist.
    pub fn mount(behind: &Path, at: &Path) -> Self {
        let behind = behind.canonicalize().expect("the folder behind a mount");
        let top = sys::open(&behind, OFlags::PATH, Mode::empty()).expect("open the folder");
        let state = Arc::new(State {
            top: behind,
            nodes: Mutex::new(HashMap::from([(INodeNo::ROOT.0, Arc::new(top))])),
            files: Mutex::default(),
            next: AtomicU64::new(1),
            changes: Mutex::default(),
            loses: AtomicBool::new(false),
        });
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("pcocc-test".into())];
        let session = Session::new(Adapter(Arc::clone(&state)), at, &config)
            .and_then(Session::spawn)
            .unwrap_or_else(|error| panic!("mount on {}: {error}", at.display()));
        Self {
            at: at.to_owned(),
            state,
            _session: session,
        }
    }

    /// The folder of the mount.
    pub fn path(&self) -> &Path {
        &self.at
    }

    /// From now on the first reply to every change of names gets lost, or none does.
    pub fn lose_replies(&self, lost: bool) {
        self.state.loses.store(lost, Ordering::SeqCst);
    }

    /// Takes what has changed since the last call.
    pub fn changes(&self) -> Vec<Change> {
        std::mem::take(&mut *self.state.changes.lock().expect("no test panics in it"))
    }
}

type Answer<T> = Result<T, Errno>;

fn errno(error: rustix::io::Errno) -> Errno {
    Errno::from_i32(error.raw_os_error())
}

fn of_io(error: io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_i32)
}

/// A path to the very file of a descriptor.
fn through(fd: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

fn attributes(number: u64, found: &Stat) -> FileAttr {
    let time = |seconds: i64, nanoseconds: u64| {
        let seconds = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
        UNIX_EPOCH + seconds + Duration::from_nanos(nanoseconds)
    };
    let kind = match sys::FileType::from_raw_mode(found.st_mode) {
        sys::FileType::Directory => FileType::Directory,
        sys::FileType::Symlink => FileType::Symlink,
        sys::FileType::Fifo => FileType::NamedPipe,
        sys::FileType::Socket => FileType::Socket,
        _ => FileType::RegularFile,
    };
    FileAttr {
        ino: INodeNo(number),
        size: u64::try_from(found.st_size).unwrap_or(0),
        blocks: u64::try_from(found.st_blocks).unwrap_or(0),
        atime: time(found.st_atime, found.st_atime_nsec),
        mtime: time(found.st_mtime, found.st_mtime_nsec),
        ctime: time(found.st_ctime, found.st_ctime_nsec),
        crtime: UNIX_EPOCH,
        kind,
        perm: u16::try_from(found.st_mode & 0o7777).unwrap_or(0),
        nlink: u32::try_from(found.st_nlink).unwrap_or(u32::MAX),
        uid: found.st_uid,
        gid: found.st_gid,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

impl State {
    fn node(&self, number: INodeNo) -> Answer<Arc<OwnedFd>> {
        let nodes = self.nodes.lock().expect("nothing panics with it");
        nodes.get(&number.0).cloned().ok_or(Errno::ESTALE)
    }

    fn file(&self, handle: FileHandle) -> Answer<Arc<File>> {
        let files = self.files.lock().expect("nothing panics with it");
        files.get(&handle.0).cloned().ok_or(Errno::EBADF)
    }

    fn keep(&self, file: File) -> FileHandle {
        let handle = self.next.fetch_add(1, Ordering::Relaxed);
        let mut files = self.files.lock().expect("nothing panics with it");
        files.insert(handle, Arc::new(file));
        FileHandle(handle)
    }

    /// Looks a name up and keeps its node. A node that lives keeps the number to itself.
    fn lookup(&self, parent: INodeNo, name: &OsStr) -> Answer<FileAttr> {
        let folder = self.node(parent)?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW;
        let node = sys::openat(&*folder, name, flags, Mode::empty()).map_err(errno)?;
        let found = sys::fstat(&node).map_err(errno)?;
        let mut nodes = self.nodes.lock().expect("nothing panics with it");
        nodes.entry(found.st_ino).or_insert_with(|| Arc::new(node));
        Ok(attributes(found.st_ino, &found))
    }

    /// A node's path below the mount.
    fn path(&self, node: &OwnedFd) -> PathBuf {
        let path = std::fs::read_link(through(node)).unwrap_or_default();
        path.strip_prefix(&self.top)
            .map(Path::to_owned)
            .unwrap_or(path)
    }

    fn path_of(&self, parent: INodeNo, name: &OsStr) -> Answer<PathBuf> {
        Ok(self.path(&*self.node(parent)?).join(name))
    }

    fn note_name(&self, parent: INodeNo, name: &OsStr) -> Answer<()> {
        let found = self.lookup(parent, name)?;
        let path = self.path_of(parent, name)?;
        self.note(match found.kind {
            FileType::Directory => Change::Folder(path),
            _ => Change::Name(path, found.ino.0),
        });
        Ok(())
    }

    fn note(&self, change: Change) {
        let mut changes = self.changes.lock().expect("nothing panics with it");
        changes.push(change);
    }

    /// The answer to the repetition of a call that worked, if the first reply is lost.
    fn repeated(&self, answer: Errno) -> Answer<()> {
        match self.loses.load(Ordering::SeqCst) {
            true => Err(answer),
            false => Ok(()),
        }
    }

    fn make_folder(&self, parent: INodeNo, name: &OsStr, mode: u32) -> Answer<FileAttr> {
        let folder = self.node(parent)?;
        sys::mkdirat(&*folder, name, Mode::from_raw_mode(mode)).map_err(errno)?;
        self.note(Change::Folder(self.path_of(parent, name)?));
        self.repeated(Errno::EEXIST)?;
        self.lookup(parent, name)
    }

    fn link(&self, node: INodeNo, parent: INodeNo, name: &OsStr) -> Answer<FileAttr> {
        let (node, folder) = (self.node(node)?, self.node(parent)?);
        let follow = AtFlags::SYMLINK_FOLLOW;
        sys::linkat(sys::CWD, through(&node), &*folder, name, follow).map_err(errno)?;
        self.note_name(parent, name)?;
        self.repeated(Errno::EEXIST)?;
        self.lookup(parent, name)
    }

    fn rename(
        &self,
        from: (INodeNo, &OsStr),
        to: (INodeNo, &OsStr),
        flags: RenameFlags,
    ) -> Answer<()> {
        let (old, new) = (self.node(from.0)?, self.node(to.0)?);
        let flags = sys::RenameFlags::from_bits_retain(flags.bits());
        sys::renameat_with(&*old, from.1, &*new, to.1, flags).map_err(errno)?;
        self.note_name(to.0, to.1)?;
        self.repeated(Errno::ENOENT)
    }

    fn remove(&self, parent: INodeNo, name: &OsStr, flags: AtFlags) -> Answer<()> {
        let folder = self.node(parent)?;
        sys::unlinkat(&*folder, name, flags).map_err(errno)?;
        self.repeated(Errno::ENOENT)
    }

    fn create(
        &self,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        flags: i32,
    ) -> Answer<(FileAttr, FileHandle)> {
        let folder = self.node(parent)?;
        let flags = opening(flags) | OFlags::CREATE;
        let mode = Mode::from_raw_mode(mode);
        let file = sys::openat(&*folder, name, flags, mode).map_err(errno)?;
        self.note_name(parent, name)?;
        Ok((self.lookup(parent, name)?, self.keep(File::from(file))))
    }

    fn change(
        &self,
        node: INodeNo,
        mode: Option<u32>,
        size: Option<u64>,
        times: [Option<TimeOrNow>; 2],
    ) -> Answer<FileAttr> {
        let fd = self.node(node)?;
        let path = through(&fd);
        if let Some(mode) = mode {
            sys::chmod(&path, Mode::from_raw_mode(mode)).map_err(errno)?;
        }
        if let Some(size) = size {
            let file = File::options().write(true).open(&path).map_err(of_io)?;
            file.set_len(size).map_err(of_io)?;
        }
        let time = |time: Option<TimeOrNow>| {
            let since = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or_default();
            let (tv_sec, tv_nsec) = match time {
                None => (0, sys::UTIME_OMIT),
                Some(TimeOrNow::Now) => (0, sys::UTIME_NOW),
                Some(TimeOrNow::SpecificTime(time)) => (
                    since(time).as_secs() as i64,
                    since(time).subsec_nanos().into(),
                ),
            };
            Timespec { tv_sec, tv_nsec }
        };
        let [last_access, last_modification] = times.map(time);
        let times = Timestamps {
            last_access,
            last_modification,
        };
        sys::utimensat(sys::CWD, &path, &times, AtFlags::empty()).map_err(errno)?;
        self.attributes(node)
    }

    fn attributes(&self, node: INodeNo) -> Answer<FileAttr> {
        let found = sys::fstat(&*self.node(node)?).map_err(errno)?;
        Ok(attributes(node.0, &found))
    }

    fn open(&self, node: INodeNo, flags: i32) -> Answer<FileHandle> {
        let node = self.node(node)?;
        let flags = opening(flags) - OFlags::NOFOLLOW;
        let file = sys::open(through(&node), flags, Mode::empty()).map_err(errno)?;
        Ok(self.keep(File::from(file)))
    }

    fn read(&self, handle: FileHandle, offset: u64, size: u32) -> Answer<Vec<u8>> {
        let file = self.file(handle)?;
        let mut content = vec![0; size as usize];
        let mut length = 0;
        while let Some(rest) = content.get_mut(length..)
            && !rest.is_empty()
        {
            match file.read_at(rest, offset + length as u64).map_err(of_io)? {
                0 => break,
                count => length += count,
            }
        }
        content.truncate(length);
        Ok(content)
    }

    fn list(&self, folder: INodeNo) -> Answer<Vec<(u64, FileType, Vec<u8>)>> {
        let node = self.node(folder)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let opened = sys::open(through(&node), flags, Mode::empty()).map_err(errno)?;
        let mut found = Vec::new();
        for entry in Dir::new(opened).map_err(errno)? {
            let entry = entry.map_err(errno)?;
            let kind = match entry.file_type() {
                sys::FileType::Directory => FileType::Directory,
                sys::FileType::Symlink => FileType::Symlink,
                _ => FileType::RegularFile,
            };
            found.push((entry.ino(), kind, entry.file_name().to_bytes().to_vec()));
        }
        Ok(found)
    }
}

/// The flags of the caller as they are for the file behind.
fn opening(flags: i32) -> OFlags {
    let flags = OFlags::from_bits_retain(flags.cast_unsigned());
    (flags - OFlags::DIRECT) | OFlags::CLOEXEC
}

/// Decodes requests, and replies.
struct Adapter(Arc<State>);

/// Nothing is believed for longer than one call.
const VALID: Duration = Duration::ZERO;

fn entry(reply: ReplyEntry, answer: Answer<FileAttr>) {
    match answer {
        Ok(found) => reply.entry(&VALID, &found, Generation(0)),
        Err(error) => reply.error(error),
    }
}

fn done(reply: ReplyEmpty, answer: Answer<()>) {
    match answer {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error),
    }
}

fn opened(reply: ReplyOpen, answer: Answer<FileHandle>) {
    match answer {
        Ok(handle) => reply.opened(handle, FopenFlags::empty()),
        Err(error) => reply.error(error),
    }
}

impl Filesystem for Adapter {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        entry(reply, self.0.lookup(parent, name));
    }

    fn getattr(&self, _: &Request, node: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.0.attributes(node) {
            Ok(found) => reply.attr(&VALID, &found),
            Err(error) => reply.error(error),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        node: INodeNo,
        mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        match self.0.change(node, mode, size, [atime, mtime]) {
            Ok(found) => reply.attr(&VALID, &found),
            Err(error) => reply.error(error),
        }
    }

    fn readlink(&self, _: &Request, node: INodeNo, reply: ReplyData) {
        let target = self.0.node(node).and_then(|node| {
            let target = sys::readlinkat(&*node, "", Vec::new());
            target.map_err(errno)
        });
        match target {
            Ok(target) => reply.data(target.as_bytes()),
            Err(error) => reply.error(error),
        }
    }

    fn mkdir(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        entry(reply, self.0.make_folder(parent, name, mode));
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        done(reply, self.0.remove(parent, name, AtFlags::empty()));
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        done(reply, self.0.remove(parent, name, AtFlags::REMOVEDIR));
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        done(
            reply,
            self.0.rename((parent, name), (new_parent, new_name), flags),
        );
    }

    fn link(
        &self,
        _: &Request,
        node: INodeNo,
        new_parent: INodeNo,
        new_name: &OsStr,
        reply: ReplyEntry,
    ) {
        entry(reply, self.0.link(node, new_parent, new_name));
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        match self.0.create(parent, name, mode, flags) {
            Ok((found, handle)) => {
                reply.created(&VALID, &found, Generation(0), handle, FopenFlags::empty());
            }
            Err(error) => reply.error(error),
        }
    }

    fn open(&self, _: &Request, node: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        opened(reply, self.0.open(node, flags.0));
    }

    fn read(
        &self,
        _: &Request,
        _node: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.0.read(handle, offset, size) {
            Ok(content) => reply.data(&content),
            Err(error) => reply.error(error),
        }
    }

    fn write(
        &self,
        _: &Request,
        _node: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let written = self.0.file(handle).and_then(|file| {
            file.write_all_at(data, offset).map_err(of_io)?;
            u32::try_from(data.len()).map_err(|_| Errno::EINVAL)
        });
        match written {
            Ok(count) => reply.written(count),
            Err(error) => reply.error(error),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn release(
        &self,
        _: &Request,
        _node: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        let mut files = self.0.files.lock().expect("nothing panics with it");
        files.remove(&handle.0);
        reply.ok();
    }

    fn fsync(&self, _: &Request, node: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.0.note(Change::Flushed(node.0));
        reply.ok();
    }

    fn readdir(
        &self,
        _: &Request,
        node: INodeNo,
        _handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let found = match self.0.list(node) {
            Ok(found) => found,
            Err(error) => return reply.error(error),
        };
        let skipped = usize::try_from(offset).unwrap_or(usize::MAX);
        for (place, (number, kind, name)) in found.into_iter().enumerate().skip(skipped) {
            let name = <OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(&name);
            if reply.add(INodeNo(number), place as u64 + 1, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn fsyncdir(&self, _: &Request, node: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        let flushed = self.0.node(node).map(|node| {
            self.0.note(Change::NamesFlushed(self.0.path(&node)));
        });
        done(reply, flushed);
    }
}
