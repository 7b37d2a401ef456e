//! The root file system of a container, while it is a folder of the host, and the mounts in it.
//!
//! Mounts of the host are cloned as open files before the image hides them, and attached to mount points below the
//! root. No symbolic link leads out of the root.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::mount::{MoveMountFlags, OpenTreeFlags, UnmountFlags};

use super::FAILED;
use super::prepare::Target;
use super::stop::{Stop, failed};
use super::sys;

/// Device files of the host that every container gets.
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

    /// Opens a path of the container; links in a mount do not lead out of the container.
    pub(super) fn open(&self, path: &Path) -> io::Result<OwnedFd> {
        let path = path.strip_prefix("/").unwrap_or(path);
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let found = rustix::fs::openat2(&self.folder, path, flags, Mode::empty(), resolve);
        Ok(found?)
    }

    /// Opens a mount point; one on a file system in memory is made if it is missing.
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

    /// Makes this the root of the process and detaches the host's root.
    pub(super) fn become_root(self) -> Result<(), Stop> {
        let what = "cannot enter the image";
        rustix::process::fchdir(&self.folder).map_err(failed(what))?;
        match rustix::process::pivot_root(".", ".") {
            Ok(()) => rustix::mount::unmount(".", UnmountFlags::DETACH).map_err(failed(what))?,
            // The host's root is the initial file system, which cannot be moved: it is covered.
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

/// Clones the mount of the host at `path`, with all mounts below it, and sets `attributes` on the clone.
pub(super) fn clone_mount(path: &Path, attributes: u64) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    clone_mount_at(&rustix::fs::open(path, flags, Mode::empty())?, attributes)
}

pub(super) fn clone_mount_at(place: &OwnedFd, attributes: u64) -> io::Result<OwnedFd> {
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

/// Attaches a cloned mount to a mount point in the container.
pub(super) fn attach(taken: &OwnedFd, place: &OwnedFd) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(rustix::mount::move_mount(taken, c"", place, c"", flags)?)
}

/// Clones the host's device files; those the host lacks are left out.
pub(super) fn clone_devices() -> Vec<(&'static str, OwnedFd)> {
    let take = |name: &'static str| {
        let path = Path::new("/dev").join(name);
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let file = rustix::fs::open(&path, flags, Mode::empty()).ok()?;
        let kind = FileType::from_raw_mode(rustix::fs::fstat(&file).ok()?.st_mode);
        let taken = clone_mount_at(&file, 0).ok()?;
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
        attach(device, &place)?;
    }
    Ok(())
}
