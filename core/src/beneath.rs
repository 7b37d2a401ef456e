//! Folders that others can write to: everything below such a folder is reached through its descriptor, and never through
//! a symbolic link.
//!
//! [`OpenFolder::open`] opens the root, which may itself be reached by a link: whoever configured the path chose it. Below
//! the root no link is followed, not even between two steps of one operation (`resolve.rs`). What should be a file is opened
//! without blocking and must be a regular file, so that a pipe cannot hold the program up nor a device feed it without end.
//! What is written gets its name as [`TempFile`] says.

mod calls;
mod found;
mod refusal;
mod resolve;
mod temp;
mod temp_folder;
#[cfg(test)]
mod tests;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{self, AtFlags, CWD, Dir, Mode, OFlags, RenameFlags};
use rustix::fs::{Timespec, Timestamps, UTIME_NOW};
use rustix::io::Errno;

pub use found::Found;
pub use refusal::Refusal;
pub use temp::{TempFile, path_for_children};
pub use temp_folder::TempFolder;

/// Levels of folders that are removed with as many descriptors open.
const DEPTH: usize = 64;

/// A folder that is held open. Clones share the descriptor. Names are paths relative to the folder.
#[derive(Clone, Debug)]
pub struct OpenFolder {
    fd: Arc<OwnedFd>,
    path: PathBuf,
}

impl Found {
    /// Looks at an open file.
    pub fn of_file(file: impl AsFd) -> io::Result<Self> {
        Ok(fs::fstat(file)?.into())
    }
}

impl OpenFolder {
    /// Opens a folder by its path, the last component and all before it followed when they are links.
    pub fn open(path: impl Into<PathBuf>) -> io::Result<Self> {
        let path = path.into();
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        // An empty path is a relative one's parent.
        let name = match path.as_os_str().is_empty() {
            true => Path::new("."),
            false => &path,
        };
        let fd = fs::openat(CWD, name, flags, Mode::empty())?;
        Ok(Self {
            fd: Arc::new(fd),
            path,
        })
    }

    /// Where it was opened, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The descriptor.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Opens a folder below.
    pub fn folder(&self, name: impl AsRef<Path>) -> io::Result<Self> {
        let name = name.as_ref();
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let fd = resolve::open(self.as_fd(), name, flags, Mode::empty())?;
        let fd = Arc::new(fd);
        let path = self.path.join(name);
        Ok(Self { fd, path })
    }

