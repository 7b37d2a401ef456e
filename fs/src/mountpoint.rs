//! The folder of a mount: whether it can be used, what is mounted there, and unmounting.

use std::fs;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use pcocc_layers::Digest;
use rustix::io::Errno;
use rustix::mount::UnmountFlags;

use crate::mount_error::MountError;

/// Type and source of our mounts in `/proc/self/mountinfo`. `fusermount3` sets the subtype, a direct mount by
/// root does not.
const OURS: [(&str, &str); 2] = [("fuse.pcocc", "pcocc"), ("fuse", "pcocc")];

/// How long another process may hold the lock.
const PATIENCE: Duration = Duration::from_secs(5);

/// The right to mount or unmount on a path. One process at a time has it, until the value is dropped.
///
/// The lock is the name of a socket without a file: it ends with its process, keeps no folder busy and leaves
/// nothing behind.
#[derive(Debug)]
pub(crate) struct MountLock(
    #[expect(dead_code, reason = "the name is free when it is closed")] UnixDatagram,
);

impl MountLock {
    /// Waits for the lock of an absolute path.
    pub(crate) fn take(path: &Path) -> Result<Self, MountError> {
        let user = rustix::process::geteuid().as_raw();
        let digest = Digest::of(path.as_os_str().as_bytes()).hex();
        let address = SocketAddr::from_abstract_name(format!("pcocc-mount-{user}-{digest}"))
            .map_err(MountError::io("lock", path))?;
        let until = Instant::now() + PATIENCE;
        loop {
            match UnixDatagram::bind_addr(&address) {
                Ok(socket) => return Ok(Self(socket)),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                Err(error) => return Err(MountError::io("lock", path)(error)),
            }
            if Instant::now() > until {
                return Err(MountError::point(
                    path,
                    "is being mounted by another process; try again",
                ));
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}

/// A mount in `/proc/self/mountinfo`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MountedAt {
    /// Mount ID and device, unique while the mount exists.
    pub(crate) id: String,
    /// Type of the file system.
    pub(crate) kind: String,
    /// The mount's source.
    pub(crate) source: String,
}

impl MountedAt {
    /// Reads a line of mountinfo about `path`.
    fn parse(line: &[u8], path: &Path) -> Option<Self> {
        let fields: Vec<_> = line.split(|byte| *byte == b' ').collect();
        if unescape(fields.get(4)?) != path.as_os_str().as_bytes() {
            return None;
        }
        let text = |index: usize| {
            let field = fields.get(index)?;
            Some(String::from_utf8_lossy(field).into_owned())
        };
        let rest = fields.iter().position(|field| *field == b"-")?;
        Some(Self {
            id: format!("{} {}", text(0)?, text(2)?),
            kind: text(rest + 1)?,
            source: text(rest + 2)?,
        })
    }

    /// Whether the mount is a tree of ours.
    pub(crate) fn is_ours(&self) -> bool {
        OURS.contains(&(&self.kind, &self.source))
    }
}

/// Checks the mount point and unmounts a stale mount. While the lock is held, no other `pcocc` of the user
/// mounts there, or unmounts a mount that it takes for dead.
pub(crate) fn prepare(path: &Path) -> Result<(PathBuf, MountLock), MountError> {
    let path = absolute(path)?;
    let lock = MountLock::take(&path)?;
    if let Some(mounted) = mount_at(&path)? {
        if !mounted.is_ours() {
            return Err(MountError::point(
                &path,
                format!(
                    "holds another file system ({}); choose an empty folder",
                    mounted.kind
                ),
            ));
        }
        if !is_dead(&path) {
            return Err(MountError::point(
                &path,
                "is mounted already; use it, or unmount it first",
            ));
        }
        tracing::info!(mountpoint = %path.display(), "a stale mount is replaced");
        unmount_now(&path)?;
    }
    match fs::metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(MountError::point(&path, "does not exist; create it first"));
        }
        Err(error) => return Err(MountError::io("look at", &path)(error)),
        Ok(found) if !found.is_dir() => {
            return Err(MountError::point(&path, "is not a folder"));
        }
        Ok(found) if !may_mount_on(&found) => {
            return Err(MountError::point(
                &path,
                "belongs to another user; choose an empty folder of your own",
            ));
        }
        Ok(_) => {}
    }
    let mut names = fs::read_dir(&path).map_err(MountError::io("list", &path))?;
    if names.next().is_some() {
        return Err(MountError::point(
            &path,
            "is not empty; choose an empty folder",
        ));
    }
    Ok((path, lock))
}

/// Root may mount anywhere, other users on their own folders.
fn may_mount_on(folder: &fs::Metadata) -> bool {
    let user = rustix::process::geteuid();
    user.is_root() || folder.uid() == user.as_raw()
}

/// Resolves all but the last name, which may be a mount point that does not answer.
pub(crate) fn absolute(path: &Path) -> Result<PathBuf, MountError> {
    let full = std::path::absolute(path).map_err(MountError::io("find", path))?;
    match (full.parent(), full.file_name()) {
        (Some(parent), Some(name)) => {
            let parent = parent
                .canonicalize()
                .map_err(MountError::io("find", parent))?;
            let candidate = parent.join(name);
            match fs::symlink_metadata(&candidate) {
                Ok(found) if found.is_symlink() => candidate
                    .canonicalize()
                    .map_err(MountError::io("find", &candidate)),
                _ => Ok(candidate),
            }
        }
        _ => Err(MountError::point(&full, "cannot be mounted on")),
    }
}

