//! The keeper: starts the worker, waits for it, and leaves nothing of the VM behind.
//!
//! It adopts what the worker's end orphans (it is a "child subreaper"), so that all of it can be found and killed.

use std::fs;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use pcocc_vm::job::{Backend, Jobs, Presence};
use pcocc_vm::lifeline;
use pcocc_vm::report::Report;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

use super::Assignment;
use super::folders::NodeFolders;
use super::node::Node;
use crate::allocation;
use crate::app::Invocation;
use crate::contexts;
use crate::errors::{Failure, Outcome, While as _};

/// How long a worker may take to stop the VM.
const PATIENCE: Duration = Duration::from_secs(8);

pub(super) fn run(invocation: &Invocation, assignment: &Assignment) -> Outcome {
    let action = format!("launch the VM of job {}", assignment.id);
    if assignment.backend == Backend::Local {
        leave_session(&action)?;
    }
    // What the worker leaves becomes ours.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .map_err(io::Error::from)
        .when(|| &*action)?;
    if assignment.request.held {
        let cancel = invocation.cancel.clone();
        std::thread::spawn(move || {
            // Only the end of the input matters.
            let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
            cancel.cancel();
        });
    }
    redirect_stderr(invocation, assignment, &action)?;
    let node = Node::look(invocation, &action)?;
    let folders =
        NodeFolders::new(&node.scratch, std::process::id(), assignment.id).when(|| &*action)?;
    let mut worker = start(assignment, &action)?;
    let waited = wait(invocation, assignment, &mut worker);
    let mut left = end_orphans();
    if let Err(error) = folders.remove() {
        left.get_or_insert(error);
    }
    close_record(invocation, assignment, &action)?;
    remove_contexts(invocation, assignment, &action)?;
    let status = waited.when(|| &*action)?;
    if let Some(error) = left {
        return Err(Failure::new(
            format!("clean up after job {}", assignment.id),
            error,
        ));
    }
    match status.success() {
        true => Ok(()),
        // It said why in the record and on stderr.
        false => Err(Failure::reported(1)),
    }
}

/// Leaves the terminal's session, whose end must not end the VM: who wants that, holds the lifeline.
fn leave_session(action: &str) -> Outcome {
    match rustix::process::setsid() {
        // Already a leader: whoever started us saw to it.
        Ok(_) | Err(rustix::io::Errno::PERM) => Ok(()),
        Err(error) => Err(Failure::new(action, io::Error::from(error))),
    }
}

/// Moves our stderr, and all that we start, to a log in the job's folder: a terminal or a pipe there is not ours to keep
/// open, and the record has what the user must know.
fn redirect_stderr(invocation: &Invocation, assignment: &Assignment, action: &str) -> Outcome {
    let jobs = Jobs::open(&invocation.environment.user_conf).when(|| action)?;
    let folder = assignment.folder(invocation, &jobs, action)?;
    let log = folder.launcher_log();
    let file = fs::OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(&log)
        .when(|| format!("open the log {}", log.display()))?;
    rustix::stdio::dup2_stderr(&file)
        .map_err(io::Error::from)
        .when(|| action)
}

fn start(assignment: &Assignment, action: &str) -> Outcome<Child> {
    // The file of this process, even when another version was installed meanwhile.
    let mut command = Command::new("/proc/self/exe");
    command
        .arg0("pcocc")
        .args(super::VERB)
        .arg(format!("--worker={}", std::process::id()));
    let line = assignment.request.line(action)?;
    let (worker, _) = lifeline::spawn(&mut command, &line).when(|| action)?;
    Ok(worker)
}

/// Waits for the worker; passes the first request to stop on, and kills a worker that takes too long. Reports warnings of
/// Slurm's, too, which the worker receives but leaves to the keeper.
fn wait(
    invocation: &Invocation,
    assignment: &Assignment,
    worker: &mut Child,
) -> io::Result<std::process::ExitStatus> {
    let mut told: Option<Instant> = None;
    loop {
        if let Some(name) = invocation.signals.warning() {
            let text = format!("Slurm sent the job {name}: its time is nearly over");
            assignment.report(&Report::Warning(text));
        }
        if let Some(status) = worker.try_wait()? {
            return Ok(status);
        }
        match told {
            None if invocation.cancel.is_cancelled() => {
                signal(worker.id(), Signal::TERM);
                told = Some(Instant::now());
            }
            Some(since) if since.elapsed() > PATIENCE => worker.kill()?,
            _ => {}
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Kills all that is left below us; gives an error when something does not go.
fn end_orphans() -> Option<io::Error> {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        // Those that have ended are collected first, so that what remains runs.
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

/// Our children, whichever thread of ours has them.
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
        // It may have ended by itself.
        let _ = kill_process(pid, signal);
    }
}

/// Records the job's end when the worker could not.
fn close_record(invocation: &Invocation, assignment: &Assignment, action: &str) -> Outcome {
    let jobs = Jobs::open(&invocation.environment.user_conf).when(|| action)?;
    let folder = jobs.folder(assignment.id);
    let Ok(record) = folder.read() else {
        // A folder that was removed is read by nobody.
        return Ok(());
    };
    // The record of a job that was put back into the queue belongs to the job's next launcher.
    let ours = record
        .launcher
        .as_ref()
        .is_none_or(|holder| jobs.here().presence(holder) == Presence::Gone);
    match ours {
        true => Jobs::close(&folder, invocation.cancel.is_cancelled()).when(|| action),
        false => Ok(()),
    }
}

/// Removes the job's docker contexts, and what older jobs left.
fn remove_contexts(invocation: &Invocation, assignment: &Assignment, action: &str) -> Outcome {
    let environment = &invocation.environment;
    let jobs = Jobs::open(&environment.user_conf).when(|| action)?;
    contexts::forget(environment, &jobs.folder(assignment.id));
    allocation::forget_old(environment, &jobs);
    Ok(())
}
