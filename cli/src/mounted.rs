//! A mounted tree for the time of a shell or VM.

use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use pcocc_core::process::die_with_parent;
use pcocc_vm::job::Job;
use rustix::process::{Pid, Signal, kill_process};

use crate::environment::Environment;
use crate::errors::{Failure, Outcome, While as _};
use crate::invocation::Invocation;

/// A mount, which ends when dropped.
#[derive(Debug)]
pub(crate) struct Mounted(Child);

/// Mounts the images of a job's docker daemon and of the repositories at `point`.
pub(crate) fn mount(invocation: &Invocation, job: &Job, point: &Path) -> Outcome<Mounted> {
    start(invocation, job, point).when(|| format!("mount {}", point.display()))
}

fn start(invocation: &Invocation, job: &Job, point: &Path) -> Outcome<Mounted> {
    let docker = invocation.host.docker_environment(job)?;
    let program = std::env::current_exe()?;
    let mut command = Command::new(program);
    command
        .args(["docker", "mount", "--foreground", "--"])
        .arg(point);
    docker.activate(&Environment::all()).apply(&mut command);
    // A mount of its own logs its beginning and its end. This one ends with the shell on whose terminal its log is.
    if invocation.environment.log.is_none() {
        command.env("PCOCC_LOG", "warn");
    }
    // The mount unmounts on SIGTERM. Keys of the terminal do not reach it.
    die_with_parent(&mut command, Signal::TERM);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .process_group(0)
        .spawn()?;
    let stdout = child.stdout.take();
    let mounted = Mounted(child);
    let mut line = String::new();
    if let Some(stdout) = stdout {
        BufReader::new(stdout).read_line(&mut line)?;
    }
    match line.starts_with("Mounted") {
        true => Ok(mounted),
        // The mount has said why.
        false => Err(Failure::reported(1)),
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // The mount may have ended already.
        let _ = kill_process(Pid::from_child(&self.0), Signal::TERM);
        if let Err(error) = self.0.wait() {
            tracing::debug!(%error, "the mount's process is not waited for");
        }
    }
}
