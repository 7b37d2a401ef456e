//! A scheduler's queue, as far as jobs are known to it.

use std::collections::HashMap;

use super::JobId;

/// A scheduler's queue, which knows jobs on other machines.
pub trait Queue {
    /// Gives the state of the jobs it knows among `ids`; `None` when it does not answer.
    fn query(&self, ids: &[JobId]) -> Option<HashMap<JobId, Queued>>;
}

/// A job as the scheduler sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queued {
    /// How far it is.
    pub state: QueueState,
    /// When it ends, in unix seconds, if that is known.
    pub deadline: Option<u64>,
}

/// How far the scheduler is with a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueState {
    /// The job waits, or waits again.
    Waiting,
    /// The job has its machine.
    Running,
    /// The scheduler ends the job.
    Ending,
    /// The job is over.
    Over,
}