    /// Opens a folder below, after making it with the permission bits `mode` when it is missing. The folders above it must
    /// be there.
    pub fn folder_or_new(&self, name: impl AsRef<Path>, mode: u32) -> io::Result<Self> {
        let name = name.as_ref();
        match self.folder(name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            result => return result,
        }
        match self.create_folder(name, mode) {
            // Made by another process just now, which may not have flushed the name yet; or made by this call, whose reply
            // an NFS server lost.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.sync_folder_of(name)?;
            }
            made => made?,
        }
        self.folder(name)
    }

    /// Makes a folder below with the permission bits `mode` as the umask allows, and flushes its name to disk.
    pub fn create_folder(&self, name: impl AsRef<Path>, mode: u32) -> io::Result<()> {
        let (parent, last) = resolve::parent(self.as_fd(), name.as_ref())?;
        calls::mkdir(&parent, &last, Mode::from_raw_mode(mode))?;
        sync(parent.as_fd())
    }

    /// Opens a regular file below for reading.
    ///
    /// Fails with [`Refusal::NotRegular`] for anything else, without waiting for a pipe's other end.
    pub fn open_file(&self, name: impl AsRef<Path>) -> io::Result<File> {
        let (file, _) = self.open_unblocked(name.as_ref())?;
        fs::fcntl_setfl(&file, OFlags::empty())?;
        Ok(file)
    }

    fn open_unblocked(&self, name: &Path) -> io::Result<(File, Found)> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = match resolve::open(self.as_fd(), name, flags, Mode::empty()) {
            // A socket.
            Err(error) if is_errno(&error, Errno::NXIO) => return Err(Refusal::NotRegular.into()),
            opened => File::from(opened?),
        };
        let found = Found::of_file(&file)?;
        match found.is_file() {
            true => Ok((file, found)),
            false => Err(Refusal::NotRegular.into()),
        }
    }

    /// Makes a file below with the permission bits `mode` as the umask allows, open for reading and writing.
    ///
    /// Fails with [`io::ErrorKind::AlreadyExists`] when the name is taken.
    pub fn create_file(&self, name: impl AsRef<Path>, mode: u32) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
        let mode = Mode::from_raw_mode(mode);
        resolve::open(self.as_fd(), name.as_ref(), flags, mode).map(File::from)
    }

    /// Opens a regular file below for writing without changing its content, to be locked for instance; makes it when it is
    /// missing.
    pub fn open_or_create(&self, name: impl AsRef<Path>, mode: u32) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NONBLOCK | OFlags::NOCTTY;
        let mode = Mode::from_raw_mode(mode);
        let file = File::from(resolve::open(self.as_fd(), name.as_ref(), flags, mode)?);
        if !Found::of_file(&file)?.is_file() {
            return Err(Refusal::NotRegular.into());
        }
        fs::fcntl_setfl(&file, OFlags::empty())?;
        Ok(file)
    }

    /// Opens the folder or regular file `name` to lock it.
    pub fn open_to_lock(&self, name: impl AsRef<Path>) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let opened = resolve::open(self.as_fd(), name.as_ref(), flags, Mode::empty())?;
        let file = File::from(opened);
        let found = Found::of_file(&file)?;
        match found.is_file() || found.is_folder() {
            true => Ok(file),
            false => Err(Refusal::NotRegular.into()),
        }
    }

    /// Reads a regular file of at most `limit` bytes.
    pub fn read(&self, name: impl AsRef<Path>, limit: u64) -> io::Result<Vec<u8>> {
        let (file, found) = self.open_unblocked(name.as_ref())?;
        read_sized(file, found.size, limit)
    }

    /// Looks at what has the name; a link is looked at itself.
    pub fn stat(&self, name: impl AsRef<Path>) -> io::Result<Found> {
        let name = name.as_ref();
        let mut parts = name.components();
        if parts.next().is_some() && parts.next().is_none() {
            let (parent, last) = resolve::parent(self.as_fd(), name)?;
            return Ok(fs::statat(parent, &*last, AtFlags::SYMLINK_NOFOLLOW)?.into());
        }
        let fd = resolve::open(self.as_fd(), name, OFlags::PATH, Mode::empty())?;
        Found::of_file(fd)
    }

    /// Whether anything has the name. What cannot be looked at counts as there.
    pub fn has(&self, name: impl AsRef<Path>) -> bool {
        !matches!(self.stat(name), Err(error) if error.kind() == io::ErrorKind::NotFound)
    }

    /// The names in the folder, in no order.
    pub fn names(&self) -> io::Result<Vec<OsString>> {
        let mut names = Vec::new();
        for entry in Dir::new(readable(self.as_fd())?)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(OsStr::from_bytes(name).to_owned());
            }
        }
        Ok(names)
    }

    /// Renames `name` to `new` in the folder `to`, replacing what was there.
    pub fn rename(
        &self,
        name: impl AsRef<Path>,
        to: &Self,
        new: impl AsRef<Path>,
    ) -> io::Result<()> {
        let moved = self.stat(&name)?;
        let (from, old) = resolve::parent(self.as_fd(), name.as_ref())?;
        let (parent, last) = resolve::parent(to.as_fd(), new.as_ref())?;
        match calls::rename(&from, &old, &parent, &last, RenameFlags::empty()) {
            // The reply of an NFS server may have been lost: see `temp.rs`.
            Err(Errno::NOENT) if to.is_at(new.as_ref(), &moved) => Ok(()),
            result => Ok(result?),
        }
    }

    /// Gives `name` a second name `new` in the folder `to`, which must be free. Nothing is flushed to disk.
    pub fn link(&self, name: impl AsRef<Path>, to: &Self, new: impl AsRef<Path>) -> io::Result<()> {
        let (from, old) = resolve::parent(self.as_fd(), name.as_ref())?;
        let (parent, last) = resolve::parent(to.as_fd(), new.as_ref())?;
        match calls::link(&from, &old, &parent, &last) {
            Err(Errno::EXIST)
                if self
                    .stat(&name)
                    .is_ok_and(|own| own.links > 1 && to.is_at(new.as_ref(), &own)) =>
            {
                Ok(())
            }
            result => Ok(result?),
        }
    }

    fn is_at(&self, name: &Path, other: &Found) -> bool {
        self.stat(name)
            .is_ok_and(|found| found.identity == other.identity)
    }

    /// Removes a file's name.
    ///
    /// Fails with [`io::ErrorKind::NotFound`] when there is none.
    pub fn remove_file(&self, name: impl AsRef<Path>) -> io::Result<()> {
        let (parent, last) = resolve::parent(self.as_fd(), name.as_ref())?;
        // The reply of an NFS server may have been lost: the name must have been there.
        fs::statat(&parent, &*last, AtFlags::SYMLINK_NOFOLLOW)?;
        match calls::unlink(&parent, &last, AtFlags::empty()) {
            Err(Errno::NOENT) => Ok(()),
            result => Ok(result?),
        }
    }

    /// Removes an empty folder.
    ///
    /// Fails with [`io::ErrorKind::NotFound`] when there is none.
    pub fn remove_folder(&self, name: impl AsRef<Path>) -> io::Result<()> {
        let (parent, last) = resolve::parent(self.as_fd(), name.as_ref())?;
        // As for a file.
        fs::statat(&parent, &*last, AtFlags::SYMLINK_NOFOLLOW)?;
        match calls::unlink(&parent, &last, AtFlags::REMOVEDIR) {
            Err(Errno::NOENT) => Ok(()),
            result => Ok(result?),
        }
    }

    /// Removes whatever has the name, a folder with all in it; nothing happens when there is nothing. Links go, what they
    /// lead to stays.
    pub fn remove_all(&self, name: impl AsRef<Path>) -> io::Result<()> {
        let (parent, last) = match resolve::parent(self.as_fd(), name.as_ref()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            found => found?,
        };
        // What lies very deep is brought up here, so that few descriptors are enough for any depth.
        let mut brought_up = vec![last.into_owned()];
        while let Some(name) = brought_up.pop() {
            remove_tree(
                parent.as_fd(),
                &name,
                parent.as_fd(),
                DEPTH,
                &mut brought_up,
            )?;
        }
        Ok(())
    }

    /// Marks what has the name as used and changed now; a link is marked itself.
    pub fn touch(&self, name: impl AsRef<Path>) -> io::Result<()> {
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_NOW,
        };
        let times = Timestamps {
            last_access: now,
            last_modification: now,
        };
        let (parent, last) = resolve::parent(self.as_fd(), name.as_ref())?;
        Ok(fs::utimensat(
            parent,
            &*last,
            &times,
            AtFlags::SYMLINK_NOFOLLOW,
        )?)
    }

    /// Flushes the folder's names to disk.
    pub fn sync(&self) -> io::Result<()> {
        sync(self.as_fd())
    }

    /// Flushes the names of the folder that holds `name`, so that a new name in it survives a crash.
    pub fn sync_folder_of(&self, name: impl AsRef<Path>) -> io::Result<()> {
        let (parent, _) = resolve::parent(self.as_fd(), name.as_ref())?;
        sync(parent.as_fd())
    }
}

