//! Publishing a file all at once: written beside its place, flushed to disk, then linked or renamed.
//!
//! Phases: a temporary file in a folder on the same file system → write → `fsync` → `rename` (may
//! replace) or `linkat` (never replaces) → `fsync` of the folder. A crash at any instant leaves
//! either the old state or the new one, and at most a temporary file that garbage collection finds.
//! No locks: works between machines on NFS and Lustre.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, RenameFlags, Timespec, Timestamps, UTIME_NOW, renameat_with, utimensat,
};
use rustix::io::Errno;

/// Renames `temp` to `target`, replacing what was there; both are on one file system.
///
/// `temp` must have been flushed by the caller.
pub fn replace(temp: &Path, target: &Path) -> io::Result<()> {
    fs::rename(temp, target)?;
    sync_parent(target)
}

/// Gives `temp` the name `target` unless that name exists, then drops the name `temp`.
///
/// Fails with [`io::ErrorKind::AlreadyExists`] when another writer was first; `temp` is removed
/// in that case too. After any other error it is still there.
pub fn create_new(temp: &Path, target: &Path) -> io::Result<()> {
    match fs::hard_link(temp, target) {
        Ok(()) => fs::remove_file(temp)?,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::remove_file(temp)?;
            return Err(error);
        }
        // Without hard links the kernel may still know how to rename without replacing.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::Unsupported
                    | io::ErrorKind::PermissionDenied
                    | io::ErrorKind::TooManyLinks
            ) =>
        {
            match renameat_with(CWD, temp, CWD, target, RenameFlags::NOREPLACE) {
                Ok(()) => {}
                Err(Errno::EXIST) => {
                    fs::remove_file(temp)?;
                    return Err(Errno::EXIST.into());
                }
                // The link's error is the better explanation.
                Err(_) => return Err(error),
            }
        }
        Err(error) => return Err(error),
    }
    sync_parent(target)
}

/// Marks a file or folder as used and changed now; a symbolic link is not followed.
pub fn touch(path: &Path) -> io::Result<()> {
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: UTIME_NOW,
    };
    let times = Timestamps {
        last_access: now,
        last_modification: now,
    };
    Ok(utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Makes a folder and those above it that are missing, with the permission bits `mode` as the umask allows, and flushes each
/// new name to disk.
pub fn create_folders(path: &Path, mode: u32) -> io::Result<()> {
    let create = || DirBuilder::new().mode(mode).create(path);
    let created = match (create(), path.parent()) {
        (Err(error), Some(parent))
            if error.kind() == io::ErrorKind::NotFound && !parent.as_os_str().is_empty() =>
        {
            create_folders(parent, mode)?;
            create()
        }
        (created, _) => created,
    };
    match created {
        Ok(()) => sync_parent(path),
        // Made by another process just now, or long ago.
        Err(_) if path.is_dir() => Ok(()),
        Err(error) => Err(error),
    }
}

/// Flushes the folder that holds `path`, so that a new name in it survives a crash.
pub fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => File::open(".")?.sync_all(),
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn only_the_first_creates_anyone_replaces() {
        let dir = tempfile::tempdir().unwrap();
        let (temp, target) = (dir.path().join("temp"), dir.path().join("target"));
        fs::write(&temp, "1").unwrap();
        create_new(&temp, &target).unwrap();
        fs::write(&temp, "2").unwrap();
        let error = create_new(&temp, &target).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert!(!temp.exists());
        assert_eq!(fs::read_to_string(&target).unwrap(), "1");
        fs::write(&temp, "3").unwrap();
        replace(&temp, &target).unwrap();
        assert_eq!(fs::read_to_string(&target).unwrap(), "3");
        fs::write(&temp, "4").unwrap();
        assert!(create_new(&temp, &dir.path().join("no/target")).is_err());
        assert!(temp.exists());
    }

    #[test]
    fn folders_are_made_as_far_as_they_are_missing() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("a/b/c");
        create_folders(&deep, 0o700).unwrap();
        create_folders(&deep, 0o700).unwrap();
        let mode = fs::metadata(dir.path().join("a"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o700);
        fs::write(deep.join("file"), "").unwrap();
        let error = create_folders(&deep.join("file/d"), 0o700).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotADirectory);
        assert!(create_folders(&deep.join("file"), 0o700).is_err());
        // A folder that is there, and in which nothing can be made.
        assert!(create_folders(Path::new("/proc/self/nowhere/below"), 0o700).is_err());
    }
}
