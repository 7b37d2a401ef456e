//! How long the start of a machine may take, and what it does at the moment.

use std::time::{Duration, Instant};

use pcocc_core::cancel::Cancel;

use crate::machine::{MachineError, MachineSpec};

/// The time of one start.
#[derive(Debug)]
pub(crate) struct StartWatch<'a> {
    cancel: &'a Cancel,
    begun: Instant,
    deadline: Duration,
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
            });
        }
        Ok(())
    }
}
