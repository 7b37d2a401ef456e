//! Candidates for tab completion: from local state, or from what an outside system answered in time or
//! lately.
//!
//! Nothing here fails: what cannot be found out is no candidate. Who presses TAB wants no error.
#![cfg_attr(not(test), deny(clippy::expect_used, clippy::unwrap_used))]

pub mod images;
pub mod jobs;
mod recent;
pub mod scheduler;

pub use recent::Recent;

/// Something that could be meant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Candidate {
    /// The word.
    pub value: String,
    /// What it is, in a few words.
    pub help: Option<String>,
}

impl Candidate {
    /// A word that says what it is.
    pub fn plain(value: impl Into<String>) -> Self {
        Self {
            value: value.into(),
            help: None,
        }
    }

    /// A word and what it is.
    pub fn new(value: impl Into<String>, help: impl Into<String>) -> Self {
        Self {
            value: value.into(),
            help: Some(help.into()),
        }
    }
}
