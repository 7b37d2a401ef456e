//! `job.json`: what is known of a job.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Holder, JobId};

/// The version of the records that are written, and the only one that is read.
pub(super) const VERSION: u32 = 1;

/// What allocated the VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// Slurm.
    Slurm,
    /// pcocc itself, on this machine.
    Local,
}

impl Backend {
    /// Its name, as in `batch.yaml`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Slurm => "slurm",
            Self::Local => "local",
        }
    }
}

/// How far a job is. The order is that of its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// The scheduler has it.
    Queued,
    /// The launcher prepares the VM.
    Starting,
    /// The VM runs, its docker daemon does not answer yet.
    Booting,
    /// The docker daemon answers.
    Ready,
    /// The VM is being stopped.
    Stopping,
    /// The VM is gone, as it was meant to.
    Ended,
    /// The VM is gone, or never was, because of an error.
    Failed,
}

impl State {
    /// Its name, as in `job.json`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Starting => "starting",
            Self::Booting => "booting",
            Self::Ready => "ready",
            Self::Stopping => "stopping",
            Self::Ended => "ended",
            Self::Failed => "failed",
        }
    }

    /// Whether nothing of the job is left.
    pub fn is_over(self) -> bool {
        matches!(self, Self::Ended | Self::Failed)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A job's record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Version of this format: 1.
    pub version: u32,
    /// The job's number.
    pub id: JobId,
    /// Its name.
    pub name: String,
    /// What allocated it.
    pub backend: Backend,
    /// Login name of the user.
    pub owner: String,
    /// How far it is.
    pub state: State,
    /// Machine the VM runs on, once known.
    pub node: Option<String>,
    /// The docker daemon, `tcp://ADDRESS:PORT`, once the VM runs.
    pub endpoint: Option<String>,
    /// When the job was asked for, in unix seconds.
    pub created: u64,
    /// When the allocation ends, in unix seconds; `None` for never, or not known yet.
    pub deadline: Option<u64>,
    /// Mount point of the image folders that were asked for.
    pub mount: Option<PathBuf>,
    /// The last error.
    pub error: Option<String>,
    /// The process that writes this record; `None` while only the scheduler knows of the job.
    pub launcher: Option<Holder>,
    /// The process that outlives the launcher, to take away what is left of the VM on its node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keeper: Option<Holder>,
    /// Folder of the VM's sockets on its node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sockets: Option<PathBuf>,
    /// Whether the job, once it is over, may be started again: Slurm ended it, and may have put it back into its queue.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub may_return: bool,
    /// What a later version may add; kept when the record is written again.
    #[serde(flatten)]
    pub other: serde_json::Map<String, serde_json::Value>,
}

impl Record {
    /// Makes the record of a job that was asked for at `created`, in unix seconds.
    pub fn new(id: JobId, name: &str, backend: Backend, owner: &str, created: u64) -> Self {
        Self {
            version: VERSION,
            id,
            name: name.to_owned(),
            backend,
            owner: owner.to_owned(),
            state: State::Queued,
            node: None,
            endpoint: None,
            created,
            deadline: None,
            mount: None,
            error: None,
            launcher: None,
            keeper: None,
            sockets: None,
            may_return: false,
            other: serde_json::Map::new(),
        }
    }

    /// The line of the file `state`.
    pub(super) fn state_line(&self) -> String {
        match self.deadline {
            Some(deadline) => format!("{} {deadline}\n", self.state),
            None => format!("{} -\n", self.state),
        }
    }
}
