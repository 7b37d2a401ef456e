//! The system calls that file systems and kernels answer in more than one way; tests choose the answer.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{self, AtFlags, Mode, OFlags, RenameFlags, ResolveFlags};
#[cfg(test)]
use rustix::io::Errno;
use rustix::io::Result;

/// openat2(2), confined to what lies below `folder` and reached without links.
pub(super) fn openat2(
    folder: impl AsFd,
    path: &Path,
    flags: OFlags,
    mode: Mode,
) -> Result<OwnedFd> {
    #[cfg(test)]
    if faults::is_set(faults::Fault::NoOpenat2) {
        return Err(Errno::NOSYS);
    }
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    fs::openat2(folder, path, flags | OFlags::CLOEXEC, mode, resolve)
}

/// mkdirat(2).
pub(super) fn mkdir(folder: impl AsFd, name: &Path, mode: Mode) -> Result<()> {
    let result = fs::mkdirat(folder, name, mode);
    #[cfg(test)]
    if result.is_ok() && faults::is_set(faults::Fault::LostReplies) {
        return Err(Errno::EXIST);
    }
    result
}

/// linkat(2) of names in two folders; links are linked, not followed.
pub(super) fn link(from: impl AsFd, name: &Path, to: impl AsFd, new: &Path) -> Result<()> {
    #[cfg(test)]
    if faults::is_set(faults::Fault::NoHardLinks) {
        return Err(Errno::OPNOTSUPP);
    }
    let result = fs::linkat(from, name, to, new, AtFlags::empty());
    #[cfg(test)]
    if result.is_ok() && faults::is_set(faults::Fault::LostReplies) {
        return Err(Errno::EXIST);
    }
    result
}

/// renameat2(2) of names in two folders.
pub(super) fn rename(
    from: impl AsFd,
    name: &Path,
    to: impl AsFd,
    new: &Path,
    flags: RenameFlags,
) -> Result<()> {
    let result = match flags.is_empty() {
        true => fs::renameat(from, name, to, new),
        false => fs::renameat_with(from, name, to, new, flags),
    };
    #[cfg(test)]
    if result.is_ok() && faults::is_set(faults::Fault::LostReplies) {
        return Err(Errno::NOENT);
    }
    result
}

/// unlinkat(2).
pub(super) fn unlink(folder: impl AsFd, name: &Path, flags: AtFlags) -> Result<()> {
    let result = fs::unlinkat(folder, name, flags);
    #[cfg(test)]
    if result.is_ok() && faults::is_set(faults::Fault::LostReplies) {
        return Err(Errno::NOENT);
    }
    result
}

/// What kernels and file systems can do to the calls above.
#[cfg(test)]
pub(super) mod faults {
    use std::cell::Cell;

    /// A fault.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) enum Fault {
        /// A kernel before 5.6.
        NoOpenat2,
        /// A file system without hard links.
        NoHardLinks,
        /// NFS: the call works, its reply is lost, and the answer to its repetition is an error (open(2), O_EXCL).
        LostReplies,
    }

    thread_local! {
        static FAULT: Cell<Option<Fault>> = const { Cell::new(None) };
    }

    pub(super) fn is_set(fault: Fault) -> bool {
        FAULT.get() == Some(fault)
    }

    /// Runs `body` with the fault in this thread.
    pub(crate) fn with<T>(fault: Fault, body: impl FnOnce() -> T) -> T {
        FAULT.set(Some(fault));
        let result = body();
        FAULT.set(None);
        result
    }
}
