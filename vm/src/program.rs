//! Running another program to its end: own process group, killed on cancel.

use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use pcocc_core::cancel::Cancel;
use rustix::process::{Pid, Signal, kill_process_group};

use crate::machine::MachineError;

/// Most bytes of each of a program's outputs that are kept.
const MAX_OUTPUT: u64 = 4 << 20;

/// Runs `command` to its end and gives its standard output; `package` is the Debian package it is in.
pub(crate) fn run(
    command: &mut Command,
    package: &'static str,
    cancel: &Cancel,
) -> Result<Vec<u8>, MachineError> {
    feed(command, package, cancel, |_| Ok(()))
}

/// Runs `command` with what `input` writes on its standard input.
pub(crate) fn feed(
    command: &mut Command,
    package: &'static str,
    cancel: &Cancel,
    input: impl FnOnce(&mut dyn Write) -> io::Result<()> + Send,
) -> Result<Vec<u8>, MachineError> {
    let program = command.get_program().to_string_lossy().into_owned();
    let mut child = spawn(command, package)?;
    let (stdin, out, err) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let group = Pid::from_child(&child);
    let (status, out, err, fed) = std::thread::scope(|scope| {
        let out = scope.spawn(|| drain(out));
        let err = scope.spawn(|| drain(err));
        let fed = scope.spawn(|| match stdin {
            Some(mut stdin) => input(&mut stdin),
            None => Ok(()),
        });
        let status = loop {
            if cancel.is_cancelled() {
                // It may have ended in between; then there is nothing to kill.
                let _ = kill_process_group(group, Signal::KILL);
            }
            match child.try_wait() {
                Ok(Some(status)) => break Ok(status),
                Ok(None) => std::thread::sleep(Duration::from_millis(5)),
                Err(error) => break Err(error),
            }
        };
        (
            status,
            out.join().unwrap_or_default(),
            err.join().unwrap_or_default(),
            fed.join(),
        )
    });
    if cancel.is_cancelled() {
        return Err(MachineError::Cancelled);
    }
    let status = status.map_err(MachineError::io("wait for", &program))?;
    if !status.success() {
        let words = String::from_utf8_lossy(&err);
        let words = words.trim();
        return Err(MachineError::Hypervisor {
            why: match words.is_empty() {
                true => format!("ended with {status}"),
                false => format!("says: {words}"),
            },
            program,
        });
    }
    match fed {
        Ok(Err(error)) => Err(MachineError::io("feed", &program)(error)),
        _ => Ok(out),
    }
}

/// Starts `command` with pipes, in a process group of its own.
pub(crate) fn spawn(command: &mut Command, package: &'static str) -> Result<Child, MachineError> {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(|error| not_started(command, package, error))
}

/// Says why a program could not be started.
pub(crate) fn not_started(
    command: &Command,
    package: &'static str,
    error: io::Error,
) -> MachineError {
    let program = command.get_program().to_string_lossy().into_owned();
    match error.kind() {
        io::ErrorKind::NotFound => MachineError::ProgramMissing { program, package },
        _ => MachineError::io("start", program)(error),
    }
}

/// Reads a pipe to its end and keeps the first [`MAX_OUTPUT`] bytes.
fn drain(pipe: Option<impl Read>) -> Vec<u8> {
    let mut kept = Vec::new();
    if let Some(mut pipe) = pipe {
        // A pipe that breaks has said all it will say; the exit status decides.
        let _ = (&mut pipe).take(MAX_OUTPUT).read_to_end(&mut kept);
        let _ = io::copy(&mut pipe, &mut io::sink());
    }
    kept
}
