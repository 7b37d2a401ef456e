//! Publishing a file all at once: written beside its place, flushed to disk, then linked or renamed.
//!
//! Phases: a temporary file in a folder on the same file system → write → `fsync` → `rename` (may
//! replace) or `linkat` (never replaces) → `fsync` of the folder. A crash at any instant leaves
//! either the old state or the new one, and at most a temporary file that garbage collection finds.
//! No locks: works between machines on NFS and Lustre.

use std::fs::{self, File};
use std::io;
use std::path::Path;

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
/// in that case too.
pub fn create_new(temp: &Path, target: &Path) -> io::Result<()> {
    let linked = fs::hard_link(temp, target);
    // The temporary name has no further use, whoever won.
    let removed = fs::remove_file(temp);
    linked?;
    removed?;
    sync_parent(target)
}

/// Flushes the folder that holds `path`, so that a new name in it survives a crash.
pub fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}
