//! One word that tab completion offers.

/// A word that completes the typed text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Candidate {
    /// The word.
    pub value: String,
    /// What it is, in a few words.
    pub help: Option<String>,
}

impl Candidate {
    /// A candidate without help.
    pub fn plain(value: impl Into<String>) -> Self {
        Self {
            value: value.into(),
            help: None,
        }
    }

    /// A candidate with help.
    pub fn new(value: impl Into<String>, help: impl Into<String>) -> Self {
        Self {
            value: value.into(),
            help: Some(help.into()),
        }
    }
}
