//! Errors of reading an archive.

use std::io;

/// Why reading an archive stopped. Displays as a fragment that fits behind the archive's name.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// The archive's bytes could not be read.
    #[error("cannot be read: {0}")]
    Read(#[source] io::Error),
    /// The archive ends within a header, a record or the content of an entry.
    #[error("is truncated")]
    Truncated,
    /// The bytes are not a tar archive, or exceed the bounds.
    #[error("{0}")]
    Invalid(String),
}

impl From<io::Error> for TarError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Truncated,
            _ => Self::Read(error),
        }
    }
}

pub(super) fn invalid<T>(why: impl Into<String>) -> Result<T, TarError> {
    Err(TarError::Invalid(why.into()))
}
