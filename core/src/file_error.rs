//! A failed operating-system call on a file.

use std::io;
use std::path::PathBuf;

/// A failed call. Displays as `write /path: No space left on device`.
#[derive(Debug, thiserror::Error)]
#[error("{action} {}: {source}", path.display())]
pub struct FileError {
    /// What was tried, such as `write`.
    pub action: &'static str,
    /// On which file.
    pub path: PathBuf,
    /// The system's error.
    pub source: io::Error,
}

impl FileError {
    /// Makes a closure for `map_err` that names the call and the file.
    pub fn of<E: From<Self>>(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> E {
        let path = path.into();
        move |source| {
            E::from(Self {
                action,
                path,
                source,
            })
        }
    }
}
