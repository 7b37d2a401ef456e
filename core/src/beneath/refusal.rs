//! What is refused although the system would allow it.

use std::io;

/// Why something below a folder is not used. Travels inside an [`io::Error`] of the kind
/// [`io::ErrorKind::InvalidData`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is a link, or a link leads to it.
    #[error("is reached through a symbolic link, and links are not followed here")]
    Link,
    /// It is something else than a file with content: a folder, a pipe, a device.
    #[error("is not a regular file")]
    NotRegular,
    /// Its name leads out of the folder.
    #[error("lies outside of its folder")]
    Outside,
    /// It has more bytes than that.
    #[error("is larger than {0} bytes")]
    TooLarge(u64),
}

impl Refusal {
    /// The refusal that `error` carries, if it does.
    pub fn of(error: &io::Error) -> Option<Self> {
        error.get_ref()?.downcast_ref().copied()
    }
}

impl From<Refusal> for io::Error {
    fn from(refusal: Refusal) -> Self {
        Self::new(io::ErrorKind::InvalidData, refusal)
    }
}
