//! Progress as bars on a terminal.
//!
//! Finished work scrolls away as ordinary lines. At the bottom stay the bars of moving blobs, and the stage
//! without bytes, with its time.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressState, ProgressStyle};
use parking_lot::{Mutex, MutexGuard};
use pcocc_core::progress::{BlobKind, Event, Progress};
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use super::echo::QuietKeys;
use crate::messages::{printable, warning};
use crate::output::size;

/// Columns of a bar where the terminal is wide enough.
const WIDEST_BAR: usize = 60;
/// Columns of a bar's line beside the bar.
const BESIDE_BAR: usize = 36;

/// Draws bars on stderr.
#[derive(Debug, Default)]
pub(super) struct Bars {
    screen: MultiProgress,
    blobs: Mutex<HashMap<u64, Blob>>,
    stage: Mutex<Option<Stage>>,
    quiet_keys: Mutex<Option<QuietKeys>>,
}

/// A stage without bytes to count.
#[derive(Debug)]
struct Stage {
    text: String,
    begun: Instant,
    bar: ProgressBar,
}

#[derive(Debug)]
struct Blob {
    kind: BlobKind,
    name: String,
    bar: ProgressBar,
}

impl Bars {
    /// Draws on the terminal on stderr.
    pub(super) fn new() -> Self {
        Self {
            quiet_keys: Mutex::new(Some(QuietKeys::new())),
            ..Self::default()
        }
    }

