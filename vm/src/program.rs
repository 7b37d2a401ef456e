//! Running another program to its end, with an error for each way in which it fails.

use std::io::{self, Write};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};

use pcocc_core::cancel::Cancel;
use pcocc_core::child;

use crate::machine::MachineError;

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
    let finished = child::run(command, cancel, input)
        .map_err(|error| not_started(command, package, error))?
        .ok_or(MachineError::Cancelled)?;
    if !finished.status.success() {
        return Err(MachineError::Hypervisor {
            why: match finished.words.is_empty() {
                true => format!("ended with {}", finished.status),
                false => format!("says: {}", finished.words),
            },
            program,
        });
    }
    finished.fed.map_err(MachineError::io("feed", &program))?;
    Ok(finished.output)
}

/// Starts `command` with pipes, in a process group of its own.
pub(crate) fn spawn(command: &mut Command, package: &'static str) -> Result<Child, MachineError> {
    child::spawn(
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0),
    )
    .map_err(|error| not_started(command, package, error))
}

/// The error of a program that could not be started.
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
