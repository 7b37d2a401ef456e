//! The first steps of a process in its new user and mount namespace.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountFlags, MountPropagationFlags};

/// User and group.
pub(super) type Ids = (u32, u32);

/// User and group of this process, read before it enters a namespace.
pub(super) fn ids() -> Ids {
    let user = rustix::process::geteuid().as_raw();
    (user, rustix::process::getegid().as_raw())
}

/// Maps the user and the group to themselves, which an ordinary user may do, and hides later mounts from other
/// namespaces.
pub(super) fn set_up((user, group): Ids) -> io::Result<()> {
    fs::write("/proc/self/uid_map", format!("{user} {user} 1"))?;
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/gid_map", format!("{group} {group} 1"))?;
    let private = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    Ok(rustix::mount::mount_change("/", private)?)
}

/// Opens the FUSE device; the kernel requires this in the namespace in which the device is mounted.
pub(super) fn open_device() -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    rustix::fs::open("/dev/fuse", flags, Mode::empty()).map_err(|error| {
        let error = io::Error::from(error);
        io::Error::new(
            error.kind(),
            format!(
                "cannot open /dev/fuse: {error}; ask the administrator (modprobe fuse, mode 0666 of \
                 /dev/fuse)"
            ),
        )
    })
}

/// Mounts on `place` the file system served through `device`.
pub(super) fn mount_image(device: &OwnedFd, place: &Path, (user, group): Ids) -> io::Result<()> {
    let options = format!(
        "fd={},rootmode=40000,user_id={user},group_id={group},allow_other",
        device.as_raw_fd()
    );
    let options = CString::new(options)?;
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
    Ok(rustix::mount::mount(
        "pcocc",
        place,
        "fuse.pcocc",
        flags,
        &*options,
    )?)
}
