//! Progress of one blob, at most some twenty events a second.

use std::time::{Duration, Instant};

use pcocc_core::progress::{BlobKind, Event, Reporter};

const INTERVAL: Duration = Duration::from_millis(50);

/// Counts the bytes of a blob and reports them.
#[derive(Debug)]
pub(super) struct Meter {
    progress: Reporter,
    id: u64,
    done: u64,
    next: Instant,
}

impl Meter {
    /// Reports that the blob starts to move.
    pub(super) fn start(
        progress: &Reporter,
        id: u64,
        kind: BlobKind,
        name: String,
        total: Option<u64>,
    ) -> Self {
        progress.emit(Event::BlobStarted {
            id,
            kind,
            name,
            total,
        });
        Self {
            progress: progress.clone(),
            id,
            done: 0,
            // The first bytes show at once that something moves, also when the stream stalls after them.
            next: Instant::now(),
        }
    }

    /// Counts `bytes` more.
    pub(super) fn add(&mut self, bytes: usize) {
        self.done += bytes as u64;
        let now = Instant::now();
        if now >= self.next {
            self.next = now + INTERVAL;
            self.progress.emit(Event::BlobProgress {
                id: self.id,
                done: self.done,
            });
        }
    }

    /// Reports that the blob is complete.
    pub(super) fn finish(self) {
        self.progress.emit(Event::BlobFinished {
            id: self.id,
            total: self.done,
        });
    }
}
