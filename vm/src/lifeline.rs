//! The lifeline of a launcher: a pipe by which a command holds the launcher it started.
//!
//! The pipe is the launcher's standard input. Its first line is the request. When the command closes the pipe, or is gone by
//! whatever means, the launcher reads the end of it and stops the VM. srun carries the pipe from node to node. Reports come
//! back on the launcher's standard output.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use crate::report::Report;

/// How long a launcher may take to end once it is released.
const PATIENCE: Duration = Duration::from_secs(10);

/// A launcher that was started, on this machine or through srun.
#[derive(Debug)]
pub struct HeldLauncher {
    child: Child,
    lifeline: Option<ChildStdin>,
    reports: Receiver<Report>,
    ended: Option<ExitStatus>,
}

impl HeldLauncher {
    /// Starts `command` with its input and output to us, the line `request` first, in a process group of its own: what is
    /// typed at a terminal is not meant for it.
    pub fn spawn(command: &mut Command, request: &str) -> io::Result<Self> {
        let (mut child, lifeline) =
            spawn(command.stdout(Stdio::piped()).process_group(0), request)?;
        let (sender, reports) = mpsc::channel();
        if let Some(stdout) = child.stdout.take() {
            std::thread::spawn(move || {
                for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                    let Some(report) = Report::parse(&line) else {
                        tracing::debug!(line, "not a report");
                        continue;
                    };
                    if sender.send(report).is_err() {
                        return;
                    }
                }
            });
        }
        Ok(Self {
            child,
            lifeline,
            reports,
            ended: None,
        })
    }

    /// The next report, if one comes within `timeout`.
    pub fn next(&mut self, timeout: Duration) -> Option<Report> {
        match self.reports.recv_timeout(timeout) {
            Ok(report) => Some(report),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => {
                // The launcher is about to end and reports nothing more.
                std::thread::sleep(timeout.min(Duration::from_millis(10)));
                None
            }
        }
    }

    /// The launcher's exit status, if it has ended.
    pub fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait()?;
        }
        Ok(self.ended)
    }

    /// Releases the launcher, which stops the VM. Waits for its end, and kills a launcher that takes too long.
    pub fn release(&mut self) -> io::Result<ExitStatus> {
        drop(self.lifeline.take());
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                self.child.kill()?;
                return self.child.wait();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Starts `command` with the line `request` on its standard input; gives that pipe as well.
pub fn spawn(command: &mut Command, request: &str) -> io::Result<(Child, Option<ChildStdin>)> {
    let mut child = command.stdin(Stdio::piped()).spawn()?;
    let mut stdin = child.stdin.take();
    if let Some(stdin) = &mut stdin {
        // Fails for a child that has ended, which its exit status tells.
        let _ = stdin.write_all(request.as_bytes());
    }
    Ok((child, stdin))
}

impl Drop for HeldLauncher {
    fn drop(&mut self) {
        if let Err(error) = self.release() {
            tracing::warn!(%error, "the launcher did not end");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> HeldLauncher {
        HeldLauncher::spawn(Command::new("sh").args(["-c", script]), "wanted\n").unwrap()
    }

    #[test]
    fn reports_arrive_and_noise_does_not() {
        let mut launcher =
            shell("echo noise; read line; echo \"{\\\"stage\\\": \\\"$line\\\"}\"; cat");
        let report = launcher.next(Duration::from_secs(10));
        assert_eq!(report, Some(Report::Stage("wanted".into())));
        assert_eq!(launcher.ended().unwrap(), None);
        assert!(launcher.release().unwrap().success());
        assert_eq!(launcher.next(Duration::ZERO), None);
    }

    #[test]
    fn a_launcher_ends_when_it_is_dropped() {
        let launcher = shell("cat; exit 3");
        let id = launcher.child.id();
        drop(launcher);
        assert_eq!(pcocc_core::process::start_time(id), None);
    }
}
