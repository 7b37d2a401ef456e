//! `pcocc docker stop`: ends docker VMs.
//!
//! A local VM is ended by a signal to its launcher, which is identified by more than a number that may be
//! reused. A VM of Slurm is ended by scancel. In both cases the command waits until the job is over.

use std::io;
use std::time::{Duration, Instant};

use pcocc_vm::job::{Backend, Holder, Job, Jobs, Presence, State};
use pcocc_vm::slurm;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::contexts;
use crate::errors::{Failure, Outcome, While as _};
use crate::host::jobs::JobOption;
use crate::invocation::{Invocation, Run};
use crate::output;

/// How long a VM may take to end, and again after a kill.
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

impl Run for Args {
    fn action(&self) -> String {
        "stop a docker VM".to_owned()
    }

    fn run(self, invocation: &Invocation) -> Outcome {
        let host = &invocation.host;
        let chosen: Vec<Job> = if self.all {
            let mut list = host.list_jobs()?;
            list.retain(|job| !job.record.state.is_over());
            list
        } else if self.jobs.is_empty() {
            vec![self.job.choose(host)?]
        } else {
            self.jobs
                .iter()
                .map(|job| host.choose_job(Some(job)))
                .collect::<Outcome<_>>()?
        };
        for job in chosen {
            stop(invocation, &job).when(|| format!("stop job {}", job.id()))?;
            output::text(&format!("Stopped job {}\n", job.id()))?;
        }
        Ok(())
    }
}

fn stop(invocation: &Invocation, job: &Job) -> Outcome {
    let id = job.id();
    let jobs = invocation.host.jobs()?;
    match job.record.backend {
        Backend::Slurm => slurm::cancel(id)?,
        Backend::Local => send(jobs, job, Signal::TERM)?,
    }
    if is_over_within(invocation, job, PATIENCE)? {
        return Ok(());
    }
    if job.record.backend == Backend::Local {
        send(jobs, job, Signal::KILL)?;
        if is_over_within(invocation, job, LAST)? {
            return Ok(());
        }
    }
    let why = format!("it still is not over after {} s", PATIENCE.as_secs());
    Err(Failure::because(why).hint(format!("see `pcocc docker status -j {id}`")))
}

/// Waits until a job is over.
fn is_over_within(invocation: &Invocation, job: &Job, patience: Duration) -> Outcome<bool> {
    let jobs = invocation.host.jobs()?;
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
                // The record is written before the last removals.
                let left = !gone(&record.keeper);
                let over = record.state.is_over()
                    || (job.record.backend == Backend::Local && gone(&record.launcher));
                let patience = Duration::from_millis(if over { 200 } else { 1000 });
                let ask = !left && asked.is_none_or(|since| since.elapsed() > patience);
                (over && !left && !record.may_return)
                    || (ask && {
                        asked = Some(Instant::now());
                        let now = invocation.host.job_now(job.id())?;
                        now.record.state.is_over()
                    })
            }
            Err(_) => true,
        };
        if over {
            close(invocation, job);
            return Ok(true);
        }
        if invocation.cancel.is_cancelled() {
            return Err(Failure::because("interrupted; it ends by itself"));
        }
        if Instant::now() > deadline {
            return Ok(false);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Records the end of a job whose launcher could not, and removes its docker contexts.
fn close(invocation: &Invocation, job: &Job) {
    let host = &invocation.host;
    let now = host.job_now(job.id());
    if let Err(failure) = now.and_then(|job| Ok(host.jobs()?.record_end(&job)?)) {
        tracing::debug!(?failure, "the record stays as it is");
    }
    contexts::forget(host, &job.folder);
}

/// Sends a signal to the process behind a local job.
fn send(jobs: &Jobs, job: &Job, signal: Signal) -> Outcome {
    let record = job.folder.read()?;
    let Some(holder) = record.launcher.filter(|_| record.state != State::Ended) else {
        return Ok(());
    };
    match jobs.here().presence(&holder) {
        Presence::Gone => Ok(()),
        Presence::Elsewhere => {
            let why = format!("it runs on {}", holder.host);
            Err(Failure::because(why).hint("stop it from there"))
        }
        Presence::Alive => Ok(signal_holder(jobs, &holder, signal)?),
    }
}

/// Signals a process through a descriptor, so that it cannot be a later process.
fn signal_holder(jobs: &Jobs, holder: &Holder, signal: Signal) -> io::Result<()> {
    let Some(pid) = i32::try_from(holder.pid).ok().and_then(Pid::from_raw) else {
        return Ok(());
    };
    let descriptor = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(descriptor) => descriptor,
        Err(rustix::io::Errno::SRCH) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    // Checked again now that the number cannot be reused.
    if jobs.here().presence(holder) != Presence::Alive {
        return Ok(());
    }
    match pidfd_send_signal(&descriptor, signal) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
