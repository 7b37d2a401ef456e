//! From a path below a folder to a descriptor, without following a link.
//!
//! openat2(2) does it in one call. Kernels before 5.6, and sandboxes that do not know the call, get one openat(2) for
//! each component.

use std::borrow::Cow;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::calls;
use super::refusal::Refusal;

/// Whether the kernel lacks openat2(2).
static LACKS_OPENAT2: AtomicBool = AtomicBool::new(false);

/// Tries before a path that others keep renaming counts as unusable.
const TRIES: u32 = 64;

/// A folder that was given, or one on the way that was opened.
pub(super) enum Parent<'a> {
    Given(BorrowedFd<'a>),
    Opened(OwnedFd),
}

impl AsFd for Parent<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Given(fd) => *fd,
            Self::Opened(fd) => fd.as_fd(),
        }
    }
}

/// Opens `path` below `folder`; its last component is not followed either.
pub(super) fn open(
    folder: BorrowedFd<'_>,
    path: &Path,
    flags: OFlags,
    mode: Mode,
) -> io::Result<OwnedFd> {
    check(path)?;
    let flags = flags | OFlags::NOFOLLOW;
    if !LACKS_OPENAT2.load(Ordering::Relaxed) {
        for _ in 0..TRIES {
            match calls::openat2(folder, path, flags, mode) {
                Err(Errno::NOSYS) => {
                    // Tests pretend that the call is missing.
                    LACKS_OPENAT2.store(!cfg!(test), Ordering::Relaxed);
                    return by_components(folder, path, flags, mode).map_err(explain);
                }
                // Some sandboxes refuse calls that they do not know in the first way. The second is also said of a link in
                // place of a folder, and the other way of going tells them apart.
                Err(Errno::PERM | Errno::NOTDIR) => {
                    return by_components(folder, path, flags, mode).map_err(explain);
                }
                Err(Errno::AGAIN | Errno::INTR) => {}
                result => return result.map_err(explain),
            }
        }
    }
    by_components(folder, path, flags, mode).map_err(explain)
}

/// The folder that holds the last component of `path`, and that component.
pub(super) fn parent<'f, 'p>(
    folder: BorrowedFd<'f>,
    path: &'p Path,
) -> io::Result<(Parent<'f>, Cow<'p, Path>)> {
    check(path)?;
    let name = path.file_name().map(Path::new).unwrap_or(path);
    match path.parent() {
        None => Ok((Parent::Given(folder), Cow::Borrowed(name))),
        Some(parent) if parent.as_os_str().is_empty() => {
            Ok((Parent::Given(folder), Cow::Borrowed(name)))
        }
        Some(parent) => {
            let fd = open(
                folder,
                parent,
                OFlags::PATH | OFlags::DIRECTORY,
                Mode::empty(),
            )?;
            Ok((Parent::Opened(fd), Cow::Borrowed(name)))
        }
    }
}

/// Names below a folder are made by us or read out of a folder: other forms are mistakes.
fn check(path: &Path) -> io::Result<()> {
    let is_plain = path
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    match is_plain && !path.as_os_str().is_empty() {
        true => Ok(()),
        false => Err(Refusal::Outside.into()),
    }
}

fn by_components(
    folder: BorrowedFd<'_>,
    path: &Path,
    flags: OFlags,
    mode: Mode,
) -> Result<OwnedFd, Errno> {
    let mut parts = path
        .components()
        .map(|part| Path::new(part.as_os_str()))
        .peekable();
    let mut reached: Option<OwnedFd> = None;
    while let Some(part) = parts.next() {
        let from = reached.as_ref().map_or(folder, AsFd::as_fd);
        let (flags, mode) = match parts.peek() {
            Some(_) => (
                OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW,
                Mode::empty(),
            ),
            None => (flags, mode),
        };
        let opened = fs::openat(from, part, flags | OFlags::CLOEXEC, mode);
        // A link where a folder should be is reported as "not a directory".
        if matches!(opened, Err(Errno::NOTDIR)) && is_link(from, part) {
            return Err(Errno::LOOP);
        }
        reached = Some(opened?);
    }
    reached.ok_or(Errno::NOENT)
}

fn is_link(folder: BorrowedFd<'_>, name: &Path) -> bool {
    fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Symlink)
}

fn explain(error: Errno) -> io::Error {
    match error {
        Errno::LOOP => Refusal::Link.into(),
        Errno::XDEV => Refusal::Outside.into(),
        other => other.into(),
    }
}
