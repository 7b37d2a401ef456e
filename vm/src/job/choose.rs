//! The job that a command means.

use super::{Error, Job, JobId, Jobs, Queue, Result};

/// How the user names a job.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Wanted {
    /// By its number.
    Id(JobId),
    /// By its name.
    Name(String),
    /// Not at all.
    #[default]
    Unsaid,
}

impl Jobs {
    /// Chooses a job that is not over: the wanted job, else the `enclosing` job of this shell or allocation, else the only job.
    ///
    /// An enclosing allocation without a docker VM of its own does not count. Fails with a list of several jobs.
    pub fn choose(
        &self,
        wanted: &Wanted,
        enclosing: Option<JobId>,
        queue: &dyn Queue,
    ) -> Result<Job> {
        match (wanted, enclosing) {
            (Wanted::Id(id), _) => return living(self.get(*id, queue)?),
            (Wanted::Unsaid, Some(id)) => match self.get(id, queue) {
                Ok(job) => return living(job),
                Err(Error::NoSuchJob(_)) => {}
                Err(error) => return Err(error),
            },
            _ => {}
        }
        let named = |job: &Job| match wanted {
            Wanted::Name(name) => job.record.name == *name,
            _ => true,
        };
        let mut jobs: Vec<Job> = self.list(queue)?;
        jobs.retain(|job| !job.record.state.is_over() && named(job));
        match (jobs.pop(), wanted) {
            (Some(job), _) if jobs.is_empty() => Ok(job),
            (Some(job), _) => {
                jobs.push(job);
                let list = jobs.into_iter().map(|job| (job.id(), job.record.name));
                Err(Error::Several(list.collect()))
            }
            (None, Wanted::Name(name)) => Err(Error::NoSuchName(name.clone())),
            (None, _) => Err(Error::NoJob),
        }
    }
}

/// Refuses a job that is over.
fn living(job: Job) -> Result<Job> {
    match job.record.state.is_over() {
        false => Ok(job),
        true => Err(Error::Over {
            id: job.record.id,
            state: job.record.state.name(),
            why: job.record.error,
        }),
    }
}
