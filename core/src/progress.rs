//! Progress of a transfer as values. Libraries emit them, the command line draws them.

use std::fmt;
use std::sync::Arc;

/// One step of an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A stage without a byte count begins, such as `Writing manifest to image destination`.
    Stage(String),
    /// Something the user should know although the operation goes on.
    Warning(String),
    /// Bytes of a blob start to move. `id` stays the same for the blob's other events.
    BlobStarted {
        /// Number of the blob; no other blob of the process has it.
        id: u64,
        /// Kind of the blob.
        kind: BlobKind,
        /// Digest, or the name the daemon gave the layer while its digest is not known yet.
        name: String,
        /// Bytes to come, when known.
        total: Option<u64>,
    },
    /// `done` bytes of the blob have moved so far.
    BlobProgress {
        /// Number of the blob.
        id: u64,
        /// Bytes moved so far.
        done: u64,
    },
    /// The blob is complete: `total` bytes moved.
    BlobFinished {
        /// Number of the blob.
        id: u64,
        /// Bytes moved in all.
        total: u64,
    },
    /// The destination already has the blob; nothing moves.
    BlobSkipped {
        /// Kind of the blob.
        kind: BlobKind,
        /// Its digest.
        name: String,
    },
}

/// Kinds of blobs whose bytes progress counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlobKind {
    /// A layer.
    Layer,
    /// The image config.
    Config,
    /// All blobs of a repository, which are read to be checked.
    Repository,
}

impl BlobKind {
    /// What happens to it while its bytes move, such as `Copying blob`.
    pub fn doing(self) -> &'static str {
        match self {
            Self::Layer => "Copying blob",
            Self::Config => "Copying config",
            Self::Repository => "Checking repository",
        }
    }

    /// What happened to it once all of its bytes moved, such as `Copied blob`.
    pub fn done(self) -> &'static str {
        match self {
            Self::Layer => "Copied blob",
            Self::Config => "Copied config",
            Self::Repository => "Checked repository",
        }
    }
}

impl fmt::Display for BlobKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Layer => "blob",
            Self::Config => "config",
            Self::Repository => "repository",
        })
    }
}

/// Takes the events of an operation. Called from any thread; must be quick and must not fail.
pub trait Progress: Send + Sync {
    /// Takes one event.
    fn event(&self, event: Event);
}

/// A shared [`Progress`].
#[derive(Clone)]
pub struct Reporter(Arc<dyn Progress>);

impl Reporter {
    /// Sends the events to `progress`.
    pub fn new(progress: Arc<dyn Progress>) -> Self {
        Self(progress)
    }

    /// Drops every event.
    pub fn silent() -> Self {
        struct Silent;
        impl Progress for Silent {
            fn event(&self, _: Event) {}
        }
        Self(Arc::new(Silent))
    }

    /// Emits an event.
    pub fn emit(&self, event: Event) {
        self.0.event(event);
    }

    /// Emits [`Event::Stage`].
    pub fn stage(&self, text: impl Into<String>) {
        self.emit(Event::Stage(text.into()));
    }

    /// Emits [`Event::Warning`].
    pub fn warn(&self, text: impl Into<String>) {
        self.emit(Event::Warning(text.into()));
    }
}

impl fmt::Debug for Reporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reporter")
    }
}
