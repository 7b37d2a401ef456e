//! Running another program to its end: own process group, bounded output, killed on cancel.

use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};

use crate::error::{Error, Result};
use crate::transfer::Context;

/// Most bytes of each of a program's outputs that are kept.
const MAX_OUTPUT: u64 = 1 << 20;

/// What a program left.
pub(crate) struct Finished {
    /// How it ended.
    pub(crate) status: ExitStatus,
    /// The start of its standard output.
    pub(crate) output: Vec<u8>,
    /// The start of its standard error, trimmed.
    pub(crate) words: String,
}

/// Runs `command` with `input` on its standard input.
///
/// Fails when it cannot be started (the `io::Error` of that) or with [`Error::Cancelled`].
pub(crate) fn run(
    mut command: Command,
    input: &[u8],
    context: &Context,
) -> Result<io::Result<Finished>> {
    context.check()?;
    let spawned = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) => return Ok(Err(error)),
    };
    let (stdin, out, err) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let group = Pid::from_child(&child);
    let (status, output, words) = std::thread::scope(|scope| {
        let out = scope.spawn(|| drain(out));
        let err = scope.spawn(|| drain(err));
        scope.spawn(|| {
            if let Some(mut stdin) = stdin {
                // A program that does not read its input shows in its exit status.
                let _ = stdin.write_all(input);
            }
        });
        let status = loop {
            if context.cancel.is_cancelled() {
                // It may have ended in between; then there is nothing to kill.
                let _ = kill_process_group(group, Signal::KILL);
            }
            match child.try_wait() {
                Ok(Some(status)) => break Ok(status),
                Ok(None) => std::thread::sleep(Duration::from_millis(10)),
                Err(error) => break Err(error),
            }
        };
        (
            status,
            out.join().unwrap_or_default(),
            err.join().unwrap_or_default(),
        )
    });
    context.check()?;
    Ok(Ok(Finished {
        status: status.map_err(Error::io("wait for", command.get_program()))?,
        output,
        words: String::from_utf8_lossy(&words).trim().to_owned(),
    }))
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
