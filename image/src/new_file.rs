//! A new file at a path of the user's: written under a temporary name beside the path, named when complete.

use std::io::ErrorKind;
use std::path::Path;

use pcocc_core::beneath::{OpenFolder, TempFile};

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
pub(crate) fn create(path: &Path, prefix: &str) -> Result<TempFile> {
    if std::fs::symlink_metadata(path).is_ok() {
        return Err(Error::Exists(path.display().to_string()));
    }
    let folder = folder_of(path);
    OpenFolder::open(folder)
        .and_then(|folder| folder.temp(prefix, 0o666))
        .map_err(Error::io("create a file in", folder))
}

/// Gives a complete file the name `path`, which must still be free.
pub(crate) fn publish(mut temp: TempFile, path: &Path) -> Result<()> {
    let name = path.file_name().unwrap_or_default();
    OpenFolder::open(folder_of(path))
        .and_then(|folder| temp.create_new(&folder, name))
        .map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => Error::Exists(path.display().to_string()),
            _ => Error::io("create", path)(error),
        })
}
