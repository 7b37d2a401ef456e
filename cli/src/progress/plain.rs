//! Progress as lines, for logs and pipes: one when a blob starts, one when it ends, and one every
//! ten seconds in between.

use std::collections::HashMap;
use std::io::Write;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use pcocc_core::progress::{BlobKind, Event, Progress};

use crate::output::{printable, size};

/// Time between two lines about the same blob.
const INTERVAL: Duration = Duration::from_secs(10);

/// Writes progress lines to `W`.
#[derive(Debug)]
pub(super) struct Plain<W>(Mutex<State<W>>);

#[derive(Debug)]
struct State<W> {
    output: W,
    blobs: HashMap<u64, Blob>,
}

#[derive(Debug)]
struct Blob {
    kind: BlobKind,
    name: String,
    total: Option<u64>,
    told: Instant,
}

impl<W: Write> Plain<W> {
    /// Writes to `output`.
    pub(super) fn new(output: W) -> Self {
        Self(Mutex::new(State {
            output,
            blobs: HashMap::new(),
        }))
    }
}

impl<W: Write> State<W> {
    fn line(&mut self, line: &str) {
        // Progress must not fail an operation: a closed stderr loses its lines.
        let _ = writeln!(self.output, "{line}");
    }

    fn take(&mut self, event: Event, now: Instant) {
        match event {
            Event::Stage(text) => self.line(&printable(&text)),
            Event::Warning(text) => self.line(&super::warning(&text)),
            Event::BlobStarted {
                id,
                kind,
                name,
                total,
            } => {
                let name = printable(&name);
                self.line(&format!("{} {name}", kind.doing()));
                self.blobs.insert(
                    id,
                    Blob {
                        kind,
                        name,
                        total,
                        told: now,
                    },
                );
            }
            Event::BlobProgress { id, done } => {
                let Some(blob) = self.blobs.get_mut(&id) else {
                    return;
                };
                if now.duration_since(blob.told) < INTERVAL {
                    return;
                }
                blob.told = now;
                let of = match blob.total {
                    Some(total) => format!(" / {}", size(total)),
                    None => String::new(),
                };
                let line = format!("{} {}: {}{of}", blob.kind.doing(), blob.name, size(done));
                self.line(&line);
            }
            Event::BlobFinished { id, total } => {
                if let Some(blob) = self.blobs.remove(&id) {
                    self.line(&format!(
                        "{} {}: {}",
                        blob.kind.done(),
                        blob.name,
                        size(total)
                    ));
                }
            }
            Event::BlobSkipped { kind, name } => {
                self.line(&format!(
                    "Skipping {kind} {} (already there)",
                    printable(&name)
                ));
            }
        }
    }
}

impl<W: Write + Send> Progress for Plain<W> {
    fn event(&self, event: Event) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take(event, Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn started(id: u64, total: Option<u64>) -> Event {
        Event::BlobStarted {
            id,
            kind: BlobKind::Layer,
            name: format!("sha256:{id}"),
            total,
        }
    }

    #[test]
    fn lines_come_at_start_end_and_every_ten_seconds() {
        let mut state = State {
            output: Vec::new(),
            blobs: HashMap::new(),
        };
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let progress = |done| Event::BlobProgress { id: 1, done };
        state.take(started(1, Some(4096)), at(0));
        state.take(started(2, None), at(0));
        state.take(progress(10), at(9));
        state.take(progress(1024), at(10));
        state.take(progress(2048), at(15));
        state.take(progress(3072), at(20));
        state.take(Event::BlobFinished { id: 1, total: 4096 }, at(21));
        state.take(progress(4096), at(50));
        state.take(
            Event::BlobSkipped {
                kind: BlobKind::Config,
                name: "sha256:3\n".into(),
            },
            at(51),
        );
        state.take(Event::Stage("Writing manifest".into()), at(52));
        state.take(Event::Warning("odd".into()), at(53));
        insta::assert_snapshot!(String::from_utf8(state.output).unwrap(), @r"
        Copying blob sha256:1
        Copying blob sha256:2
        Copying blob sha256:1: 1.00 KB / 4.00 KB
        Copying blob sha256:1: 3.00 KB / 4.00 KB
        Copied blob sha256:1: 4.00 KB
        Skipping config sha256:3\n (already there)
        Writing manifest
        pcocc: warning: odd
        ");
    }
}
