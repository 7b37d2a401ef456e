//! A VM that lives as long as a shell: what `alloc` does once a launcher runs, locally or in a Slurm allocation.
//!
//! Phases: wait until docker answers → the shell, or a script → let the launcher go, which stops the VM. Ctrl-C while
//! waiting, a closed terminal, a VM that ends: each leads to the last phase.

use std::fs;
use std::io::{self, BufRead as _};
use std::path::Path;
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant, SystemTime};

use pcocc_core::process::die_with_parent;
use pcocc_shellenv::spawn::Spawn;
use pcocc_vm::clock::{Clock as _, SystemClock};
use pcocc_vm::job::{Job, JobFolder, JobId, Jobs, Record, State};
use pcocc_vm::lifeline::HeldLauncher;
use pcocc_vm::report::Report;
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use crate::app::Invocation;
use crate::contexts;
use crate::environment::Environment;
use crate::errors::{CANNOT_RUN, Failure, NOT_FOUND, Outcome, TIMED_OUT, While as _};
use crate::jobs;
use crate::mounted;
use crate::output;
use crate::progress::warn;

/// How many of the console's last lines are shown when a VM does not come up.
const LAST_LINES: usize = 15;
/// How long a shell may take to end once it is told to.
const PATIENCE: Duration = Duration::from_secs(5);
/// When a shell is told that its time runs out, in seconds before the end.
const WARNINGS: [u64; 2] = [600, 60];

/// A VM and the shell it is for.
#[derive(Debug)]
pub(crate) struct Session<'a> {
    /// The job's number.
    pub(crate) id: JobId,
    /// Its folder.
    pub(crate) folder: JobFolder,
    /// Its launcher.
    pub(crate) launcher: HeldLauncher,
    /// What to run instead of an interactive shell.
    pub(crate) script: Option<&'a str>,
    /// Where to show the images as folders.
    pub(crate) mount: Option<&'a Path>,
    /// When waiting ends.
    pub(crate) give_up: Option<GiveUp>,
    /// Whether the launcher is on a node of Slurm's, which is told as a step of its own.
    pub(crate) elsewhere: bool,
}

/// When a wait is too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GiveUp {
    /// Then.
    pub(crate) at: SystemTime,
    /// The whole wait, in seconds.
    pub(crate) seconds: u64,
}

impl GiveUp {
    /// In so many seconds from now.
    pub(crate) fn after(seconds: u64) -> Self {
        Self {
            at: SystemTime::now() + Duration::from_secs(seconds),
            seconds,
        }
    }

    /// Whether it is over.
    pub(crate) fn is_over(&self) -> bool {
        SystemTime::now() >= self.at
    }

    /// The failure of a wait for the VM of a job.
    pub(crate) fn failure(&self, what: &str) -> Failure {
        let why = format!("it was not ready within {} seconds", self.seconds);
        Failure::message(what, why)
            .hint("give it more time with -T, or see what it does with `pcocc docker logs`")
            .code(TIMED_OUT)
    }
}

