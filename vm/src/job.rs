//! Jobs: one docker VM each, with a folder that holds the VM's state for all readers.
//!
//! ```text
//! CONF/job_<id>/                  CONF is ~/.pcocc; mode 0700
//! CONF/job_<id>/job.json          the record, version 1
//! CONF/job_<id>/state             `STATE DEADLINE`: the same in short, for the prompt of a shell
//! CONF/job_<id>/vmcerts/client/   ca.pem, cert.pem, key.pem for docker's client, mode 0600
//! CONF/job_<id>/console.log       output of the VM's console, and console.log.1 what was in there before
//! CONF/job_<id>/launcher.log      log of the launcher
//! CONF/job_last                   the last job number of the local backend
//! ```
//!
//! The folder lies on a file system that the login node and the compute node share. Files are replaced as a
//! whole (temporary file, fsync, rename), so a reader sees the old one or the new one, on NFS too; there is no lock.
//!
//! One process at a time writes a record: its *holder*, named in it. First that is the command that asked for
//! the VM, then the launcher beside the VM. A reader does not believe a record whose holder is gone:
//! see [`Jobs::list`].

mod choose;
mod error;
mod folder;
mod holder;
mod id;
mod jobs;
mod queue;
mod record;

pub use choose::Wanted;
pub use error::Error;
pub use folder::{ClientFiles, JobFolder, older};
pub use holder::{Here, Holder, Presence};
pub use id::JobId;
pub use jobs::{Job, Jobs};
pub use queue::{Queue, QueueState, Queued};
pub use record::{Backend, Record, State};

/// Result of looking at jobs.
pub type Result<T, E = Error> = std::result::Result<T, E>;
