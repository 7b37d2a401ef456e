//! The mount's transfers, present and past, as `.pcocc/status.json` shows them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Once};
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use pcocc_core::progress::{Event, Progress, Reporter};
use serde::Serialize;

/// Number of finished transfers that are remembered.
const REMEMBERED: usize = 64;

/// State of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Bytes are moving.
    Running,
    /// The image is in its store.
    Done,
    /// The transfer failed and changed nothing.
    Failed,
}

/// One transfer into or out of a store.
#[derive(Clone, Debug, Serialize)]
pub struct Transfer {
    /// The store: `docker`, or a repository's name.
    pub store: String,
    /// The image's name there.
    pub image: String,
    /// `copy` into the store, `export` out of it, or `rootfs`.
    pub action: &'static str,
    /// Its state.
    pub state: State,
    /// Bytes moved so far.
    pub bytes: u64,
    /// Seconds since 1970 when it began.
    pub started: u64,
    /// Seconds since 1970 when it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended: Option<u64>,
    /// The last progress message, or the reason of the failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// Numbers of things that the tree holds; all are zero when nothing is in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Gauges {
    /// Inodes the kernel knows outside root file systems.
    pub inodes: usize,
    /// References of the kernel to inodes inside of root file systems.
    pub rootfs: u64,
    /// Open files and folders.
    pub handles: usize,
    /// Images being copied in.
    pub staged: usize,
    /// Commits under way.
    pub committing: usize,
}

/// The list of transfers; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Status(Arc<Mutex<VecDeque<Arc<Mutex<Transfer>>>>>);

impl Status {
    /// Notes that a transfer begins.
    pub fn begin(&self, store: &str, image: &str, action: &'static str) -> RunningTransfer {
        let transfer = self.begin_when_moving(store, image, action);
        transfer.0.show();
        transfer
    }

    /// Notes a transfer at its first event, or when it fails: an image that is there already needs no transfer.
    pub fn begin_when_moving(
        &self,
        store: &str,
        image: &str,
        action: &'static str,
    ) -> RunningTransfer {
        RunningTransfer(Arc::new(Moving {
            status: self.clone(),
            shown: Once::new(),
            transfer: Arc::new(Mutex::new(Transfer {
                store: store.to_owned(),
                image: image.to_owned(),
                action,
                state: State::Running,
                bytes: 0,
                started: now(),
                ended: None,
                message: None,
            })),
            blobs: Mutex::default(),
        }))
    }

    fn add(&self, transfer: &Arc<Mutex<Transfer>>) {
        let mut transfers = self.0.lock();
        if transfers.len() >= REMEMBERED
            && let Some(oldest) = transfers
                .iter()
                .position(|t| t.lock().state != State::Running)
        {
            transfers.remove(oldest);
        }
        transfers.push_back(Arc::clone(transfer));
    }

    /// Copies of the remembered transfers, oldest first.
    pub fn transfers(&self) -> Vec<Transfer> {
        self.0.lock().iter().map(|t| t.lock().clone()).collect()
    }

    /// The last failure of a store, or of the image `image` of the store.
    pub fn last_error(&self, store: &str, image: Option<&str>) -> Option<String> {
        self.transfers()
            .into_iter()
            .rev()
            .find(|t| t.store == store && image.is_none_or(|image| t.image == image))
            .filter(|t| t.state == State::Failed)
            .and_then(|t| t.message)
    }

    /// The status file's content; `held` are the tree's present numbers.
    pub fn render(&self, held: Gauges) -> Vec<u8> {
        #[derive(Serialize)]
        struct Document {
            version: u32,
            pid: u32,
            held: Gauges,
            transfers: Vec<Transfer>,
        }
        let document = Document {
            version: 1,
            pid: std::process::id(),
            held,
            transfers: self.transfers(),
        };
        let mut text = serde_json::to_vec_pretty(&document).unwrap_or_default();
        text.push(b'\n');
        text
    }
}

/// A running transfer; it counts as failed if it is dropped before [`RunningTransfer::end`].
#[derive(Debug)]
pub struct RunningTransfer(Arc<Moving>);

impl RunningTransfer {
    /// Where the transfer reports its progress.
    pub fn reporter(&self) -> Reporter {
        Reporter::new(Arc::clone(&self.0) as Arc<dyn Progress>)
    }

    /// Notes the result.
    pub fn end<T, E: std::fmt::Display>(self, result: &Result<T, E>) {
        if result.is_err() {
            self.0.show();
        }
        let mut transfer = self.0.transfer.lock();
        transfer.ended = Some(now());
        match result {
            Ok(_) => transfer.state = State::Done,
            Err(error) => {
                transfer.state = State::Failed;
                transfer.message = Some(error.to_string());
            }
        }
    }
}

impl Drop for RunningTransfer {
    fn drop(&mut self) {
        let mut transfer = self.0.transfer.lock();
        if transfer.state == State::Running {
            transfer.state = State::Failed;
            transfer.ended = Some(now());
        }
    }
}

/// Adds up the bytes of all blobs of a transfer.
#[derive(Debug)]
struct Moving {
    status: Status,
    /// Whether the transfer is in the list.
    shown: Once,
    transfer: Arc<Mutex<Transfer>>,
    blobs: Mutex<BTreeMap<u64, u64>>,
}

impl Moving {
    fn show(&self) {
        self.shown.call_once(|| {
            self.transfer.lock().started = now();
            self.status.add(&self.transfer);
        });
    }
}

impl Progress for Moving {
    fn event(&self, event: Event) {
        self.show();
        let (id, done) = match event {
            Event::BlobProgress { id, done } => (id, done),
            Event::BlobFinished { id, total } => (id, total),
            Event::Stage(text) | Event::Warning(text) => {
                self.transfer.lock().message = Some(text);
                return;
            }
            _ => return,
        };
        let mut blobs = self.blobs.lock();
        blobs.insert(id, done);
        self.transfer.lock().bytes = blobs.values().sum();
    }
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remembers_a_bounded_number_and_the_last_error() {
        let status = Status::default();
        for i in 0..200 {
            let running = status.begin("docker", &format!("i{i}"), "copy");
            running
                .reporter()
                .emit(Event::BlobFinished { id: 0, total: 7 });
            running.end::<(), _>(&Err("disk full"));
        }
        assert_eq!(status.transfers().len(), REMEMBERED);
        assert_eq!(
            status.last_error("docker", None).as_deref(),
            Some("disk full")
        );
        assert_eq!(status.last_error("docker", Some("i1")), None);
        let quiet = status.begin_when_moving("docker", "quiet", "export");
        quiet.end(&Ok::<_, &str>(()));
        let noisy = status.begin_when_moving("docker", "noisy", "export");
        noisy.reporter().stage("Exporting");
        noisy.end(&Err::<(), _>("interrupted"));
        let last = status.transfers().pop().unwrap();
        assert_eq!((&*last.image, last.state), ("noisy", State::Failed));
        assert_eq!(last.message.as_deref(), Some("interrupted"));
        drop(status.begin("docker", "late", "copy"));
        assert_eq!(status.last_error("docker", None), None);
        let parsed: serde_json::Value =
            serde_json::from_slice(&status.render(Gauges::default())).unwrap();
        assert_eq!(parsed["transfers"][0]["bytes"], 7);
    }
}
