//! How long the start of a machine may take, and what it does at the moment.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use pcocc_core::cancel::Cancel;

use crate::machine::{MachineError, MachineSpec};

/// Lines of the console that a failure shows.
const LAST_LINES: usize = 12;

/// The time of one start.
#[derive(Debug)]
pub(crate) struct StartWatch<'a> {
    cancel: &'a Cancel,
    begun: Instant,
    deadline: Duration,
    console: PathBuf,
    /// When a guest must have answered that need not boot.
    pub(crate) answer_by: Option<Instant>,
    /// The phase of the start, as it follows "the VM was".
    pub(crate) doing: &'static str,
}

impl<'a> StartWatch<'a> {
    /// Starts the clock of `spec`'s start.
    pub(crate) fn new(spec: &MachineSpec, cancel: &'a Cancel) -> Self {
        Self {
            cancel,
            begun: Instant::now(),
            deadline: spec.plan.deadline,
            console: spec.plan.console_log.clone(),
            answer_by: None,
            doing: "starting",
        }
    }

    /// The flag that asks to stop.
    pub(crate) fn cancel(&self) -> &'a Cancel {
        self.cancel
    }

    /// Whether a guest has not answered in time.
    pub(crate) fn is_late(&self) -> bool {
        self.answer_by.is_some_and(|by| Instant::now() >= by)
    }

    /// Fails when the start was cancelled or takes too long.
    pub(crate) fn check(&self) -> Result<(), MachineError> {
        if self.cancel.is_cancelled() {
            return Err(MachineError::Cancelled);
        }
        if self.is_late() {
            return Err(MachineError::Guest("does not answer".into()));
        }
        if self.begun.elapsed() >= self.deadline {
            return Err(MachineError::TimedOut {
                after: self.deadline,
                stage: self.doing.to_owned(),
                console: last_lines(&self.console),
            });
        }
        Ok(())
    }
}

/// Reads the last lines of a console log.
fn last_lines(console: &Path) -> Vec<String> {
    let text = fs::read(console).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    let first = lines.len().saturating_sub(LAST_LINES);
    let last = lines.get(first..).unwrap_or_default();
    last.iter()
        .map(|line| line.chars().filter(|c| !c.is_control()).collect())
        .collect()
}
