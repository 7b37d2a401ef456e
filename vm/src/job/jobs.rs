//! All jobs of a user.
//!
//! A record counts only while its holder lives. Phases of [`Jobs::list`]: read the records → look for the holder of each job
//! that is not over → query the scheduler once for jobs of Slurm whose holder is on another machine, or that it may have put
//! back into its queue → take a job without a holder as ended or failed. Listing writes nothing: [`Jobs::record_end`] corrects
//! the folder of a dead job.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use pcocc_core::beneath::OpenFolder;

use super::folder::{self, PREFIX};
use super::{
    Backend, Error, Here, JobFolder, JobId, Presence, Queue, QueueState, Record, Result, State,
};

/// Name of the file with the last number that the local backend gave.
const LAST: &str = "job_last";
/// Most bytes it may have.
const MAX_LAST: u64 = 64;

/// One job: its folder, and what is true of it now.
#[derive(Clone, Debug)]
pub struct Job {
    /// Where its files are.
    pub folder: JobFolder,
    /// The record, corrected by the state of its holder and of the scheduler.
    pub record: Record,
    /// Whether holder or scheduler confirm `record`; else it is the last known state.
    pub confirmed: bool,
}

impl Job {
    /// The job's number.
    pub fn id(&self) -> JobId {
        self.record.id
    }
}

/// The jobs of a user, in the folder of their configuration.
#[derive(Clone, Debug)]
pub struct Jobs {
    conf: PathBuf,
    here: Here,
}

impl Jobs {
    /// Opens the jobs in `conf`, the user's configuration folder.
    pub fn open(conf: &Path) -> Result<Self> {
        Ok(Self::seen_from(conf, Here::read()?))
    }

    /// The same, as seen from a machine.
    pub fn seen_from(conf: &Path, here: Here) -> Self {
        Self {
            conf: conf.to_owned(),
            here,
        }
    }

    /// This machine.
    pub fn here(&self) -> &Here {
        &self.here
    }

    /// The folder of the job `id`, whether or not it is there.
    pub fn folder(&self, id: JobId) -> JobFolder {
        JobFolder::new(&self.conf, id)
    }

    /// The job `id` as it is now.
    pub fn get(&self, id: JobId, queue: &dyn Queue) -> Result<Job> {
        let folder = self.folder(id);
        let record = folder.read()?;
        let mut jobs = vec![self.assess(folder, record)];
        self.query(&mut jobs, queue);
        jobs.pop().ok_or(Error::NoSuchJob(id))
    }

    /// All jobs as they are now, by number. Folders that hold no readable record are passed over.
    pub fn list(&self, queue: &dyn Queue) -> Result<Vec<Job>> {
        let mut jobs = Vec::new();
        for id in self.ids()? {
            let folder = self.folder(id);
            match folder.read() {
                Ok(record) => jobs.push(self.assess(folder, record)),
                Err(error) => tracing::debug!(%id, %error, "no job"),
            }
        }
        self.query(&mut jobs, queue);
        Ok(jobs)
    }

