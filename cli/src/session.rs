//! A VM with the lifetime of a shell: the part of `alloc` that begins with a running launcher, local or in a
//! Slurm allocation.
//!
//! Phases: wait until docker answers → run the shell, or a script → release the launcher, which stops the VM.
//! Ctrl-C during the wait, a closed terminal, and the end of the VM lead to the last phase.

mod console;
mod limits;
mod shell;

use std::fs;
use std::path::Path;
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use pcocc_vm::clock::{Clock as _, SystemClock};
use pcocc_vm::job::{Job, JobFolder, Jobs, Record, State};
use pcocc_vm::lifeline::HeldLauncher;
use pcocc_vm::report::Report;

use self::console::last_line;
pub(crate) use self::console::show_console;
pub(crate) use self::limits::{Countdown, GiveUp};
pub(crate) use self::shell::{exit_code, hang_up, start_shell};
use crate::contexts;
use crate::errors::{Failure, Outcome, While as _};
use crate::invocation::Invocation;
use crate::messages::{self, warn};
use crate::mounted;

/// How long a shell may take to end after SIGHUP.
const PATIENCE: Duration = Duration::from_secs(5);

/// A VM and its shell.
#[derive(Debug)]
pub(crate) struct Session<'a> {
    /// The job's folder.
    pub(crate) folder: JobFolder,
    /// The job's launcher.
    pub(crate) launcher: HeldLauncher,
    /// The command line to run instead of an interactive shell.
    pub(crate) script: Option<&'a str>,
    /// Folder that shows the images.
    pub(crate) mount: Option<&'a Path>,
    /// When the wait ends.
    pub(crate) give_up: Option<GiveUp>,
    /// Whether the launcher is on another node: then the wait begins with the node.
    pub(crate) elsewhere: bool,
}

