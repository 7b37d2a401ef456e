//! A file in the making, and how it gets its name.
//!
//! Phases: [`OpenFolder::temp`] → write → [`TempFile::replace`] (rename, may replace) or [`TempFile::create_new`] (link,
//! never replaces), both after `fsync`, both followed by an `fsync` of the folder. A crash at any instant leaves either the old
//! state or the new one, and at most a temporary file that garbage collection finds. No locks: works between machines on
//! NFS and Lustre.
//!
//! An NFS server may do what it is asked although its answer is lost. The client asks again, and LINK then says EEXIST,
//! RENAME and REMOVE say ENOENT. Whether the name is that of our file tells such an answer from the truth.

use std::ffi::OsString;
use std::fs::File;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::{Found, OpenFolder, calls, resolve};

/// Names that are tried for a temporary file.
const TRIES: u32 = 100;

/// A file under a temporary name, which goes when this is dropped unless it was published.
#[derive(Debug)]
pub struct TempFile {
    folder: OpenFolder,
    name: OsString,
    file: File,
    is_named: bool,
}

/// Sixteen digits that nobody can guess.
pub(super) fn random() -> String {
    // Keyed by the system's random numbers, once for each thread and then counted on.
    format!("{:016x}", RandomState::new().build_hasher().finish())
}

/// Has `make` make something under a name that is free.
pub(super) fn named<T>(
    prefix: &str,
    make: impl Fn(&OsString) -> io::Result<T>,
) -> io::Result<(OsString, T)> {
    let mut tries = 0;
    loop {
        let name = OsString::from(format!("{prefix}{}", random()));
        match make(&name) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && tries < TRIES => {
                tries += 1;
            }
            result => return result.map(|made| (name, made)),
        }
    }
}

impl OpenFolder {
    /// Makes a file named `prefix` and a random number, with the permission bits `mode` as the umask allows.
    pub fn temp(&self, prefix: &str, mode: u32) -> io::Result<TempFile> {
        let (name, file) = named(prefix, |name| self.create_file(name, mode))?;
        Ok(TempFile {
            folder: self.clone(),
            name,
            file,
            is_named: true,
        })
    }
}

impl TempFile {
    /// Makes a file that only the user can read in the folder `path`, which is private to the user.
    pub fn new_in(path: &Path) -> io::Result<Self> {
        OpenFolder::open(path)?.temp(".tmp-", 0o600)
    }

    /// The file.
    pub fn as_file(&self) -> &File {
        &self.file
    }

    /// The file.
    pub fn as_file_mut(&mut self) -> &mut File {
        &mut self.file
    }

    /// Its place, for messages.
    pub fn path(&self) -> PathBuf {
        self.folder.path().join(&self.name)
    }

    /// A path by which children of this process reach this very file, whatever becomes of its names.
    pub fn path_for_children(&self) -> PathBuf {
        path_for_children(&self.file)
    }

    /// Opens the file once more, at its start, for reading and writing.
    pub fn reopen(&self) -> io::Result<File> {
        let folder = self.folder.as_fd();
        let file = File::from(resolve::open(
            folder,
            Path::new(&self.name),
            OFlags::RDWR,
            Mode::empty(),
        )?);
        match self.is(&Found::of_file(&file)?)? {
            true => Ok(file),
            // Somebody else who may write to the folder took the name away.
            false => Err(Errno::NOENT.into()),
        }
    }

    /// Flushes the file and gives it the name `name` in `to`, replacing what was there.
    ///
    /// After an error the file still has its temporary name.
    pub fn replace(&mut self, to: &OpenFolder, name: impl AsRef<Path>) -> io::Result<()> {
        self.file.sync_all()?;
        self.rename(to, &name)?;
        to.sync_folder_of(name)
    }

    /// Gives the file the name `name` in `to`, replacing what was there. Nothing is flushed to disk.
    pub fn rename(&mut self, to: &OpenFolder, name: impl AsRef<Path>) -> io::Result<()> {
        let (parent, last) = resolve::parent(to.as_fd(), name.as_ref())?;
        let own = Path::new(&self.name);
        match calls::rename(
            self.folder.as_fd(),
            own,
            &parent,
            &last,
            RenameFlags::empty(),
        ) {
            Ok(()) => {}
            Err(Errno::NOENT) if self.is_at(to, name.as_ref())? => {}
            Err(error) => return Err(error.into()),
        }
        self.is_named = false;
        Ok(())
    }

    /// Flushes the file and gives it the name `name` in `to` unless that name exists.
    ///
    /// Fails with [`io::ErrorKind::AlreadyExists`] when another writer was first. After an error the file still has its
    /// temporary name.
    pub fn create_new(&mut self, to: &OpenFolder, name: impl AsRef<Path>) -> io::Result<()> {
        self.file.sync_all()?;
        let (parent, last) = resolve::parent(to.as_fd(), name.as_ref())?;
        let own = Path::new(&self.name);
        match calls::link(self.folder.as_fd(), own, &parent, &last) {
            Ok(()) => self.drop_name(),
            Err(Errno::EXIST) if self.is_at(to, name.as_ref())? => self.drop_name(),
            // Without hard links the kernel may still know how to rename without replacing.
            Err(
                error @ (Errno::OPNOTSUPP
                | Errno::PERM
                | Errno::ACCESS
                | Errno::MLINK
                | Errno::NOSYS),
            ) => {
                let flags = RenameFlags::NOREPLACE;
                match calls::rename(self.folder.as_fd(), own, &parent, &last, flags) {
                    Ok(()) => self.is_named = false,
                    Err(Errno::NOENT | Errno::EXIST) if self.is_at(to, name.as_ref())? => {
                        self.is_named = false;
                    }
                    Err(Errno::EXIST) => return Err(Errno::EXIST.into()),
                    // The link's error is the better explanation.
                    Err(_) => return Err(error.into()),
                }
            }
            Err(error) => return Err(error.into()),
        }
        to.sync_folder_of(name)
    }

    /// Whether `name` in `folder` is a name of this file.
    fn is_at(&self, folder: &OpenFolder, name: &Path) -> io::Result<bool> {
        match folder.stat(name) {
            Ok(found) => self.is(&found),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn is(&self, found: &Found) -> io::Result<bool> {
        let own = Found::of_file(&self.file)?;
        Ok(own.identity == found.identity && own.links > 0)
    }

    fn drop_name(&mut self) {
        if self.is_named {
            self.is_named = false;
            // One that stays is garbage, and garbage collection finds it.
            let name = Path::new(&self.name);
            if let Err(error) = calls::unlink(self.folder.as_fd(), name, AtFlags::empty())
                && error != Errno::NOENT
            {
                tracing::debug!(%error, path = %self.path().display(), "a temporary file stays");
            }
        }
    }
}

/// A path by which children of this process reach the open `file`, whatever becomes of its names (proc_pid_fd(5)).
pub fn path_for_children(file: &File) -> PathBuf {
    PathBuf::from(format!(
        "/proc/{}/fd/{}",
        std::process::id(),
        file.as_raw_fd()
    ))
}

impl Drop for TempFile {
    fn drop(&mut self) {
        self.drop_name();
    }
}

impl Write for TempFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Seek for TempFile {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.file.seek(position)
    }
}