    /// The numbers of all jobs that have a folder, in order.
    pub fn ids(&self) -> Result<Vec<JobId>> {
        let entries = match fs::read_dir(&self.conf) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Error::io("read", &self.conf)(error)),
        };
        let mut ids: Vec<JobId> = entries
            .filter_map(|entry| {
                let name = entry.ok()?.file_name();
                name.to_str()?.strip_prefix(PREFIX)?.parse().ok()
            })
            .collect();
        ids.sort_unstable();
        Ok(ids)
    }

    /// Makes the folder of a new job of the local backend, with a number that no other job has had.
    pub fn create_local(&self) -> Result<JobFolder> {
        let read = OpenFolder::open(&self.conf).and_then(|conf| conf.read(LAST, MAX_LAST));
        let last = read
            .ok()
            .and_then(|text| String::from_utf8(text).ok()?.trim().parse().ok())
            .unwrap_or(0);
        let highest = self.ids()?.last().map_or(0, |id| id.number());
        let mut number = std::cmp::max(last, highest);
        loop {
            number = number.checked_add(1).unwrap_or(1);
            let Some(id) = JobId::new(number) else {
                continue;
            };
            let folder = self.folder(id);
            match folder.create() {
                Ok(()) => {
                    // The folder takes the number; the file only keeps later jobs off the numbers of removed ones.
                    let conf = OpenFolder::open(&self.conf).map_err(Error::io("open", &self.conf));
                    let text = format!("{number}\n");
                    let kept = conf.and_then(|conf| folder::replace(&conf, LAST, text.as_bytes()));
                    if let Err(error) = kept {
                        tracing::debug!(%error, "the last job number is not kept");
                    }
                    return Ok(folder);
                }
                // Another command took the number meanwhile.
                Err(Error::File(error)) if error.source.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Makes the folder of the Slurm job `id`, or takes the one it has already; what is left of an older job with
    /// this number goes. One that is started `again`, after it was put back into the queue, keeps its own.
    pub fn create_slurm(&self, id: JobId, again: bool) -> Result<JobFolder> {
        let folder = self.folder(id);
        match folder.create() {
            Ok(()) => return Ok(folder),
            Err(Error::File(error)) if error.source.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        match folder.read() {
            // The other end of the same job has made the folder a moment ago.
            Err(Error::NoSuchJob(_)) => Ok(folder),
            Ok(record)
                if record.backend == Backend::Slurm && (again || !record.state.is_over()) =>
            {
                Ok(folder)
            }
            Ok(record) => {
                let job = self.assess(folder, record);
                if !job.record.state.is_over() {
                    return Err(Error::Taken(id));
                }
                job.folder.remove()?;
                job.folder.create()?;
                Ok(job.folder)
            }
            Err(error) => Err(error),
        }
    }

    /// Records the end of a job whose holder could not, and that the scheduler will not start it again.
    pub fn record_end(&self, job: &Job) -> Result<()> {
        let written = job.folder.read()?;
        let news = !written.state.is_over() || written.may_return != job.record.may_return;
        if job.confirmed && job.record.state.is_over() && news {
            job.folder.remove_client_files()?;
            job.folder.write(&job.record)?;
        }
        Ok(())
    }

    /// Records the end of a job whose launcher is known to be gone, unless the launcher did; `asked` says whether the end was
    /// asked for.
    pub fn close(folder: &JobFolder, asked: bool) -> Result<()> {
        // Reading the folder makes a network file system refresh its entries.
        let _ = fs::read_dir(folder.path()).map(Iterator::count);
        let mut record = folder.read()?;
        if !record.state.is_over() {
            if asked || record.state == State::Stopping {
                record.state = State::Ended;
            } else {
                record.state = State::Failed;
                let why = "the VM's launcher was killed";
                record.error.get_or_insert_with(|| why.to_owned());
            }
            folder.remove_client_files()?;
            folder.write(&record)?;
        }
        Ok(())
    }

    /// The job of a record, as far as this machine knows without the scheduler.
    fn assess(&self, folder: JobFolder, mut record: Record) -> Job {
        let mut confirmed = true;
        if !record.state.is_over() {
            let presence = record
                .launcher
                .as_ref()
                .map_or(Presence::Elsewhere, |holder| self.here.presence(holder));
            match presence {
                Presence::Alive => {}
                Presence::Elsewhere => confirmed = false,
                // Slurm may have put the job back into its queue.
                Presence::Gone if record.backend == Backend::Slurm => confirmed = false,
                Presence::Gone => mark_gone(&mut record),
            }
        } else if record.may_return {
            confirmed = false;
        }
        Job {
            folder,
            record,
            confirmed,
        }
    }

    /// Queries the scheduler about the jobs without a known holder, and those that may have been put back.
    fn query(&self, jobs: &mut [Job], queue: &dyn Queue) {
        let asked: Vec<JobId> = jobs
            .iter()
            .filter(|job| !job.confirmed && job.record.backend == Backend::Slurm)
            .map(Job::id)
            .collect();
        if asked.is_empty() {
            return;
        }
        let Some(found) = queue.query(&asked) else {
            return;
        };
        for job in jobs {
            if job.confirmed || !asked.contains(&job.id()) {
                continue;
            }
            job.confirmed = true;
            let queued = found.get(&job.record.id).copied();
            let record = &mut job.record;
            if let Some(deadline) = queued.and_then(|queued| queued.deadline) {
                record.deadline = Some(deadline);
            }
            match queued.map(|queued| queued.state) {
                Some(QueueState::Waiting) => restart(record, State::Queued),
                // Started again; its launcher has not written yet.
                Some(QueueState::Running) if record.state.is_over() => {
                    restart(record, State::Starting);
                }
                Some(QueueState::Running) => {}
                Some(QueueState::Ending) if record.state.is_over() => {}
                Some(QueueState::Ending) => record.state = State::Stopping,
                Some(QueueState::Over) | None if record.state.is_over() => {
                    record.may_return = false;
                }
                // The launcher may have recorded the end during the query.
                Some(QueueState::Over) | None => match job.folder.read() {
                    Ok(written) if written.state.is_over() => *record = written,
                    _ => mark_gone(record),
                },
            }
        }
    }
}

/// Makes a record that of a job without a VM, started again after an earlier life.
fn restart(record: &mut Record, state: State) {
    record.state = state;
    record.node = None;
    record.endpoint = None;
    record.error = None;
}

/// Makes a record without a holder that of a job that is over.
fn mark_gone(record: &mut Record) {
    let why = match (record.state, record.backend) {
        // A job that was being stopped, or never had a machine, has not failed.
        (State::Stopping, _) | (State::Queued, Backend::Slurm) => {
            record.state = State::Ended;
            return;
        }
        (State::Queued, Backend::Local) => "the command that asked for the VM was killed",
        (_, Backend::Slurm) => "Slurm ended the job",
        (_, Backend::Local) => "the VM's launcher was killed, or the machine was booted again",
    };
    record.state = State::Failed;
    record.error.get_or_insert_with(|| why.to_owned());
}

#[cfg(test)]
mod tests;
