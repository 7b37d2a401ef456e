//! The mount of a job's docker ends with the job.
//!
//! Data path: the job whose daemon is shown → its record, read again every second → once it is over
//! the mount is told to end, as by a signal. The scheduler is not asked: the job's own processes write the record.

use std::thread;
use std::time::Duration;

use pcocc_core::cancel::Cancel;
use pcocc_vm::job::{Error, JobId, Jobs};

use crate::errors::Outcome;
use crate::invocation::Invocation;
use crate::jobs::{self, Unasked};
use crate::progress::warn;

/// How often the record is read.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Raises `invocation.cancel` when the job `id` is over; `action` is what the mount is called in messages.
pub(super) fn watch(invocation: &Invocation, id: JobId, action: &str) -> Outcome {
    let jobs = jobs::open(&invocation.environment, action)?;
    let cancel = invocation.cancel.clone();
    let action = action.to_owned();
    // It ends with the process.
    thread::spawn(move || end_with(&jobs, id, &cancel, &action));
    Ok(())
}

fn end_with(jobs: &Jobs, id: JobId, cancel: &Cancel, action: &str) {
    while !cancel.is_cancelled() {
        thread::sleep(LOOK_AGAIN);
        let over = match jobs.get(id, &Unasked) {
            Ok(job) => job.record.state.is_over(),
            Err(Error::NoSuchJob(_)) => true,
            // A shared home may be away for a while.
            Err(error) => {
                tracing::debug!(%id, %error, "the job's record cannot be read");
                false
            }
        };
        if over {
            warn(&format!(
                "{action}: job {id} has ended, and the mount ends with it"
            ));
            cancel.cancel();
        }
    }
}
