//! What can be wrong with jobs and their folders.

use std::io;
use std::path::{Path, PathBuf};

use pcocc_core::FileError;

use super::JobId;

/// Why a job could not be found, read or written. Displays as a fragment that fits `failed to …: <error>`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Text that is no job number.
    #[error("{0:?} is no job number")]
    NotAnId(String),
    /// There is no such job.
    #[error("there is no job {0}")]
    NoSuchJob(JobId),
    /// There is no running job with this name.
    #[error("no job is named {0:?}")]
    NoSuchName(String),
    /// There is no job at all.
    #[error("you have no docker VM")]
    NoJob,
    /// The job is over.
    #[error("job {id} has {state}{}", because(.why))]
    Over {
        /// The job.
        id: JobId,
        /// `ended` or `failed`.
        state: &'static str,
        /// Its last error.
        why: Option<String>,
    },
    /// Several jobs could be meant.
    #[error("{}", several(.0))]
    Several(Vec<(JobId, String)>),
    /// Another job holds the number that the scheduler gave.
    #[error("job {0} is in use by a VM of another scheduler")]
    Taken(JobId),
    /// A record that this version does not understand.
    #[error("{} {why}", path.display())]
    Record {
        /// The record.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A folder that others could read or write, or that is someone else's.
    #[error("{} {why}", path.display())]
    Unsafe {
        /// The folder.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// An operating-system call failed.
    #[error(transparent)]
    File(#[from] FileError),
}

impl Error {
    /// Names the file and what was done to it.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        FileError::of(action, path)
    }
}

fn because(why: &Option<String>) -> String {
    why.as_ref()
        .map_or_else(String::new, |why| format!(": {why}"))
}

fn several(jobs: &[(JobId, String)]) -> String {
    let list: Vec<_> = jobs
        .iter()
        .map(|(id, name)| format!("{id} ({name})"))
        .collect();
    format!("you have several docker VMs: {}", list.join(", "))
}