impl Session<'_> {
    /// Waits, runs the shell, and ends the VM; gives the shell's exit code.
    pub(crate) fn run(mut self, invocation: &Invocation) -> Outcome<u8> {
        let result = self.live(invocation);
        let action = format!("stop the VM of job {}", self.id);
        let released = self.launcher.release().when(|| action);
        // It has written down how the job ended, but where it was killed with all that could have done so for it.
        if let Err(error) = Jobs::close(&self.folder, invocation.cancel.is_cancelled()) {
            tracing::debug!(%error, "the record stays as it is");
        }
        // Once it is over nobody needs them; a later look at the job is for its words.
        let _ = fs::remove_dir_all(self.folder.path().join("shell"));
        contexts::forget(&invocation.environment, &self.folder);
        let code = result?;
        released?;
        Ok(code)
    }

    fn live(&mut self, invocation: &Invocation) -> Outcome<u8> {
        let action = format!("start the VM of job {}", self.id);
        let record = self.wait(invocation, &action)?;
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
            invocation.tell("Starting the docker shell ...");
        }
        let mut child = start_shell(invocation, &job, self.script)?;
        self.attend(invocation, &job, &mut child)
    }

    /// Waits until docker answers.
    fn wait(&mut self, invocation: &Invocation, action: &str) -> Outcome<Record> {
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
                return Err(Failure::message(action, "interrupted"));
            }
            if let Some(give_up) = self.give_up.filter(GiveUp::is_over) {
                drop(drawing);
                let failure = give_up.failure(action);
                show_console(&self.folder);
                return Err(failure);
            }
            if let Some(status) = self.launcher.ended().when(|| action)? {
                drop(drawing);
                // The last words may still be on their way.
                while let Some(report) = self.launcher.next(Duration::from_millis(20)) {
                    if let Report::Record(record) = report {
                        over = Some(record);
                    }
                }
                return Err(self.explain(over.map(|record| *record), status, action));
            }
        }
    }

    /// Waits for the launcher's first word from its node, or for what ends the wait.
    fn reach_node(&mut self, invocation: &Invocation) -> Outcome<Option<Report>> {
        let speaks = invocation.speaks();
        if speaks {
            output::complain("Configuring hosts...");
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
            output::complain(match report {
                Some(_) => " (done)\n",
                None => "\n",
            });
        }
        Ok(report)
    }

    /// Why there is no VM.
    fn explain(&self, record: Option<Record>, status: ExitStatus, action: &str) -> Failure {
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
        // One that did not come so far as to take the record over left it as we wrote it.
        if let Ok(mut record) = self.folder.read()
            && record.state == State::Queued
        {
            record.error = Some(why.clone());
            if let Err(error) = self.folder.write(&record) {
                tracing::debug!(%error, "the record stays");
            }
        }
        show_console(&self.folder);
        Failure::message(action, why)
    }

    /// Stays with the shell until it ends; tells it when the VM or its time does.
    fn attend(&mut self, invocation: &Invocation, job: &Job, child: &mut Child) -> Outcome<u8> {
        let action = || format!("run a shell for job {}", self.id);
        let mut deadline = job.record.deadline;
        let mut countdown = Countdown::new(deadline, SystemClock.unix());
        let mut hung_up: Option<Instant> = None;
        loop {
            if let Some(status) = child.try_wait().when(action)? {
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
                    self.id
                ));
            }
            match hung_up {
                Some(since) if since.elapsed() > PATIENCE => child.kill().when(action)?,
                Some(_) => {}
                None => {
                    let gone = self.launcher.ended().when(action)?.is_some();
                    if gone {
                        let why = self.folder.read().ok().and_then(|record| record.error);
                        let because = why.map_or_else(String::new, |why| format!(": {why}"));
                        warn(&format!(
                            "the docker VM of job {} is gone{because}",
                            self.id
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

/// Says when a shell's time runs out.
#[derive(Debug)]
pub(crate) struct Countdown {
    told: u64,
}

impl Countdown {
    /// Starts at `now`; what is nearly over already is not worth a warning.
    pub(crate) fn new(deadline: Option<u64>, now: u64) -> Self {
        let left = deadline.map_or(u64::MAX, |deadline| deadline.saturating_sub(now));
        let told = WARNINGS.into_iter().filter(|at| *at >= left).min();
        Self {
            told: told.unwrap_or(u64::MAX),
        }
    }

    /// What is left, in words, when a warning is due.
    pub(crate) fn due(&mut self, deadline: Option<u64>, now: u64) -> Option<String> {
        let left = deadline?.saturating_sub(now);
        let at = WARNINGS.into_iter().filter(|at| left <= *at).min()?;
        if at >= self.told {
            return None;
        }
        self.told = at;
        Some(match left {
            left if left >= 120 => format!("{} minutes", left / 60),
            left => format!("{left} seconds"),
        })
    }
}

/// Starts the user's shell, or a script, with the docker environment of a job.
pub(crate) fn start_shell(
    invocation: &Invocation,
    job: &Job,
    script: Option<&str>,
) -> Outcome<Child> {
    let action = || match script {
        Some(script) => format!("run {script}"),
        None => format!("start a docker shell for job {}", job.id()),
    };
    let environment = &invocation.environment;
    let docker = jobs::docker_environment(environment, job, &action())?;
    let variables = Environment::all();
    let shell = environment
        .shell
        .clone()
        .unwrap_or_else(|| "/bin/sh".into());
    let pcocc = std::env::current_exe().when(action)?;
    let spawn = Spawn {
        shell: &shell,
        environment: &docker,
        variables: &variables,
        pcocc: &pcocc,
        folder: &job.folder.path().join("shell"),
    };
    let mut command = match script {
        Some(script) => spawn
            .script(script)
            .map_err(|error| Failure::new(action(), error).code(crate::errors::USAGE))?,
        None => spawn.interactive().when(action)?,
    };
    die_with_parent(&mut command, Signal::HUP);
    command.spawn().map_err(|error| {
        let code = match error.kind() {
            io::ErrorKind::NotFound => NOT_FOUND,
            _ => CANNOT_RUN,
        };
        Failure::new(action(), error).code(code)
    })
}

/// Ends a shell as a closed terminal does.
pub(crate) fn hang_up(child: &Child) {
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        // It may have ended by itself; one that is stopped has to go on to end.
        let _ = kill_process(pid, Signal::HUP);
        let _ = kill_process(pid, Signal::CONT);
    }
}

/// A child's exit code, as shells give it.
pub(crate) fn exit_code(status: ExitStatus) -> u8 {
    use std::os::unix::process::ExitStatusExt as _;
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

/// Shows the console's last lines on stderr.
pub(crate) fn show_console(folder: &JobFolder) {
    let lines = last_lines(&folder.console_log(), LAST_LINES);
    if !lines.is_empty() {
        output::complain("Last lines of the VM's console:\n");
        for line in lines {
            output::complain(&format!("  {}\n", output::printable(line.trim_end())));
        }
    }
}

/// The last lines of a file that is read lossily; none when it cannot be read.
fn last_lines(path: &Path, count: usize) -> Vec<String> {
    use std::io::{Seek as _, SeekFrom};
    let Ok(mut file) = fs::File::open(path) else {
        return Vec::new();
    };
    let length = file.metadata().map_or(0, |metadata| metadata.len());
    // Lines of a console are short; a few of them fit many times.
    if file
        .seek(SeekFrom::Start(length.saturating_sub(64 << 10)))
        .is_err()
    {
        return Vec::new();
    }
    let mut lines: Vec<String> = io::BufReader::new(file)
        .split(b'\n')
        .map_while(Result::ok)
        .map(|line| String::from_utf8_lossy(&line).trim_end().to_owned())
        .filter(|line| !line.is_empty())
        .collect();
    lines.split_off(lines.len().saturating_sub(count))
}

fn last_line(path: &Path) -> Option<String> {
    last_lines(path, 1).pop()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_countdown_warns_once_for_each_time() {
        let mut countdown = Countdown::new(Some(2000), 1000);
        assert_eq!(countdown.due(Some(2000), 1000), None);
        assert_eq!(countdown.due(Some(2000), 1400).unwrap(), "10 minutes");
        assert_eq!(countdown.due(Some(2000), 1401), None);
        assert_eq!(countdown.due(Some(2000), 1941).unwrap(), "59 seconds");
        assert_eq!(countdown.due(Some(2000), 1999), None);
        assert_eq!(countdown.due(None, 0), None);
        // A job of half a minute needs no warning.
        let mut countdown = Countdown::new(Some(1030), 1000);
        assert_eq!(countdown.due(Some(1030), 1001), None);
        let mut countdown = Countdown::new(Some(1300), 1000);
        assert_eq!(countdown.due(Some(1300), 1010), None);
        assert_eq!(countdown.due(Some(1300), 1241).unwrap(), "59 seconds");
    }

    #[test]
    fn a_wait_is_over_at_its_end() {
        assert!(!GiveUp::after(60).is_over());
        assert!(GiveUp::after(0).is_over());
    }

    #[test]
    fn the_last_lines_of_a_console() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), b"a\r\n\r\nb\xff\nc").unwrap();
        assert_eq!(last_lines(file.path(), 2).len(), 2);
        assert_eq!(last_line(file.path()).unwrap(), "c");
        assert!(last_lines(Path::new("/nonexistent"), 3).is_empty());
    }
}