/// The file system mounted exactly at `path` (proc_pid_mountinfo(5)).
pub(crate) fn mount_at(path: &Path) -> Result<Option<MountedAt>, MountError> {
    let table = Path::new("/proc/self/mountinfo");
    let text = fs::read(table).map_err(MountError::io("read", table))?;
    // The last mount covers the others.
    let found = text
        .split(|byte| *byte == b'\n')
        .filter_map(|line| MountedAt::parse(line, path))
        .next_back();
    Ok(found)
}

/// The mount points of our trees that this process sees; the mounts are not asked whether they still answer.
pub fn mount_points() -> io::Result<Vec<PathBuf>> {
    Ok(mounts_of(&fs::read("/proc/self/mountinfo")?))
}

/// The mount points of our trees in the text of a mountinfo.
pub(crate) fn mounts_of(mountinfo: &[u8]) -> Vec<PathBuf> {
    let lines = mountinfo.split(|byte| *byte == b'\n');
    lines
        .filter_map(|line| {
            let field = line.split(|byte| *byte == b' ').nth(4)?;
            let path = PathBuf::from(std::ffi::OsString::from_vec(unescape(field)));
            MountedAt::parse(line, &path)?.is_ours().then_some(path)
        })
        .collect()
}

/// Whether the process behind the file system at `path` is gone. The kernel may still know the folder's
/// attributes, so the folder is listed.
pub fn is_dead(path: &Path) -> bool {
    let gone = [Errno::NOTCONN, Errno::CONNABORTED].map(|errno| Some(errno.raw_os_error()));
    matches!(fs::read_dir(path), Err(error) if gone.contains(&error.raw_os_error()))
}

/// Decodes the octal escapes of mountinfo.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        let octal = (*first == b'\\')
            .then(|| tail.get(..3))
            .flatten()
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match octal {
            Some(byte) => {
                plain.push(byte);
                rest = tail.get(3..).unwrap_or_default();
            }
            None => {
                plain.push(*first);
                rest = tail;
            }
        }
    }
    plain
}

/// Unmounts the tree at `mountpoint`, even a stale one.
pub fn unmount(mountpoint: &Path) -> Result<(), MountError> {
    let mountpoint = absolute(mountpoint)?;
    match mount_at(&mountpoint)? {
        Some(mounted) if mounted.is_ours() => unmount_now(&mountpoint),
        Some(mounted) => Err(MountError::point(
            &mountpoint,
            format!(
                "holds another file system ({}); unmount it with umount",
                mounted.kind
            ),
        )),
        None => Err(MountError::point(&mountpoint, "has nothing mounted on it")),
    }
}

/// Removes a mount from sight at once, even while a process uses it.
pub(crate) fn unmount_now(path: &Path) -> Result<(), MountError> {
    match rustix::mount::unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        Ok(()) => return Ok(()),
        Err(Errno::PERM) => {}
        // The mount is gone already.
        Err(Errno::INVAL) => return Ok(()),
        Err(error) => return Err(MountError::io("unmount", path)(error.into())),
    }
    let output = Command::new("fusermount3")
        .args(["-u", "-z", "--"])
        .arg(path)
        .output()
        .map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => MountError::missing_helper(),
            _ => MountError::io("run fusermount3 for", path)(error),
        })?;
    if output.status.success() || mount_at(path)?.is_none() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(MountError::point(
        path,
        format!("cannot be unmounted: {text}"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_mountinfo_are_read() {
        assert_eq!(unescape(br"/a\040b\134c"), br"/a b\c");
        assert_eq!(unescape(br"/a\9"), br"/a\9");
        let line = br"412 31 0:57 / /home/a\040b rw,nosuid - fuse.pcocc pcocc rw,user_id=1";
        let found = MountedAt::parse(line, Path::new("/home/a b")).unwrap();
        assert_eq!(found.id, "412 0:57");
        assert!(found.is_ours());
        assert_eq!(MountedAt::parse(line, Path::new("/home")), None);
        assert_eq!(MountedAt::parse(b"", Path::new("/home")), None);
    }

    #[test]
    fn a_mount_point_that_cannot_be_one_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        for (path, why) in [
            (file, "is not a folder"),
            (folder.path().join("none"), "does not exist"),
            (folder.path().to_owned(), "is not empty"),
            ("/proc".into(), "holds another file system"),
        ] {
            let error = prepare(&path).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
        let error = unmount(folder.path()).unwrap_err().to_string();
        assert!(error.contains("nothing mounted"), "{error}");
    }

    #[test]
    fn a_lock_is_held_by_one_process_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let first = MountLock::take(folder.path()).unwrap();
        let waiting = {
            let path = folder.path().to_owned();
            thread::spawn(move || MountLock::take(&path).map(|_| Instant::now()))
        };
        thread::sleep(Duration::from_millis(60));
        let let_go = Instant::now();
        drop(first);
        assert!(waiting.join().unwrap().unwrap() >= let_go);
    }
}
