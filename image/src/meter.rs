//! Progress of one blob as events, at most twenty a second.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use pcocc_core::progress::{BlobKind, Event, Reporter};

use crate::oci::Image;

const INTERVAL: Duration = Duration::from_millis(50);

/// Counts the bytes of a blob and reports them.
#[derive(Debug)]
pub struct BlobMeter {
    progress: Reporter,
    id: u64,
    done: u64,
    next: Instant,
}

impl BlobMeter {
    /// Reports that the blob starts to move.
    pub fn start(progress: &Reporter, kind: BlobKind, name: &str, total: Option<u64>) -> Self {
        // Numbers are unique in a process, so that operations may run side by side.
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        progress.emit(Event::BlobStarted {
            id,
            kind,
            name: name.to_owned(),
            total,
        });
        Self {
            progress: progress.clone(),
            id,
            done: 0,
            // The first bytes are reported at once, even if the stream stalls after them.
            next: Instant::now(),
        }
    }

    /// Counts `bytes` more.
    pub fn add(&mut self, bytes: usize) {
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
    pub fn finish(self) {
        self.progress.emit(Event::BlobFinished {
            id: self.id,
            total: self.done,
        });
    }
}

/// Reports a blob that the destination already has.
pub fn skipped(progress: &Reporter, kind: BlobKind, name: &str) {
    progress.emit(Event::BlobSkipped {
        kind,
        name: name.to_owned(),
    });
}

/// Reports the config of `image`, which moved in one piece.
pub fn config_moved(progress: &Reporter, image: &Image) {
    let size = image.config().len();
    let name = image.id().to_string();
    let mut meter = BlobMeter::start(progress, BlobKind::Config, &name, Some(size as u64));
    meter.add(size);
    meter.finish();
}
