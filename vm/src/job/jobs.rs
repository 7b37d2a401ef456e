//! All jobs of a user.
//!
//! What a record says counts only while somebody stands for it. Phases of [`Jobs::list`]: read the records →
//! look for the holder of each that is not over → ask the scheduler once for those of Slurm whose holder cannot be
//! seen from here, or that it may have put back into its queue → a record nobody stands for is told as ended or failed.
//! Only reading: the folder of a dead job is corrected by [`Jobs::settle`].

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::folder::PREFIX;
use super::{Backend, Error, Here, JobFolder, JobId, Presence, Record, Result, State};

/// Name of the file with the last number that the local backend gave.
const LAST: &str = "job_last";

/// A scheduler's queue, which knows of jobs that cannot be seen from here.
pub trait Queue {
    /// Gives the state of the jobs it knows among `ids`; `None` when it does not answer.
    fn ask(&self, ids: &[JobId]) -> Option<HashMap<JobId, Queued>>;
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
    /// It waits, or waits again.
    Waiting,
    /// It has its machine.
    Running,
    /// It is being ended.
    Ending,
    /// It is over.
    Over,
}

/// One job: its folder, and what is true of it now.
#[derive(Clone, Debug)]
pub struct Job {
    /// Where its files are.
    pub folder: JobFolder,
    /// The record, corrected by what was found out.
    pub record: Record,
    /// Whether `record` is more than the last known state: somebody was seen to stand for it.
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
    /// Looks for jobs in `conf`, the user's configuration folder.
    pub fn open(conf: &Path) -> Result<Self> {
        Ok(Self::seen_from(conf, Here::look()?))
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
        let mut jobs = vec![self.look(folder, record)];
        self.consult(&mut jobs, queue);
        jobs.pop().ok_or(Error::NoSuchJob(id))
    }

    /// All jobs as they are now, by number. Folders that hold no readable record are passed over.
    pub fn list(&self, queue: &dyn Queue) -> Result<Vec<Job>> {
        let mut jobs = Vec::new();
        for id in self.ids()? {
            let folder = self.folder(id);
            match folder.read() {
                Ok(record) => jobs.push(self.look(folder, record)),
                Err(error) => tracing::debug!(%id, %error, "no job"),
            }
        }
        self.consult(&mut jobs, queue);
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
        let path = self.conf.join(LAST);
        let last = fs::read_to_string(&path)
            .ok()
            .and_then(|text| text.trim().parse().ok())
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
                    // Only to spare ended jobs' numbers: the folder is what counts.
                    if let Err(error) = remember(&path, number) {
                        tracing::debug!(%error, "the last job number is not kept");
                    }
                    return Ok(folder);
                }
                // Another command took the number meanwhile.
                Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => {}
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
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        match folder.read() {
            // Nothing is written yet: the other end of the same job was just here.
            Err(Error::NoSuchJob(_)) => Ok(folder),
            Ok(record)
                if record.backend == Backend::Slurm && (again || !record.state.is_over()) =>
            {
                Ok(folder)
            }
            Ok(record) => {
                let job = self.look(folder, record);
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

    /// Writes down that a job is over whose holder could not do so any more, and that one will not be started again.
    pub fn settle(&self, job: &Job) -> Result<()> {
        let written = job.folder.read()?;
        let news = !written.state.is_over() || written.may_return != job.record.may_return;
        if job.confirmed && job.record.state.is_over() && news {
            job.folder.remove_client_files()?;
            job.folder.write(&job.record)?;
        }
        Ok(())
    }

    /// Writes down that a job is over whose launcher is known to be gone, unless it did so itself; `asked` says whether
    /// somebody wanted it to be.
    pub fn close(folder: &JobFolder, asked: bool) -> Result<()> {
        // Reading the folder makes a network file system look again.
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

    /// What can be told of a record from here, without the scheduler.
    fn look(&self, folder: JobFolder, mut record: Record) -> Job {
        let mut confirmed = true;
        if !record.state.is_over() {
            let presence = record
                .launcher
                .as_ref()
                .map_or(Presence::Elsewhere, |holder| self.here.presence(holder));
            match presence {
                Presence::Alive => {}
                Presence::Elsewhere => confirmed = false,
                // Slurm may have put it back into its queue.
                Presence::Gone if record.backend == Backend::Slurm => confirmed = false,
                Presence::Gone => bury(&mut record),
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

    /// Asks the scheduler about the jobs that nobody was seen to stand for, and those that may have been put back.
    fn consult(&self, jobs: &mut [Job], queue: &dyn Queue) {
        let asked: Vec<JobId> = jobs
            .iter()
            .filter(|job| !job.confirmed && job.record.backend == Backend::Slurm)
            .map(Job::id)
            .collect();
        if asked.is_empty() {
            return;
        }
        let Some(found) = queue.ask(&asked) else {
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
                Some(QueueState::Waiting) => begin_again(record, State::Queued),
                // Started again, and its launcher has not come to writing yet.
                Some(QueueState::Running) if record.state.is_over() => {
                    begin_again(record, State::Starting);
                }
                Some(QueueState::Running) => {}
                Some(QueueState::Ending) if record.state.is_over() => {}
                Some(QueueState::Ending) => record.state = State::Stopping,
                Some(QueueState::Over) | None if record.state.is_over() => {
                    record.may_return = false;
                }
                // Its launcher may have written the end while the scheduler was asked.
                Some(QueueState::Over) | None => match job.folder.read() {
                    Ok(written) if written.state.is_over() => *record = written,
                    _ => bury(record),
                },
            }
        }
    }
}

/// Tells a record as that of a job which has no VM yet, whatever an earlier life of it has left.
fn begin_again(record: &mut Record, state: State) {
    record.state = state;
    record.node = None;
    record.endpoint = None;
    record.error = None;
}

/// Tells a record as over that nobody stands for any more.
fn bury(record: &mut Record) {
    let why = match (record.state, record.backend) {
        // It was being stopped, or never had a machine: no harm came to it.
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

/// Keeps a number for the next local job.
fn remember(path: &Path, number: u32) -> io::Result<()> {
    let folder = path.parent().unwrap_or_else(|| Path::new("."));
    let file = tempfile::Builder::new()
        .prefix(".new-")
        .tempfile_in(folder)?;
    fs::write(file.path(), format!("{number}\n"))?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

#[cfg(test)]
mod tests;
