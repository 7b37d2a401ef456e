//! Why a container cannot be set up.

use std::fmt::Display;
use std::io;

use super::FAILED;

/// The reason, and the exit code that `docker run` gives for it.
#[derive(Debug)]
pub(super) struct Stop {
    pub(super) code: u8,
    pub(super) text: String,
}

impl Stop {
    pub(super) fn new(code: u8, text: impl Into<String>) -> Self {
        Self {
            code,
            text: text.into(),
        }
    }
}

/// Puts what was tried in front of the system's error.
pub(super) fn failed<E: Into<io::Error>>(what: impl Display) -> impl FnOnce(E) -> Stop {
    move |error| Stop::new(FAILED, format!("{what}: {}", error.into()))
}
