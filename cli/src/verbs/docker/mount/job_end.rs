//! The mount of a job's docker ends with the job.
//!
//! Data path: the job of the daemon → its record, read every second → the end of the job ends the mount, like a
//! signal. The scheduler is not asked: the job's own processes write the record.

use std::path::Path;
use std::thread;
use std::time::Duration;

use pcocc_core::cancel::Cancel;
use pcocc_vm::job::{Error, JobId, Jobs};

use crate::errors::Outcome;
use crate::host::jobs::Unasked;
use crate::invocation::Invocation;
use crate::messages::warn;

/// How often the record is read.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Raises `invocation.cancel` when the job `id` is over, which ends the mount at `mount_point`.
pub(super) fn watch(invocation: &Invocation, id: JobId, mount_point: &Path) -> Outcome {
    let jobs = invocation.host.jobs()?.clone();
    let cancel = invocation.cancel.clone();
    let mount_point = mount_point.to_owned();
    // The thread ends with the process.
    thread::spawn(move || end_with(&jobs, id, &cancel, &mount_point));
    Ok(())
}

fn end_with(jobs: &Jobs, id: JobId, cancel: &Cancel, mount_point: &Path) {
    while !cancel.is_cancelled() {
        thread::sleep(LOOK_AGAIN);
        let over = match jobs.get(id, &Unasked) {
            Ok(job) => job.record.state.is_over(),
            Err(Error::NoSuchJob(_)) => true,
            // A shared home may be unreachable for a while.
            Err(error) => {
                tracing::debug!(%id, %error, "the job's record cannot be read");
                false
            }
        };
        if over {
            warn(&format!(
                "mount {}: job {id} has ended, and the mount ends with it",
                mount_point.display()
            ));
            cancel.cancel();
        }
    }
}
