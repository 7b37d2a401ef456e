//! A new file at a path of the user's: written under a temporary name beside the path, named when complete.

use std::fs::Permissions;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use pcocc_core::publish;
use tempfile::NamedTempFile;

use crate::error::{Error, Result};

/// The folder that holds `path`, or shall hold it.
pub(crate) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Starts the new file `path`, as readable as the umask allows; the file is gone when dropped.
///
/// Fails with [`Error::Exists`] when the path is taken.
pub(crate) fn create(path: &Path, prefix: &str) -> Result<NamedTempFile> {
    if std::fs::symlink_metadata(path).is_ok() {
        return Err(Error::Exists(path.display().to_string()));
    }
    let folder = folder_of(path);
    tempfile::Builder::new()
        .prefix(prefix)
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(folder)
        .map_err(Error::io("create a file in", folder))
}

/// Gives a complete file the name `path`, which must still be free.
pub(crate) fn publish(temp: NamedTempFile, path: &Path) -> Result<()> {
    temp.as_file()
        .sync_all()
        .map_err(Error::io("write", path))?;
    temp.persist_noclobber(path)
        .map_err(|error| match error.error.kind() {
            ErrorKind::AlreadyExists => Error::Exists(path.display().to_string()),
            _ => Error::io("create", path)(error.error),
        })?;
    let full = std::path::absolute(path).map_err(Error::io("open", path))?;
    publish::sync_parent(&full).map_err(Error::io("write", path))
}
