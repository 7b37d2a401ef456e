//! The shell or script of a VM.

use std::io;
use std::process::{Child, ExitStatus};

use pcocc_core::process::die_with_parent;
use pcocc_shellenv::spawn::Spawn;
use pcocc_vm::job::Job;
use rustix::process::{Pid, Signal, kill_process};

use crate::environment::Environment;
use crate::errors::{CANNOT_RUN, Failure, NOT_FOUND, Outcome, While as _};
use crate::invocation::Invocation;

/// Starts the user's shell, or a script, with the docker environment of a job.
pub(crate) fn start_shell(
    invocation: &Invocation,
    job: &Job,
    script: Option<&str>,
) -> Outcome<Child> {
    spawn(invocation, job, script).when(|| match script {
        Some(script) => format!("run {script}"),
        None => format!("start a docker shell for job {}", job.id()),
    })
}

fn spawn(invocation: &Invocation, job: &Job, script: Option<&str>) -> Outcome<Child> {
    let environment = &invocation.environment;
    let docker = invocation.host.docker_environment(job)?;
    let variables = Environment::all();
    let shell = environment
        .shell
        .clone()
        .unwrap_or_else(|| "/bin/sh".into());
    let pcocc = std::env::current_exe()?;
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
            .map_err(|error| Failure::from(error).code(crate::errors::USAGE))?,
        None => spawn.interactive()?,
    };
    die_with_parent(&mut command, Signal::HUP);
    command.spawn().map_err(|error| {
        let code = match error.kind() {
            io::ErrorKind::NotFound => NOT_FOUND,
            _ => CANNOT_RUN,
        };
        Failure::from(error).code(code)
    })
}

/// Ends a shell like a closed terminal.
pub(crate) fn hang_up(child: &Child) {
    // Both signals fail for a shell that has ended. A stopped shell must continue to end.
    let _ = kill_process(Pid::from_child(child), Signal::HUP);
    let _ = kill_process(Pid::from_child(child), Signal::CONT);
}

/// A child's exit code, in the form of shells.
pub(crate) fn exit_code(status: ExitStatus) -> u8 {
    use std::os::unix::process::ExitStatusExt as _;
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}
