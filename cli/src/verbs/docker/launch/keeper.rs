//! The keeper: starts the worker, waits for it, and leaves nothing of the VM behind.
//!
//! As a "child subreaper" it adopts the worker's orphans, so that all of them can be found and killed.

use std::fs;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use pcocc_core::beneath;
use pcocc_vm::job::{Backend, Jobs, Presence};
use pcocc_vm::lifeline;
use pcocc_vm::report::Report;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

use super::Assignment;
use super::folders::NodeFolders;
use super::node::Node;
use crate::contexts;
use crate::errors::{Failure, Outcome, While as _};
use crate::invocation::Invocation;
use crate::old_jobs;

/// How long a worker may take to stop the VM.
const PATIENCE: Duration = Duration::from_secs(8);

pub(super) fn run(invocation: &Invocation, assignment: &Assignment) -> Outcome {
    if assignment.backend == Backend::Local {
        leave_session()?;
    }
    // The worker's orphans become children of this process.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .map_err(io::Error::from)?;
    if assignment.request.held {
        let cancel = invocation.cancel.clone();
        std::thread::spawn(move || {
            // Only the end of the input matters.
            let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
            cancel.cancel();
        });
    }
    redirect_stderr(invocation, assignment)?;
    let node = Node::describe(invocation)?;
    let folders = NodeFolders::new(&node, std::process::id(), assignment.id)?;
    let mut worker = start(assignment)?;
    let waited = wait(invocation, assignment, &mut worker);
    let mut left = end_orphans();
    if let Err(error) = folders.remove() {
        left.get_or_insert(error);
    }
    close_record(invocation, assignment)?;
    remove_contexts(invocation, assignment)?;
    let status = waited?;
    if let Some(error) = left {
        return Err(Failure::new(
            format!("clean up after job {}", assignment.id),
            error,
        ));
    }
    match status.success() {
        true => Ok(()),
        // The worker has said why in the record and on stderr.
        false => Err(Failure::reported(1)),
    }
}

/// Leaves the terminal's session, whose end must not end the VM: only the lifeline ends the VM.
fn leave_session() -> Outcome {
    match rustix::process::setsid() {
        // This process leads a session already.
        Ok(_) | Err(rustix::io::Errno::PERM) => Ok(()),
        Err(error) => Err(Failure::from(io::Error::from(error))),
    }
}

/// Redirects stderr, for the worker too, to a log in the job's folder: a launcher must not keep a terminal or a
/// pipe open. The record has the messages for the user.
fn redirect_stderr(invocation: &Invocation, assignment: &Assignment) -> Outcome {
    let folder = assignment.folder(invocation)?;
    let log = folder.launcher_log();
    let file =
        beneath::append_to(&log, 0o600).when(|| format!("open the log {}", log.display()))?;
    rustix::stdio::dup2_stderr(&file).map_err(io::Error::from)?;
    Ok(())
}

fn start(assignment: &Assignment) -> Outcome<Child> {
    // The file of this process, even if another version was installed meanwhile.
    let mut command = Command::new("/proc/self/exe");
    command
        .arg0("pcocc")
        .args(super::VERB)
        .arg(format!("--worker={}", std::process::id()));
    let line = assignment.request.line()?;
    let (worker, _) = lifeline::spawn(&mut command, &line)?;
    Ok(worker)
}

/// Waits for the worker. Passes on the first request to stop, and kills a worker that takes too long. Reports
/// Slurm's warnings; the worker receives them as well and ignores them.
fn wait(
    invocation: &Invocation,
    assignment: &Assignment,
    worker: &mut Child,
) -> io::Result<std::process::ExitStatus> {
    let mut stopped: Option<Instant> = None;
    loop {
        if let Some(name) = invocation.signals.warning() {
            let text = format!("Slurm sent the job {name}: its time is nearly over");
            assignment.report(&Report::Warning(text));
        }
        if let Some(status) = worker.try_wait()? {
            return Ok(status);
        }
        match stopped {
            None if invocation.cancel.is_cancelled() => {
                signal(worker.id(), Signal::TERM);
                stopped = Some(Instant::now());
            }
            Some(since) if since.elapsed() > PATIENCE => worker.kill()?,
            _ => {}
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Kills all remaining children; returns the error of a child that does not end.
fn end_orphans() -> Option<io::Error> {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        // Ended children are collected first: the others still run.
        while let Ok(Some(_)) = waitpid(None, WaitOptions::NOHANG) {}
        let children = children();
        if children.is_empty() {
            return None;
        }
        if Instant::now() > deadline {
            let why = format!("processes {children:?} do not end");
            return Some(io::Error::new(io::ErrorKind::TimedOut, why));
        }
        for child in children {
            signal(child, Signal::KILL);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The children of all threads of this process.
fn children() -> Vec<u32> {
    let tasks = fs::read_dir("/proc/self/task").into_iter().flatten();
    tasks
        .flatten()
        .filter_map(|task| fs::read_to_string(task.path().join("children")).ok())
        .flat_map(|text| {
            text.split_whitespace()
                .filter_map(|pid| pid.parse().ok())
                .collect::<Vec<u32>>()
        })
        .collect()
}

fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // The signal fails for a process that has ended.
        let _ = kill_process(pid, signal);
    }
}

/// Records the job's end if the worker could not.
fn close_record(invocation: &Invocation, assignment: &Assignment) -> Outcome {
    let jobs = invocation.host.jobs()?;
    let folder = jobs.folder(assignment.id);
    let Ok(record) = folder.read() else {
        // The folder was removed, and no record is needed.
        return Ok(());
    };
    // The record of a job in the queue again belongs to the job's next launcher.
    let ours = record
        .launcher
        .as_ref()
        .is_none_or(|holder| jobs.here().presence(holder) == Presence::Gone);
    match ours {
        true => Ok(Jobs::close(&folder, invocation.cancel.is_cancelled())?),
        false => Ok(()),
    }
}

/// Removes the job's docker contexts and the remains of older jobs.
fn remove_contexts(invocation: &Invocation, assignment: &Assignment) -> Outcome {
    let host = &invocation.host;
    contexts::forget(host, &host.jobs()?.folder(assignment.id));
    old_jobs::clean_up(host);
    Ok(())
}
