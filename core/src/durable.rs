//! Names of folders that survive a crash: each new one is flushed to disk with the folder that holds it.
//!
//! Files get their names as [`crate::beneath::TempFile`] says.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

/// Makes a folder and those above it that are missing, with the permission bits `mode` as the umask allows, and flushes each
/// new name to disk.
pub fn create_folders(path: &Path, mode: u32) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
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
        // Made by another process just now, which may not have flushed the name yet; or made by this call, whose reply an
        // NFS server lost.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {
            sync_parent(path)
        }
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
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

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
