//! The remains of ended jobs: records, docker contexts and folders.

use std::time::Duration;

use crate::contexts;
use crate::errors::Outcome;
use crate::host::Host;
use crate::host::jobs::Unasked;

/// How long the folder of an ended job is kept.
const KEPT: Duration = Duration::from_secs(7 * 24 * 3600);
/// Most folders of ended jobs.
const MOST_KEPT: usize = 50;

/// Records the end of local jobs whose launcher could not, and removes the docker contexts of ended jobs and
/// the folders of long ended ones. Best effort: readers do not believe such records.
pub(crate) fn clean_up(host: &Host) {
    if let Err(failure) = try_clean_up(host) {
        tracing::debug!(?failure, "old jobs stay");
    }
}

fn try_clean_up(host: &Host) -> Outcome {
    let jobs = host.jobs()?;
    let mut over = Vec::new();
    for job in jobs.list(&Unasked)? {
        if !job.record.state.is_over() {
            continue;
        }
        if let Err(error) = jobs.record_end(&job) {
            tracing::debug!(%error, "a dead job's record stays");
        }
        contexts::forget(host, &job.folder);
        let age = std::fs::metadata(job.folder.record_file())
            .and_then(|metadata| metadata.modified())
            .ok()
            .and_then(|written| written.elapsed().ok())
            .unwrap_or_default();
        over.push((age, job.folder));
    }
    over.sort_by_key(|(age, _)| *age);
    for (index, (age, folder)) in over.into_iter().enumerate() {
        if (age > KEPT || index >= MOST_KEPT)
            && let Err(error) = folder.remove()
        {
            tracing::debug!(%error, "the folder of an old job stays");
        }
    }
    Ok(())
}
