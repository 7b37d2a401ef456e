//! Files below a folder, without following a link.
//!
//! openat2(2) does it in one call. Containers write into folders of docker's, though not into those of images.

use std::fs::File;
use std::io::{self, Read as _, Write};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fcntl_setfl, fstat, openat, openat2};
use rustix::io::Errno;

use super::Error;

/// Tries before a path that others keep renaming counts as unusable.
const TRIES: u32 = 64;

/// Bytes that are read at once.
const BUFFER: usize = 128 << 10;

/// A folder that is held open.
#[derive(Debug)]
pub(super) struct Folder(OwnedFd);

impl Folder {
    /// Opens a folder by its path, which may lead through links.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self(openat(CWD, path, flags, Mode::empty())?))
    }

    /// Opens a folder below.
    pub(super) fn folder(&self, path: &str) -> io::Result<Self> {
        let fd = self.resolve(path.as_bytes(), OFlags::PATH | OFlags::DIRECTORY)?;
        Ok(Self(fd))
    }

    /// Opens a regular file below for reading, and gives its size. A pipe in its place is not waited for.
    pub(super) fn file(&self, path: &[u8]) -> io::Result<(File, u64)> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = match self.resolve(path, flags) {
            // A socket.
            Err(Errno::NXIO) => return Err(not_regular()),
            opened => opened?,
        };
        let found = fstat(&file)?;
        if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile {
            return Err(not_regular());
        }
        fcntl_setfl(&file, OFlags::empty())?;
        let size = u64::try_from(found.st_size).map_err(io::Error::other)?;
        Ok((file.into(), size))
    }

    fn resolve(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        let path = std::ffi::OsStr::from_bytes(path);
        let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        for _ in 0..TRIES {
            match openat2(self.0.as_fd(), path, flags, Mode::empty(), how) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                result => return result,
            }
        }
        Err(Errno::AGAIN)
    }
}

/// Copies the `bytes` bytes of a file to `out`, by way of `buffer`.
pub(super) fn copy(
    file: &mut File,
    bytes: u64,
    what: &str,
    buffer: &mut Vec<u8>,
    out: &mut dyn Write,
) -> Result<(), Error> {
    buffer.resize(BUFFER, 0);
    let mut left = bytes;
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(BUFFER).min(BUFFER);
        let into = buffer.get_mut(..most).unwrap_or_default();
        let read = file.read(into).map_err(Error::read(what))?;
        if read == 0 {
            return Err(Error::invalid(what, "it ends too early"));
        }
        let bytes = into.get(..read).unwrap_or_default();
        out.write_all(bytes).map_err(Error::Send)?;
        left -= read as u64;
    }
    Ok(())
}

fn not_regular() -> io::Error {
    io::Error::other("it is no regular file")
}
