//! Draws the progress of an operation on stderr.
//!
//! Events come from the libraries ([`pcocc_core::progress`]); a terminal gets bars ([`bars`]),
//! anything else gets lines ([`plain`]). Warnings are always shown.

mod bars;
mod echo;
mod plain;

use std::sync::Arc;

use clap::ValueEnum;
use pcocc_core::progress::{Event, Progress, Reporter};

use crate::environment::Terminal;
use crate::messages::warn;

/// How progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProgressMode {
    // No doc comments: the option's help says all on one line.
    Auto,
    Plain,
    None,
}

/// A drawing of progress; dropping it leaves the terminal clean.
#[derive(Debug)]
pub(crate) struct Drawing(Style);

#[derive(Debug)]
enum Style {
    Bars(Arc<bars::Bars>),
    /// A terminal that cannot be redrawn would show `^C` in front of the next line.
    Plain(
        Arc<plain::Plain<std::io::Stderr>>,
        #[expect(dead_code, reason = "it is dropped")] echo::QuietKeys,
    ),
    Warnings,
}

impl Drawing {
    /// Starts to draw.
    pub(crate) fn new(mode: ProgressMode, terminal: &Terminal) -> Self {
        Self(match mode {
            ProgressMode::Auto if terminal.redraws => Style::Bars(Arc::new(bars::Bars::new())),
            ProgressMode::Auto | ProgressMode::Plain => {
                let plain = plain::Plain::new(std::io::stderr());
                Style::Plain(Arc::new(plain), echo::QuietKeys::new())
            }
            ProgressMode::None => Style::Warnings,
        })
    }

    /// The reporter for the operation's events.
    pub(crate) fn reporter(&self) -> Reporter {
        match &self.0 {
            Style::Bars(bars) => Reporter::new(bars.clone()),
            Style::Plain(plain, _) => Reporter::new(plain.clone()),
            Style::Warnings => Reporter::new(Arc::new(WarningsOnly)),
        }
    }
}

impl Drop for Drawing {
    fn drop(&mut self) {
        if let Style::Bars(bars) = &self.0 {
            bars.clear();
        }
    }
}

/// Shows nothing but warnings.
struct WarningsOnly;

impl Progress for WarningsOnly {
    fn event(&self, event: Event) {
        if let Event::Warning(text) = event {
            warn(&text);
        }
    }
}

/// `42s`, `3m 07s`, `1h 02m`.
fn elapsed(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m {:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h {:02}m", seconds / 3600, seconds % 3600 / 60),
    }
}
