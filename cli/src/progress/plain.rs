//! Progress as lines, for logs and pipes: one line when a blob or a stage starts, one when a blob ends, and one
//! every ten seconds in between. A thread watches the clock, so that a stall is reported as well.

use std::collections::HashMap;
use std::io::Write;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pcocc_core::progress::{BlobKind, Event, Progress};

use crate::messages::{printable, warning};
use crate::output::size;

/// Time between two lines about the same blob.
const INTERVAL: Duration = Duration::from_secs(10);

/// Writes progress lines to `W`.
#[derive(Debug)]
pub(super) struct Plain<W> {
    state: Arc<Mutex<State<W>>>,
    /// Dropped with the drawing, which ends the clock's thread.
    _clock: Sender<()>,
}

#[derive(Debug)]
struct State<W> {
    output: W,
    blobs: HashMap<u64, Blob>,
    stage: Option<Stage>,
}

#[derive(Debug)]
struct Stage {
    text: String,
    begun: Instant,
    reported: Instant,
}

#[derive(Debug)]
struct Blob {
    kind: BlobKind,
    name: String,
    total: Option<u64>,
    done: u64,
    reported: Instant,
}

impl Blob {
    fn line(&self) -> String {
        let of = match self.total {
            Some(total) => format!(" / {}", size(total)),
            None => String::new(),
        };
        format!(
            "{} {}: {}{of}",
            self.kind.doing(),
            self.name,
            size(self.done)
        )
    }
}

impl<W: Write + Send + 'static> Plain<W> {
    /// Writes to `output`.
    pub(super) fn new(output: W) -> Self {
        let state = Arc::new(Mutex::new(State {
            output,
            blobs: HashMap::new(),
            stage: None,
        }));
        let (clock, ended) = mpsc::channel::<()>();
        let looked_at = Arc::clone(&state);
        std::thread::spawn(move || {
            while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(Duration::from_secs(1)) {
                let mut state = looked_at.lock();
                state.remind(Instant::now());
            }
        });
        Self {
            state,
            _clock: clock,
        }
    }
}

impl<W: Write> State<W> {
    fn line(&mut self, line: &str) {
        // A failed line must not fail the operation: a closed stderr loses its lines.
        let _ = writeln!(self.output, "{}", printable(line));
    }

    /// Reports all blobs and stages whose last line is too old.
    fn remind(&mut self, now: Instant) {
        let mut lines = Vec::new();
        let due = |reported: &mut Instant| {
            let due = now.duration_since(*reported) >= INTERVAL;
            if due {
                *reported = now;
            }
            due
        };
        if let Some(stage) = &mut self.stage
            && due(&mut stage.reported)
        {
            let seconds = now.duration_since(stage.begun).as_secs();
            lines.push(format!("{} ({})", stage.text, super::elapsed(seconds)));
        }
        let mut blobs: Vec<_> = self.blobs.iter_mut().collect();
        blobs.sort_unstable_by_key(|(id, _)| **id);
        for (_, blob) in blobs {
            if due(&mut blob.reported) {
                lines.push(blob.line());
            }
        }
        for line in lines {
            self.line(&line);
        }
    }

    fn take(&mut self, event: Event, now: Instant) {
        match event {
            Event::Stage(text) => {
                self.line(&text);
                self.stage = Some(Stage {
                    text,
                    begun: now,
                    reported: now,
                });
            }
            Event::Warning(text) => self.line(&warning(&text)),
            Event::BlobStarted {
                id,
                kind,
                name,
                total,
            } => {
                // From here on the bytes tell that it goes on.
                self.stage = None;
                self.line(&format!("{} {name}", kind.doing()));
                self.blobs.insert(
                    id,
                    Blob {
                        kind,
                        name,
                        total,
                        done: 0,
                        reported: now,
                    },
                );
            }
            Event::BlobProgress { id, done } => {
                let Some(blob) = self.blobs.get_mut(&id) else {
                    return;
                };
                blob.done = done;
                if now.duration_since(blob.reported) < INTERVAL {
                    return;
                }
                blob.reported = now;
                let line = blob.line();
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
                self.line(&format!("Skipping {kind} {name} (already there)"));
            }
        }
    }
}

impl<W: Write + Send> Progress for Plain<W> {
    fn event(&self, event: Event) {
        self.state.lock().take(event, Instant::now());
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
            stage: None,
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
        state.remind(at(61));
        state.remind(at(62));
        state.remind(at(63));
        state.take(started(4, None), at(64));
        state.take(Event::BlobProgress { id: 4, done: 512 }, at(65));
        state.remind(at(200));
        insta::assert_snapshot!(String::from_utf8(state.output).unwrap(), @r"
        Copying blob sha256:1
        Copying blob sha256:2
        Copying blob sha256:1: 1.00 KB / 4.00 KB
        Copying blob sha256:1: 3.00 KB / 4.00 KB
        Copied blob sha256:1: 4.00 KB
        Skipping config sha256:3\n (already there)
        Writing manifest
        pcocc: warning: odd
        Copying blob sha256:2: 0 B
        Writing manifest (10s)
        Copying blob sha256:4
        Copying blob sha256:2: 0 B
        Copying blob sha256:4: 512 B
        ");
    }
}
