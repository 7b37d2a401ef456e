//! Jobs as the verbs see them that make, show and end jobs: as they are now, with Slurm's own word where it is needed.

use std::time::Duration;

use pcocc_core::batch::{BatchConfig, BatchType};
use pcocc_vm::job::{Job, JobId, Jobs};
use pcocc_vm::slurm::Squeue;

use crate::contexts;
use crate::environment::Environment;
use crate::errors::{Outcome, While as _};
use crate::invocation::Invocation;
use crate::jobs::{self, Unasked};
use crate::stores;

/// The option by which a verb is told which job is meant.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct JobOption {
    /// The job, by its number or name; by default that of this shell, or the only one there is
    #[arg(short, long, visible_short_alias = 'J', value_name = "JOB")]
    job: Option<String>,
}

impl JobOption {
    /// The job that is meant; it must not be over.
    pub(crate) fn choose(&self, invocation: &Invocation, action: &str) -> Outcome<Job> {
        jobs::choose(&invocation.environment, self.job.as_deref(), action)
    }

    /// The job that is meant, over or not: by its number any; without one, the last there was if none is left.
    pub(crate) fn find(&self, invocation: &Invocation, action: &str) -> Outcome<Job> {
        let jobs = jobs::open(&invocation.environment, action)?;
        if let Some(id) = self.job.as_deref().and_then(|text| text.parse().ok()) {
            return jobs.get(id, &Squeue).when(|| action);
        }
        match (self.choose(invocation, action), &self.job) {
            (Ok(job), _) => Ok(job),
            (Err(failure), wanted) => {
                let mut all = list(&jobs).when(|| action)?;
                if all.iter().any(|job| !job.record.state.is_over()) {
                    return Err(failure);
                }
                all.retain(|job| wanted.as_ref().is_none_or(|name| job.record.name == *name));
                all.into_iter()
                    .max_by_key(|job| job.record.created)
                    .ok_or(failure)
            }
        }
    }
}

/// All jobs as they are now.
pub(crate) fn list(jobs: &Jobs) -> Result<Vec<Job>, pcocc_vm::job::Error> {
    let list = jobs.list(&Squeue)?;
    // What Slurm has said of a job that is over need not be asked again.
    for job in list.iter().filter(|job| job.record.state.is_over()) {
        if let Err(error) = jobs.record_end(job) {
            tracing::debug!(%error, "a dead job's record stays");
        }
    }
    Ok(list)
}

/// A job as it is now.
pub(crate) fn look_again(jobs: &Jobs, id: JobId) -> Result<Job, pcocc_vm::job::Error> {
    jobs.get(id, &Squeue)
}

/// `batch.yaml`, the site's with the user's over it; `action` is what needs it.
pub(crate) fn batch(environment: &Environment, action: &str) -> Outcome<BatchConfig> {
    BatchConfig::load(
        &environment.user_conf,
        &environment.system_conf,
        &stores::path_variables(environment),
    )
    .when(|| action)
}

/// What allocates VMs here: what `batch.yaml` says, else Slurm where its commands are.
pub(crate) fn backend(invocation: &Invocation, action: &str) -> Outcome<BatchType> {
    let environment = &invocation.environment;
    let batch = batch(environment, action)?;
    Ok(batch
        .kind
        .unwrap_or(match environment.has_program("salloc") {
            true => BatchType::Slurm,
            false => BatchType::Local,
        }))
}

/// How long the folder of a job that is over is kept.
const KEPT: Duration = Duration::from_secs(7 * 24 * 3600);
/// How many of them are kept at most.
const MOST_KEPT: usize = 50;

/// Writes down the end of local jobs whose launcher could not, and removes docker contexts of jobs that are over and
/// folders of those that are long over. Best effort: nobody believes such records anyway.
pub(crate) fn forget_old(environment: &Environment, jobs: &Jobs) {
    let Ok(list) = jobs.list(&Unasked) else {
        return;
    };
    let mut over = Vec::new();
    for job in list {
        if !job.record.state.is_over() {
            continue;
        }
        if let Err(error) = jobs.record_end(&job) {
            tracing::debug!(%error, "a dead job's record stays");
        }
        contexts::forget(environment, &job.folder);
        let age = std::fs::metadata(job.folder.record_file())
            .and_then(|metadata| metadata.modified())
            .ok()
            .and_then(|written| written.elapsed().ok())
            .unwrap_or_default();
        over.push((age, job.folder));
    }
    over.sort_by_key(|(age, _)| *age);
    let mut kept = 0;
    for (age, folder) in over {
        kept += 1;
        if (age > KEPT || kept > MOST_KEPT)
            && let Err(error) = folder.remove()
        {
            tracing::debug!(%error, "the folder of an old job stays");
        }
    }
}
