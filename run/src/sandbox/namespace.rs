//! The first things a process does in a user namespace that was made for it.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountFlags, MountPropagationFlags};

/// User and group.
pub(super) type Ids = (u32, u32);

/// Those of this process, to be asked before it is in a namespace.
pub(super) fn ids() -> Ids {
    let user = rustix::process::geteuid().as_raw();
    (user, rustix::process::getegid().as_raw())
}

/// Gives this user namespace the one user and group an ordinary user may give it, the same as outside, and
/// keeps what is mounted from now on from others.
pub(super) fn set_up((user, group): Ids) -> io::Result<()> {
    fs::write("/proc/self/uid_map", format!("{user} {user} 1"))?;
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/gid_map", format!("{group} {group} 1"))?;
    let private = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    Ok(rustix::mount::mount_change("/", private)?)
}

/// Opens the device of FUSE. The kernel wants that in the namespace the device is mounted in.
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

/// Mounts what whoever has `device` serves on `place`.
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
