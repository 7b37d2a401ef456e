//! What can go wrong with an image, typed so that the command line can choose an exit code and a
//! hint, and the file system an errno.

use std::io;
use std::path::{Path, PathBuf};

use pcocc_core::cancel::Cancelled;
use pcocc_layers::{Digest, Error as LayerError};

/// Result of an image operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an image operation failed. Displays as a fragment that fits `failed to …: <error>`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Input that is not what it claims to be: corrupt, hostile or unsupported.
    #[error("{what} {why}")]
    Invalid {
        /// The archive, manifest, entry or name at fault.
        what: String,
        /// What is wrong with it.
        why: String,
    },
    /// A blob's content is not what its descriptor says.
    #[error("blob {expected} is corrupt: its content is {found}")]
    Corrupt {
        /// Digest the blob was named by.
        expected: Digest,
        /// What was found instead: a digest, a size, or an end too early.
        found: String,
    },
    /// The image, repository, blob or file that was asked for is not there.
    #[error("{0} not found")]
    NotFound(String),
    /// The destination's name is taken and is never overwritten.
    #[error("{0} already exists")]
    Exists(String),
    /// The repository, daemon or registry does not allow it.
    #[error("{what} {why}")]
    Denied {
        /// What refused.
        what: String,
        /// Why.
        why: String,
    },
    /// The docker daemon could not be reached, or the connection broke.
    #[error("docker daemon at {endpoint} {why}")]
    Unreachable {
        /// The daemon's address.
        endpoint: String,
        /// What happened on the way.
        why: String,
    },
    /// The docker daemon answered with an error.
    #[error("docker daemon refused to {action}: {message}")]
    Daemon {
        /// What was asked of it.
        action: String,
        /// Its own words.
        message: String,
    },
    /// A registry could not be reached or answered with an error.
    #[error("registry {registry} failed to {action}: {message}")]
    Registry {
        /// Host and port.
        registry: String,
        /// What was asked of it.
        action: String,
        /// Its own words.
        message: String,
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
    /// The disk of the spool is full, also after everything unused was taken off it.
    #[error(
        "no room for an exported image in {}: {source}; free some of its disk, or set TMPDIR to a folder on a \
         larger one and mount again",
        folder.display()
    )]
    SpoolFull {
        /// The spool's folder.
        folder: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The operation was cancelled before it was complete; nothing was changed.
    #[error("interrupted")]
    Cancelled,
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
        let unwrapped = LayerError::io(action, path);
        move |source| unwrapped(source).into()
    }

    /// The raw OS error number behind this error, when there is one.
    pub fn raw_os_error(&self) -> Option<i32> {
        match self {
            Self::Io { source, .. } | Self::SpoolFull { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }
}

/// A failure below is one here; an error of this crate that travelled through code below comes out as itself.
impl From<LayerError> for Error {
    fn from(error: LayerError) -> Self {
        match error {
            LayerError::Invalid { what, why } => Self::Invalid { what, why },
            LayerError::Cancelled(Cancelled) => Self::Cancelled,
            LayerError::Io {
                action,
                path,
                source,
            } => source.downcast().unwrap_or_else(|source| Self::Io {
                action,
                path,
                source,
            }),
        }
    }
}

impl From<Cancelled> for Error {
    fn from(_: Cancelled) -> Self {
        Self::Cancelled
    }
}

/// Lets a typed error pass through code that only knows `io::Error`; [`Error::io`] unwraps it.
impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        io::Error::other(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_that_travelled_through_code_below_comes_out_as_itself() {
        let reader_failed = || io::Error::from(Error::NotFound("blob".into()));
        let passed_below = LayerError::io("read layer", "x")(reader_failed());
        assert!(matches!(Error::from(passed_below), Error::NotFound(_)));
        let read_here = Error::io("read", "x")(reader_failed());
        assert!(matches!(read_here, Error::NotFound(_)));
        let from_below = io::Error::from(LayerError::invalid("layer", "is cut off"));
        let error = Error::io("read", "x")(from_below);
        assert!(matches!(error, Error::Invalid { .. }), "{error}");
    }
}
