//! Errors about bytes: corrupt input, failed system calls, cancellation.

use std::io;
use std::path::{Path, PathBuf};

use pcocc_core::cancel::Cancelled;

/// Result of an operation on bytes.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an operation on bytes failed. Displays as a fragment that fits `failed to …: <error>`.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Input that is not what it claims to be: corrupt, hostile or unsupported.
    #[error("{what} {why}")]
    Invalid {
        /// The archive, layer, entry or digest at fault.
        what: String,
        /// What is wrong with it.
        why: String,
    },
    /// An operating-system call failed.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// What was tried, such as `write`.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The operation was cancelled before it was complete.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

impl Error {
    /// Makes [`Error::Invalid`].
    pub fn invalid(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Invalid {
            what: what.into(),
            why: why.into(),
        }
    }

    /// Makes a closure for `map_err` that names the call and the file.
    ///
    /// A typed error that travelled through an `io::Read` comes out as itself.
    pub fn io(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Self {
        let path = path.as_ref().to_owned();
        move |source| match source.downcast::<Self>() {
            Ok(error) => error,
            Err(source) => Self::Io {
                action,
                path,
                source,
            },
        }
    }

    /// The raw OS error number behind this error, when there is one.
    pub fn raw_os_error(&self) -> Option<i32> {
        match self {
            Self::Io { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }
}

/// Lets a typed error pass through code that only knows `io::Error`; [`Error::io`] unwraps it.
impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        io::Error::other(error)
    }
}