impl Session<'_> {
    /// Waits, runs the shell, and ends the VM; returns the shell's exit code.
    pub(crate) fn run(mut self, invocation: &Invocation) -> Outcome<u8> {
        let result = self.live(invocation);
        let action = format!("stop the VM of job {}", self.folder.id());
        let released = self.launcher.release().when(|| action);
        // The launcher has recorded the job's end, unless it was killed together with its keeper.
        if let Err(error) = Jobs::close(&self.folder, invocation.cancel.is_cancelled()) {
            tracing::debug!(%error, "the record stays as it is");
        }
        // The shell's start files are useless now; the rest of the folder is kept for the job's logs.
        let _ = fs::remove_dir_all(self.folder.path().join("shell"));
        contexts::forget(&invocation.host, &self.folder);
        let code = result?;
        released?;
        Ok(code)
    }

    fn live(&mut self, invocation: &Invocation) -> Outcome<u8> {
        let record = self
            .wait(invocation)
            .when(|| format!("start the VM of job {}", self.folder.id()))?;
        let job = Job {
            folder: self.folder.clone(),
            record,
            confirmed: true,
        };
        let _mount = match self.mount {
            Some(point) => Some(mounted::mount(invocation, &job, point)?),
            None => None,
        };
        if self.script.is_none() {
            invocation.announce("Starting the docker shell ...");
        }
        let mut child = start_shell(invocation, &job, self.script)?;
        self.wait_for_shell(invocation, &job, &mut child)
            .when(|| format!("run a shell for job {}", self.folder.id()))
    }

    /// Waits until docker answers.
    fn wait(&mut self, invocation: &Invocation) -> Outcome<Record> {
        let mut first = match self.elsewhere {
            true => self.reach_node(invocation)?,
            false => None,
        };
        let (drawing, context) = invocation.draw();
        context.progress.stage("Waiting for docker VM to start ...");
        let mut over = None;
        loop {
            let report = first.take();
            match report.or_else(|| self.launcher.next(Duration::from_millis(20))) {
                Some(Report::Record(record)) if record.state == State::Ready => {
                    return Ok(*record);
                }
                Some(Report::Record(record)) if record.state.is_over() => over = Some(record),
                Some(Report::Record(_)) => {}
                Some(Report::Stage(stage)) => context.progress.stage(stage),
                Some(Report::Warning(text)) => context.progress.warn(text),
                None => {}
            }
            if invocation.cancel.is_cancelled() {
                drop(drawing);
                return Err(Failure::because("interrupted"));
            }
            if let Some(give_up) = self.give_up.filter(GiveUp::is_over) {
                drop(drawing);
                let failure = give_up.failure();
                show_console(&self.folder);
                return Err(failure);
            }
            if let Some(status) = self.launcher.ended()? {
                drop(drawing);
                // The last reports may still be in the pipe.
                while let Some(report) = self.launcher.next(Duration::from_millis(20)) {
                    if let Report::Record(record) = report {
                        over = Some(record);
                    }
                }
                return Err(self.start_failure(over.map(|record| *record), status));
            }
        }
    }

    /// Waits for the launcher's first report from its node, or for the end of the wait.
    fn reach_node(&mut self, invocation: &Invocation) -> Outcome<Option<Report>> {
        let speaks = !invocation.is_quiet();
        if speaks {
            messages::complain("Configuring hosts...");
        }
        let report = loop {
            let report = self.launcher.next(Duration::from_millis(20));
            let over = invocation.cancel.is_cancelled()
                || self.give_up.is_some_and(|give_up| give_up.is_over())
                || self.launcher.ended().when(|| "wait for srun")?.is_some();
            if report.is_some() || over {
                break report;
            }
        };
        if speaks {
            messages::complain(match report {
                Some(_) => " (done)\n",
                None => "\n",
            });
        }
        Ok(report)
    }

    /// The failure of a VM that did not start.
    fn start_failure(&self, record: Option<Record>, status: ExitStatus) -> Failure {
        let record = record.or_else(|| self.folder.read().ok());
        let why = match record {
            Some(Record {
                error: Some(why), ..
            }) => why,
            Some(record) if record.state == State::Ended => {
                "the job was ended before it was ready".to_owned()
            }
            _ => match last_line(&self.folder.launcher_log()) {
                Some(line) => line,
                None => format!("its launcher ended: {status}"),
            },
        };
        // A launcher that ended before taking over the record has not recorded its end.
        if let Ok(mut record) = self.folder.read()
            && record.state == State::Queued
        {
            record.error = Some(why.clone());
            if let Err(error) = self.folder.write(&record) {
                tracing::debug!(%error, "the record stays");
            }
        }
        show_console(&self.folder);
        Failure::because(why)
    }

    /// Waits for the shell's end. Warns the user before the end of the VM; hangs up after it.
    fn wait_for_shell(
        &mut self,
        invocation: &Invocation,
        job: &Job,
        child: &mut Child,
    ) -> Outcome<u8> {
        let mut deadline = job.record.deadline;
        let mut countdown = Countdown::new(deadline, SystemClock.unix());
        let mut hung_up: Option<Instant> = None;
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(exit_code(status));
            }
            match self.launcher.next(Duration::from_millis(10)) {
                Some(Report::Record(record)) => deadline = record.deadline,
                Some(Report::Warning(text)) => warn(&text),
                Some(Report::Stage(_)) | None => {}
            }
            if let Some(minutes) = countdown.due(deadline, SystemClock.unix()) {
                warn(&format!(
                    "the docker VM of job {} ends in {minutes}",
                    self.folder.id()
                ));
            }
            match hung_up {
                Some(since) if since.elapsed() > PATIENCE => child.kill()?,
                Some(_) => {}
                None => {
                    let gone = self.launcher.ended()?.is_some();
                    if gone {
                        let why = self.folder.read().ok().and_then(|record| record.error);
                        let because = why.map_or_else(String::new, |why| format!(": {why}"));
                        warn(&format!(
                            "the docker VM of job {} is gone{because}",
                            self.folder.id()
                        ));
                    }
                    if gone || invocation.cancel.is_cancelled() {
                        hang_up(child);
                        hung_up = Some(Instant::now());
                    }
                }
            }
        }
    }
}