/// Opens the regular file at `path` for reading. Its folder may be reached by a link, the file may not.
///
/// Fails with [`Refusal::NotRegular`] for anything else, without waiting for a pipe's other end.
pub fn open_file(path: &Path) -> io::Result<File> {
    let name = path.file_name().unwrap_or_default();
    OpenFolder::open(path.parent().unwrap_or(path))?.open_file(name)
}

/// Opens the regular file at `path` so that what is written goes to its end; makes the file when it is missing, with the
/// permission bits `mode`.
pub fn append_to(path: &Path, mode: u32) -> io::Result<File> {
    let name = path.file_name().unwrap_or_default();
    let file = OpenFolder::open(path.parent().unwrap_or(path))?.open_or_create(name, mode)?;
    fs::fcntl_setfl(&file, OFlags::APPEND)?;
    Ok(file)
}

/// Reads an open file of at most `limit` bytes to its end.
pub fn read(file: File, limit: u64) -> io::Result<Vec<u8>> {
    let size = Found::of_file(&file)?.size;
    read_sized(file, size, limit)
}

fn read_sized(file: File, size: u64, limit: u64) -> io::Result<Vec<u8>> {
    if size > limit {
        return Err(Refusal::TooLarge(limit).into());
    }
    let mut content = Vec::with_capacity(usize::try_from(size).unwrap_or(0) + 1);
    // It may grow while it is read.
    file.take(limit.saturating_add(1))
        .read_to_end(&mut content)?;
    match content.len() as u64 > limit {
        true => Err(Refusal::TooLarge(limit).into()),
        false => Ok(content),
    }
}

fn remove_tree(
    folder: BorrowedFd<'_>,
    name: &Path,
    top: BorrowedFd<'_>,
    depth: usize,
    brought_up: &mut Vec<PathBuf>,
) -> io::Result<()> {
    match fs::unlinkat(folder, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        // Linux says the first, POSIX the second.
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    if depth == 0 {
        let new = PathBuf::from(format!(".removed-{}", temp::random()));
        fs::renameat(folder, name, top, &new)?;
        brought_up.push(new);
        return Ok(());
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = match fs::openat(folder, name, flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(()),
        // No folder after all: what could not be unlinked stays.
        Err(Errno::NOTDIR | Errno::LOOP) => return Err(Errno::PERM.into()),
        opened => opened?,
    };
    for entry in Dir::read_from(&opened)? {
        let entry = entry?;
        let below = entry.file_name().to_bytes();
        if below != b"." && below != b".." {
            let below = Path::new(OsStr::from_bytes(below));
            remove_tree(opened.as_fd(), below, top, depth - 1, brought_up)?;
        }
    }
    match fs::unlinkat(folder, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The same folder, to be listed or flushed.
fn readable(folder: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(fs::openat(folder, ".", flags, Mode::empty())?)
}

fn sync(folder: BorrowedFd<'_>) -> io::Result<()> {
    Ok(fs::fsync(readable(folder)?)?)
}

fn is_errno(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno.raw_os_error())
}
