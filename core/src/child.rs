//! Running another program to its end: own process group, bounded output, killed on cancel.

use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};

use crate::cancel::Cancel;

/// Most bytes of each of a program's outputs that are kept.
const MAX_OUTPUT: u64 = 4 << 20;

/// How often a running program is polled.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// The result of a program.
#[derive(Debug)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// The start of its standard output, at most 4 MiB.
    pub output: Vec<u8>,
    /// The start of its standard error, at most 4 MiB, trimmed.
    pub words: String,
    /// Whether the program read all of its input. A failed program often does not; its status counts first.
    pub fed: io::Result<()>,
}

/// Runs `command` with what `input` writes on its standard input; `None` when `cancel` was raised.
///
/// A cancelled program is killed with its process group. Fails when it cannot be started.
pub fn run(
    command: &mut Command,
    cancel: &Cancel,
    input: impl FnOnce(&mut dyn Write) -> io::Result<()> + Send,
) -> io::Result<Option<Finished>> {
    if cancel.is_cancelled() {
        return Ok(None);
    }
    let mut child = spawn(
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0),
    )?;
    let (stdin, out, err) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let group = Pid::from_child(&child);
    thread::scope(|scope| {
        let out = scope.spawn(|| drain(out));
        let err = scope.spawn(|| drain(err));
        let fed = scope.spawn(|| stdin.map_or(Ok(()), |mut stdin| input(&mut stdin)));
        let status = loop {
            if cancel.is_cancelled() {
                // The program may have ended in between; then nothing is left to kill.
                let _ = kill_process_group(group, Signal::KILL);
            }
            if let Some(status) = child.try_wait()? {
                break status;
            }
            thread::sleep(POLL_INTERVAL);
        };
        let finished = Finished {
            status,
            output: out.join().unwrap_or_default(),
            words: String::from_utf8_lossy(&err.join().unwrap_or_default())
                .trim()
                .to_owned(),
            fed: fed
                .join()
                .unwrap_or_else(|_| Err(io::Error::other("its input could not be made"))),
        };
        Ok((!cancel.is_cancelled()).then_some(finished))
    })
}

/// Starts a program; a program in no folder of `PATH` is [`io::ErrorKind::NotFound`].
///
/// execvp(3) answers "permission denied" instead if `PATH` has a folder that may not be searched, such as a folder of root's
/// in a user's `PATH`.
pub fn spawn(command: &mut Command) -> io::Result<Child> {
    command.spawn().map_err(|error| {
        let is_searched = Path::new(command.get_program()).components().count() == 1;
        match error.kind() {
            io::ErrorKind::PermissionDenied if is_searched => io::Error::new(
                io::ErrorKind::NotFound,
                "no folder of PATH that may be read has it",
            ),
            _ => error,
        }
    })
}

/// Reads a pipe to its end and keeps the first [`MAX_OUTPUT`] bytes.
fn drain(pipe: Option<impl Read>) -> Vec<u8> {
    let mut kept = Vec::new();
    if let Some(mut pipe) = pipe {
        // A broken pipe is the end of the output; the exit status decides.
        let _ = (&mut pipe).take(MAX_OUTPUT).read_to_end(&mut kept);
        let _ = io::copy(&mut pipe, &mut io::sink());
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn everything_it_leaves_is_told() {
        let finished = run(
            &mut sh("cat; echo oh >&2; exit 3"),
            &Cancel::new(),
            |input| input.write_all(b"in"),
        );
        let finished = finished.unwrap().unwrap();
        assert_eq!(finished.status.code(), Some(3));
        assert_eq!(finished.output, b"in");
        assert_eq!(finished.words, "oh");
        finished.fed.unwrap();
    }

    #[test]
    fn more_than_is_kept_does_not_block_it() {
        let finished = run(&mut sh("head -c 5000000 /dev/zero"), &Cancel::new(), |_| {
            Ok(())
        });
        let finished = finished.unwrap().unwrap();
        assert!(finished.status.success());
        assert_eq!(finished.output.len() as u64, MAX_OUTPUT);
    }

    #[test]
    fn input_it_does_not_read_is_told() {
        let finished = run(&mut sh("exec <&-; exit 0"), &Cancel::new(), |input| {
            input.write_all(&vec![0; 1 << 20])
        });
        let finished = finished.unwrap().unwrap();
        assert!(finished.status.success());
        assert_eq!(finished.fed.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn cancelling_ends_it_and_its_children() {
        let cancel = Cancel::new();
        let raised = cancel.clone();
        // The child of its own holds the output open: its end is waited for, too.
        let finished = run(&mut sh("sleep 600 & wait"), &cancel, move |_| {
            raised.cancel();
            Ok(())
        });
        assert!(finished.unwrap().is_none());
        assert!(
            run(&mut sh("exit 0"), &cancel, |_| Ok(()))
                .unwrap()
                .is_none()
        );
    }

    #[test]
    fn a_missing_program_is_told() {
        let missing = run(&mut Command::new("no-such-program"), &Cancel::new(), |_| {
            Ok(())
        });
        assert_eq!(missing.unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_path_that_may_not_be_searched_hides_no_missing_program() {
        // A file that nobody may execute gives the same error, to root, too.
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("no-such-program"), "").unwrap();
        let missing = spawn(Command::new("no-such-program").env("PATH", folder.path()));
        assert_eq!(missing.unwrap_err().kind(), io::ErrorKind::NotFound);
        let mine = spawn(&mut Command::new(folder.path().join("no-such-program")));
        assert_eq!(mine.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    }
}