    /// Removes the bars from the screen.
    pub(super) fn clear(&self) {
        self.end_stage();
        for (_, blob) in self.lock().drain() {
            blob.bar.finish_and_clear();
        }
        // A vanished terminal needs no clearing.
        let _ = self.screen.clear();
        drop(self.quiet_keys.lock().take());
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Blob>> {
        self.blobs.lock()
    }

    fn line(&self, line: &str) {
        // A failed drawing must not fail the operation.
        let _ = self.screen.println(&*printable(line));
    }

    fn start_stage(&self, text: String) {
        self.end_stage();
        let bar = self.screen.add(ProgressBar::no_length());
        bar.set_style(spinner());
        bar.set_message(shorten(&text, columns().saturating_sub(BESIDE_STAGE)));
        bar.enable_steady_tick(Duration::from_millis(200));
        *self.stage.lock() = Some(Stage {
            text,
            begun: Instant::now(),
            bar,
        });
    }

    /// Makes the stage an ordinary line, with its time if it was long.
    fn end_stage(&self) {
        let ended = self.stage.lock().take();
        let Some(stage) = ended else {
            return;
        };
        stage.bar.finish_and_clear();
        self.screen.remove(&stage.bar);
        let text = shorten(&stage.text, columns().saturating_sub(BESIDE_STAGE));
        self.line(&match stage.begun.elapsed().as_secs() {
            0 => text,
            seconds => format!("{text} ({})", super::elapsed(seconds)),
        });
    }

    fn start(&self, id: u64, kind: BlobKind, name: String, total: Option<u64>) {
        let columns = columns();
        let title = shorten(&format!("{} {name}", kind.doing()), columns);
        let bar = self.screen.add(match total {
            Some(total) => ProgressBar::new(total),
            None => ProgressBar::no_length(),
        });
        bar.set_style(style(columns, total.is_some()));
        bar.set_message(title);
        bar.enable_steady_tick(Duration::from_millis(200));
        self.lock().insert(id, Blob { kind, name, bar });
    }

    fn finish(&self, id: u64, total: u64) {
        let Some(blob) = self.lock().remove(&id) else {
            return;
        };
        blob.bar.finish_and_clear();
        self.screen.remove(&blob.bar);
        let columns = columns();
        let title = format!("{} {}", blob.kind.doing(), blob.name);
        self.line(&shorten(&title, columns));
        self.line(&full(columns, total));
    }
}

impl Progress for Bars {
    fn event(&self, event: Event) {
        match event {
            Event::Stage(text) => self.start_stage(printable(&text).into_owned()),
            Event::Warning(text) => self.line(&warning(&text)),
            Event::BlobStarted {
                id,
                kind,
                name,
                total,
            } => self.start(id, kind, printable(&name).into_owned(), total),
            Event::BlobProgress { id, done } => {
                if let Some(blob) = self.lock().get(&id) {
                    blob.bar.set_position(done);
                }
            }
            Event::BlobFinished { id, total } => self.finish(id, total),
            Event::BlobSkipped { kind, name } => {
                self.line(&skipped(kind, &printable(&name), columns()));
            }
        }
    }
}

/// Columns of the terminal on stderr.
fn columns() -> usize {
    match rustix::termios::tcgetwinsize(rustix::stdio::stderr()) {
        Ok(window) if window.ws_col > 0 => usize::from(window.ws_col),
        _ => 80,
    }
}

fn bar_columns(columns: usize) -> usize {
    columns.saturating_sub(BESIDE_BAR).min(WIDEST_BAR)
}

/// `12.00 MB / 744.86 MB [=====>    ] 3s` under the blob's name.
fn style(columns: usize, total_known: bool) -> ProgressStyle {
    let bar = bar_columns(columns);
    let template = match (total_known, bar) {
        (true, 4..) => format!("{{msg}}\n{{at}} / {{of}} [{{bar:{bar}}}] {{left}}"),
        (true, _) => "{msg}\n{at} / {of} {left}".to_owned(),
        (false, _) => "{msg}\n{at} {spinner} {elapsed}".to_owned(),
    };
    ProgressStyle::with_template(&template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .with_key(
            "at",
            |state: &ProgressState, out: &mut dyn std::fmt::Write| {
                // A failed drawing must not fail the operation.
                let _ = out.write_str(&size(state.pos()));
            },
        )
        .with_key(
            "of",
            |state: &ProgressState, out: &mut dyn std::fmt::Write| {
                let _ = out.write_str(&size(state.len().unwrap_or_default()));
            },
        )
        .with_key(
            "left",
            |state: &ProgressState, out: &mut dyn std::fmt::Write| {
                let _ = write!(out, "{}s", state.eta().as_secs());
            },
        )
        .progress_chars("=> ")
        .tick_chars("|/-\\ ")
}

/// Columns of a stage's line for spinner and time.
const BESIDE_STAGE: usize = 12;

/// `Waiting for docker VM to start ... | 12s`
fn spinner() -> ProgressStyle {
    ProgressStyle::with_template("{msg} {spinner} {elapsed}")
        .unwrap_or_else(|_| ProgressStyle::default_spinner())
        .tick_chars("|/-\\ ")
}

/// The last state of a bar: `744.86 KB / 744.86 KB [====] 0s`.
fn full(columns: usize, total: u64) -> String {
    let bytes = size(total);
    match bar_columns(columns) {
        bar @ 4.. => format!("{bytes} / {bytes} [{}] 0s", "=".repeat(bar)),
        _ => format!("{bytes} / {bytes} 0s"),
    }
}

/// `Skipping blob sha256:8e674ad7... (already there)`; a long name is cut.
fn skipped(kind: BlobKind, name: &str, columns: usize) -> String {
    let line = |name: &str| format!("Skipping {kind} {name} (already there)");
    let room = columns.saturating_sub(line("").width());
    shorten(&line(&shorten(name, room)), columns)
}

/// Cuts a line that would wrap: a wrapped line cannot be redrawn cleanly. Wide characters count with their
/// columns.
fn shorten(line: &str, columns: usize) -> String {
    if line.width() < columns {
        return line.to_owned();
    }
    let mut left = columns.saturating_sub(4);
    let mut short: String = line
        .chars()
        .take_while(|c| {
            let width = c.width().unwrap_or_default();
            let fits = width <= left;
            left = left.saturating_sub(width);
            fits
        })
        .collect();
    short.push_str("...");
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_fit_narrow_terminals() {
        assert_eq!(
            shorten("Copying blob sha256:8e67", 80),
            "Copying blob sha256:8e67"
        );
        assert_eq!(
            shorten("Copying blob sha256:8e67", 20),
            "Copying blob sha..."
        );
        assert_eq!(shorten("名前名前名前", 13), "名前名前名前");
        assert_eq!(shorten("名前名前名前", 12), "名前名前...");
        assert_eq!(shorten("名前名前名前", 11), "名前名...");
        let digest = format!("sha256:{}", "8e67".repeat(16));
        let skip = |columns| skipped(BlobKind::Layer, &digest, columns);
        assert_eq!(
            skip(60),
            "Skipping blob sha256:8e678e678e678e678e6... (already there)"
        );
        assert!(skip(103).ends_with("8e67 (already there)"), "{}", skip(103));
        for columns in 4..120 {
            assert!(skip(columns).width() < columns.max(4), "{}", skip(columns));
        }
        assert_eq!(full(20, 575), "575 B / 575 B 0s");
        assert_eq!(full(50, 575), "575 B / 575 B [==============] 0s");
        assert!(full(200, 762_734).len() < 96);
    }

    #[test]
    fn templates_parse() {
        for columns in [0, 20, 80, 500] {
            for known in [true, false] {
                style(columns, known);
            }
        }
        spinner();
    }
}
