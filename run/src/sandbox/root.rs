//! The root file system of a container while it is still a folder of the host's, and what is mounted in it.
//!
//! Mounts are taken from the host as open files, before the image hides any, and put on places of the root file system.
//! A place is opened below the root: no symbolic link leads out of it.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::mount::{MoveMountFlags, OpenTreeFlags, UnmountFlags};

use super::FAILED;
use super::prepare::Target;
use super::stop::{Stop, failed};
use super::sys;

/// What the host's `/dev` must have for a program to feel at home.
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// Links in `/dev`, and where they lead.
const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// The root file system while it is still a folder.
#[derive(Debug)]
pub(super) struct Root {
    folder: OwnedFd,
    base: PathBuf,
}

impl Root {
    /// Opens the folder `base`, on which the root file system is mounted.
    pub(super) fn new(base: &Path) -> Result<Self, Stop> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = rustix::fs::open(base, flags, Mode::empty());
        Ok(Self {
            folder: folder.map_err(failed("cannot open the image"))?,
            base: base.to_owned(),
        })
    }

    /// Opens a path of the container as a place; links in what was mounted already do not lead out of it.
    pub(super) fn open(&self, path: &Path) -> io::Result<OwnedFd> {
        let path = path.strip_prefix("/").unwrap_or(path);
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let found = rustix::fs::openat2(&self.folder, path, flags, Mode::empty(), resolve);
        Ok(found?)
    }

    /// Opens the place of a mount, made when it is on a file system in memory.
    pub(super) fn place(&self, target: &Target) -> Result<OwnedFd, Stop> {
        let path = target.mount.destination.as_path();
        let what = || format!("cannot mount on {}", path.display());
        match self.open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && target.can_make => {
                self.make(path, target.is_folder).map_err(failed(what()))?;
                self.open(path).map_err(failed(what()))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Stop::new(
                FAILED,
                format!(
                    "{}: it is not there in the folder of the host that is mounted around it; make it \
                     there first",
                    what()
                ),
            )),
            result => result.map_err(failed(what())),
        }
    }

    fn make(&self, path: &Path, is_folder: bool) -> io::Result<()> {
        let mut missing = Vec::new();
        let mut above = path;
        let mut folder = loop {
            let (Some(parent), Some(name)) = (above.parent(), above.file_name()) else {
                return Err(io::ErrorKind::InvalidInput.into());
            };
            missing.push(name);
            above = parent;
            match self.open(above) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                result => break result?,
            }
        };
        while let Some(name) = missing.pop() {
            let mode = Mode::from_raw_mode(0o755);
            if missing.is_empty() && !is_folder {
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
                rustix::fs::openat(&folder, name, flags, mode)?;
                break;
            }
            rustix::fs::mkdirat(&folder, name, mode)?;
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            folder = rustix::fs::openat(&folder, name, flags, Mode::empty())?;
        }
        Ok(())
    }

    /// Makes it the root of this process, and lets go of the host's.
    pub(super) fn become_root(self) -> Result<(), Stop> {
        let what = "cannot enter the image";
        rustix::process::fchdir(&self.folder).map_err(failed(what))?;
        match rustix::process::pivot_root(".", ".") {
            Ok(()) => rustix::mount::unmount(".", UnmountFlags::DETACH).map_err(failed(what))?,
            // The host's root is its boot medium, which cannot be put elsewhere: it is covered.
            Err(rustix::io::Errno::INVAL) => {
                rustix::mount::mount_move(&self.base, "/").map_err(failed(what))?;
                rustix::process::chroot(".").map_err(failed(what))?;
            }
            Err(error) => return Err(failed(what)(error)),
        }
        rustix::process::chdir("/").map_err(failed(what))
    }
}

/// A path that leads to an open file, whatever was mounted in between.
pub(super) fn through_proc(file: &impl AsRawFd) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

/// Takes what is at `path` on the host, with all that is mounted below it, and gives it attributes.
pub(super) fn take(path: &Path, attributes: u64) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    take_at(&rustix::fs::open(path, flags, Mode::empty())?, attributes)
}

pub(super) fn take_at(place: &OwnedFd, attributes: u64) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE
        | OpenTreeFlags::AT_EMPTY_PATH;
    let taken = rustix::mount::open_tree(place, c"", flags)?;
    if attributes != 0 {
        sys::set_mount_attributes(taken.as_fd(), attributes)?;
    }
    Ok(taken)
}

/// Mounts what was taken on a place in the container.
pub(super) fn put(taken: &OwnedFd, place: &OwnedFd) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(rustix::mount::move_mount(taken, c"", place, c"", flags)?)
}

/// The host's device files, those that there are.
pub(super) fn take_devices() -> Vec<(&'static str, OwnedFd)> {
    let take = |name: &'static str| {
        let path = Path::new("/dev").join(name);
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let file = rustix::fs::open(&path, flags, Mode::empty()).ok()?;
        let kind = FileType::from_raw_mode(rustix::fs::fstat(&file).ok()?.st_mode);
        let taken = take_at(&file, 0).ok()?;
        (kind == FileType::CharacterDevice).then_some((name, taken))
    };
    DEVICES.into_iter().filter_map(take).collect()
}

pub(super) fn fill_devices(
    root: &Root,
    path: &Path,
    devices: &[(&str, OwnedFd)],
) -> io::Result<()> {
    let folder = root.open(path)?;
    for name in ["pts", "shm", "mqueue"] {
        rustix::fs::mkdirat(&folder, name, Mode::from_raw_mode(0o755))?;
    }
    for (name, target) in LINKS {
        rustix::fs::symlinkat(target, &folder, name)?;
    }
    for (name, device) in devices {
        let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
        let place = rustix::fs::openat(&folder, *name, flags, Mode::from_raw_mode(0o666))?;
        put(device, &place)?;
    }
    Ok(())
}
