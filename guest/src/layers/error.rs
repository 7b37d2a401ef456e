//! Why a layer cannot be handed out.

use std::io;

/// Why docker's files give no layer. Displays as a sentence about docker's files.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Docker has no such image or layer, or no longer.
    #[error("has no {what} in {store}'s store")]
    NotFound {
        /// The image, layer or blob.
        what: String,
        /// Who keeps images there.
        store: &'static str,
    },
    /// A file cannot be read.
    #[error("cannot read {what}: {source}")]
    Read {
        /// The file.
        what: String,
        /// The system's error.
        source: io::Error,
    },
    /// A file is not what it should be.
    #[error("does not understand {what}: {why}")]
    Invalid {
        /// The file.
        what: String,
        /// What is wrong with it.
        why: String,
    },
    /// The bytes are not taken.
    #[error("cannot send: {0}")]
    Send(#[source] io::Error),
}

impl Error {
    /// Makes the failure to find `what` in the store of `store`, or to read it.
    pub(super) fn find(what: &str, store: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |error| match error.kind() {
            io::ErrorKind::NotFound => Self::NotFound {
                what: what.to_owned(),
                store,
            },
            _ => Self::read(what)(error),
        }
    }

    /// Makes the failure to read `what`.
    pub(super) fn read(what: &str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Read {
            what: what.to_owned(),
            source,
        }
    }

    /// Makes [`Error::Invalid`].
    pub(super) fn invalid(what: &str, why: impl Into<String>) -> Self {
        Self::Invalid {
            what: what.to_owned(),
            why: why.into(),
        }
    }
}
