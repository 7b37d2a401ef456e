//! `pcocc docker stop`: ends docker VMs.
//!
//! A local one is ended by a signal to its launcher, which is named by more than a number that may be used again; one of
//! Slurm by scancel. Either way the command comes back when the job is over.

use std::io;
use std::time::{Duration, Instant};

use pcocc_vm::job::{Backend, Holder, Job, Jobs, Presence, State};
use pcocc_vm::slurm;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::allocation::{self, JobOption};
use crate::contexts;
use crate::errors::{Failure, Outcome, While as _};
use crate::invocation::Invocation;
use crate::jobs;
use crate::output;

/// How long a VM may take to end, and one that is then killed.
const PATIENCE: Duration = Duration::from_secs(20);
const LAST: Duration = Duration::from_secs(5);

/// End docker VMs
///
/// Comes back when nothing of them is left.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  pcocc docker stop\n  pcocc docker stop 1756495 work\n  pcocc docker stop --all"
)]
pub(crate) struct Args {
    /// The jobs, by their numbers or names; by default that of this shell, or the only one there is
    #[arg(value_name = "JOB", conflicts_with_all = ["all", "job"])]
    jobs: Vec<String>,
    #[command(flatten)]
    job: JobOption,
    /// All there are
    #[arg(short, long, conflicts_with = "job")]
    all: bool,
}

impl Args {
    /// Ends them.
    pub(crate) fn run(self, invocation: &Invocation) -> Outcome {
        let action = "stop a docker VM";
        let jobs = jobs::open(&invocation.environment, action)?;
        let chosen: Vec<Job> = if self.all {
            let mut list = allocation::list(&jobs).when(|| action)?;
            list.retain(|job| !job.record.state.is_over());
            list
        } else if self.jobs.is_empty() {
            vec![self.job.choose(invocation, action)?]
        } else {
            self.jobs
                .iter()
                .map(|job| jobs::choose(&invocation.environment, Some(job), action))
                .collect::<Outcome<_>>()?
        };
        for job in chosen {
            stop(invocation, &jobs, &job)?;
            output::text(&format!("Stopped job {}\n", job.id()))?;
        }
        Ok(())
    }
}

fn stop(invocation: &Invocation, jobs: &Jobs, job: &Job) -> Outcome {
    let id = job.id();
    let action = format!("stop job {id}");
    match job.record.backend {
        Backend::Slurm => slurm::cancel(id).when(|| &*action)?,
        Backend::Local => send(jobs, job, Signal::TERM, &action)?,
    }
    if is_over_within(invocation, jobs, job, PATIENCE, &action)? {
        return Ok(());
    }
    if job.record.backend == Backend::Local {
        send(jobs, job, Signal::KILL, &action)?;
        if is_over_within(invocation, jobs, job, LAST, &action)? {
            return Ok(());
        }
    }
    let why = format!("it still is not over after {} s", PATIENCE.as_secs());
    Err(Failure::message(action, why).hint(format!("see `pcocc docker status -j {id}`")))
}

/// Waits until a job is over.
fn is_over_within(
    invocation: &Invocation,
    jobs: &Jobs,
    job: &Job,
    patience: Duration,
    action: &str,
) -> Outcome<bool> {
    let deadline = Instant::now() + patience;
    let mut asked: Option<Instant> = None;
    loop {
        let over = match job.folder.read() {
            Ok(record) => {
                let gone = |holder: &Option<Holder>| {
                    holder
                        .as_ref()
                        .is_none_or(|holder| jobs.here().presence(holder) != Presence::Alive)
                };
                // The record is ahead of what still is to be taken away.
                let left = !gone(&record.keeper);
                let over = record.state.is_over()
                    || (job.record.backend == Backend::Local && gone(&record.launcher));
                let patience = Duration::from_millis(if over { 200 } else { 1000 });
                let ask = !left && asked.is_none_or(|since| since.elapsed() > patience);
                (over && !left && !record.may_return)
                    || (ask && {
                        asked = Some(Instant::now());
                        let now = allocation::look_again(jobs, job.id()).when(|| action)?;
                        now.record.state.is_over()
                    })
            }
            Err(_) => true,
        };
        if over {
            settle(invocation, jobs, job);
            return Ok(true);
        }
        if invocation.cancel.is_cancelled() {
            return Err(Failure::message(action, "interrupted; it ends by itself"));
        }
        if Instant::now() > deadline {
            return Ok(false);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn settle(invocation: &Invocation, jobs: &Jobs, job: &Job) {
    let result = allocation::look_again(jobs, job.id()).and_then(|job| jobs.record_end(&job));
    if let Err(error) = result {
        tracing::debug!(%error, "the record stays as it is");
    }
    contexts::forget(&invocation.environment, &job.folder);
}

/// Sends a signal to the process that stands for a local job.
fn send(jobs: &Jobs, job: &Job, signal: Signal, action: &str) -> Outcome {
    let record = job.folder.read().when(|| action)?;
    let Some(holder) = record.launcher.filter(|_| record.state != State::Ended) else {
        return Ok(());
    };
    match jobs.here().presence(&holder) {
        Presence::Gone => Ok(()),
        Presence::Elsewhere => {
            let why = format!("it runs on {}", holder.host);
            Err(Failure::message(action, why).hint("stop it from there"))
        }
        Presence::Alive => signal_holder(jobs, &holder, signal).when(|| action),
    }
}

/// Signals a process through a descriptor, so that it cannot be another one by now.
fn signal_holder(jobs: &Jobs, holder: &Holder, signal: Signal) -> io::Result<()> {
    let Some(pid) = i32::try_from(holder.pid).ok().and_then(Pid::from_raw) else {
        return Ok(());
    };
    let descriptor = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(descriptor) => descriptor,
        Err(rustix::io::Errno::SRCH) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    // Looked at again now that the number cannot be given away.
    if jobs.here().presence(holder) != Presence::Alive {
        return Ok(());
    }
    match pidfd_send_signal(&descriptor, signal) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
