//! `pcocc docker shell`: a shell for a running docker VM.
//!
//! Data path: the chosen job → wait until its record says ready → the shell. VM and shell do not depend on each
//! other: the VM goes on after the shell, and the shell goes on, with a warning, after the VM.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use pcocc_vm::clock::{Clock as _, SystemClock};
use pcocc_vm::job::{Job, State};

use crate::errors::{Failure, Outcome, While as _};
use crate::host::jobs::JobOption;
use crate::invocation::{Invocation, Run};
use crate::messages::warn;
use crate::mounted;
use crate::session::{Countdown, GiveUp, exit_code, hang_up, show_console, start_shell};
use crate::verbs::docker::alloc::check_script;

/// Interval at which the record is read.
const SOON: Duration = Duration::from_millis(50);
const NOW_AND_THEN: Duration = Duration::from_secs(2);
/// Interval at which Slurm is asked about a queued job.
const QUEUE: Duration = Duration::from_secs(3);

/// Start a docker shell for a VM
///
/// In the shell, docker is the VM's. Waits for the VM if it is not ready yet. The VM is not stopped when the shell
/// ends.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit status: that of the shell or the script; 124 when the VM was not ready in time.\n\n\
    Examples:\n  pcocc docker shell -j 1756495\n  pcocc docker shell -J work -E 'docker ps'"
)]
pub(crate) struct Args {
    #[command(flatten)]
    job: JobOption,
    /// Run this command line instead of a shell
    #[arg(short = 'E', long, value_name = "SCRIPT")]
    script: Option<String>,
    /// Give up when the VM is not ready after so many seconds
    #[arg(short = 'T', long, value_name = "SECONDS")]
    timeout: Option<u64>,
    /// Show docker and the repositories as folders there while the shell lasts, see `pcocc docker mount`
    #[arg(long, value_name = "DIR")]
    mount: Option<PathBuf>,
}

impl Run for Args {
    fn action(&self) -> String {
        "start a docker shell".to_owned()
    }

    fn run(self, invocation: &Invocation) -> Outcome {
        if let Some(script) = &self.script {
            check_script(script)?;
        }
        let job = self.job.choose(&invocation.host)?;
        let give_up = self.timeout.map(GiveUp::after);
        let job = wait(invocation, job, give_up.as_ref())?;
        let _mount = match &self.mount {
            Some(point) => {
                let point = std::path::absolute(point)?;
                Some(mounted::mount(invocation, &job, &point)?)
            }
            None => None,
        };
        if self.script.is_none() {
            invocation.announce("Starting the docker shell ...");
        }
        let code = attend(invocation, &job, self.script.as_deref());
        Failure::passed_on(code.when(|| format!("run a shell for job {}", job.id()))?)
    }
}

/// Waits until a job's docker answers.
pub(crate) fn wait(invocation: &Invocation, job: Job, give_up: Option<&GiveUp>) -> Outcome<Job> {
    let action = format!("wait for the VM of job {}", job.id());
    match job.record.state {
        State::Ready => Ok(job),
        _ => wait_for_record(invocation, job, give_up).when(|| action),
    }
}

/// Waits until a job's record says ready.
fn wait_for_record(
    invocation: &Invocation,
    mut job: Job,
    give_up: Option<&GiveUp>,
) -> Outcome<Job> {
    let id = job.id();
    invocation.announce("Waiting for docker VM to start ...");
    let (drawing, context) = invocation.draw();
    let mut shown = None;
    let mut asked = Instant::now();
    // The last record that was compared with Slurm, and a record of an earlier start of the job.
    let (mut known, mut outlived) = (None, None);
    loop {
        if shown != Some(job.record.state) {
            let word = match job.record.state {
                State::Queued => "The job waits in the queue",
                State::Starting => "The VM is being prepared",
                _ => "The VM boots",
            };
            context.progress.stage(word);
            shown = Some(job.record.state);
        }
        if invocation.cancel.is_cancelled() {
            return Err(Failure::because("interrupted"));
        }
        if let Some(give_up) = give_up.filter(|give_up| give_up.is_over()) {
            drop(drawing);
            show_console(&job.folder);
            return Err(give_up.failure());
        }
        std::thread::sleep(SOON);
        // Reading the folder makes a network file system fetch it again.
        let _ = std::fs::read_dir(job.folder.path()).map(Iterator::count);
        let written = job.folder.read()?;
        if known.as_ref() != Some(&written) || asked.elapsed() > QUEUE {
            job = invocation.host.job_now(id)?;
            asked = Instant::now();
            if job.record.state == State::Queued && written.state > State::Queued {
                // Slurm has the job in the queue again. After the next start, Slurm says "running" before the
                // launcher writes.
                outlived = Some(written.clone());
            }
            known = Some(written);
        }
        if outlived.is_some() && outlived == known && !job.record.state.is_over() {
            job.record.state = State::Queued;
        }
        if job.record.state == State::Ready {
            return Ok(job);
        }
        if job.record.state.is_over() {
            drop(drawing);
            let state = job.record.state;
            let why = job
                .record
                .error
                .unwrap_or_else(|| format!("the job has {state}"));
            if state == State::Failed {
                show_console(&job.folder);
            }
            return Err(Failure::because(why));
        }
    }
}

/// Waits for the end of the shell.
fn attend(invocation: &Invocation, job: &Job, script: Option<&str>) -> Outcome<u8> {
    let id = job.id();
    let mut child = start_shell(invocation, job, script)?;
    let mut countdown = Countdown::new(job.record.deadline, SystemClock.unix());
    let mut hung_up = false;
    let mut gone = false;
    let mut looked = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(exit_code(status));
        }
        if invocation.cancel.is_cancelled() && !hung_up {
            hang_up(&child);
            hung_up = true;
        }
        if !gone && looked.elapsed() > NOW_AND_THEN {
            looked = Instant::now();
            if let Ok(record) = job.folder.read() {
                if let Some(left) = countdown.due(record.deadline, SystemClock.unix()) {
                    warn(&format!("the docker VM of job {id} ends in {left}"));
                }
                gone = record.state.is_over();
            } else {
                gone = true;
            }
            if gone {
                warn(&format!("the docker VM of job {id} is gone"));
            }
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
