//! Child processes of a machine: they end when the launcher does, however it ends.
//!
//! Each is started and waited for by a thread of its own, because the kernel sends the parent-death signal when
//! the *thread* ends that started the child. Signals go through a pidfd, so that they never hit another process.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use rustix::process::{
    Pid, PidfdFlags, Signal, getpid, getppid, pidfd_open, pidfd_send_signal,
    set_parent_process_death_signal,
};

/// A running child.
#[derive(Debug)]
pub(crate) struct Process {
    pid: u32,
    handle: OwnedFd,
    exit: Receiver<io::Result<ExitStatus>>,
    ended: Option<String>,
}

impl Process {
    /// Starts `command` in a process group of its own; `before` runs in the child before it becomes the program.
    ///
    /// # Safety
    ///
    /// `before` runs between fork and exec of a process with threads: it may only do what is
    /// async-signal-safe, which rules out allocation and locks.
    #[expect(unsafe_code, reason = "code between fork and exec")]
    pub(crate) unsafe fn start(
        mut command: Command,
        mut before: impl FnMut() -> io::Result<()> + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let parent = getpid();
        let prepare = move || {
            for signal in [libc::SIGUSR1, libc::SIGUSR2] {
                // Slurm sends these to every process of a job that is about to end. A program that is started keeps
                // ignoring what was ignored.
                // SAFETY: signal(2) with SIG_IGN is async-signal-safe, and installs no code.
                if unsafe { libc::signal(signal, libc::SIG_IGN) } == libc::SIG_ERR {
                    return Err(io::Error::last_os_error());
                }
            }
            before()?;
            // After `before`: a change of credentials clears the setting.
            set_parent_process_death_signal(Some(Signal::KILL))?;
            match getppid() == Some(parent) {
                true => Ok(()),
                false => Err(io::Error::from(io::ErrorKind::BrokenPipe)),
            }
        };
        // SAFETY: the caller vouches for `before`; the rest are system calls and comparisons of numbers.
        unsafe { command.process_group(0).pre_exec(prepare) };
        let (started_tx, started) = mpsc::channel();
        let (exit_tx, exit) = mpsc::channel();
        std::thread::Builder::new()
            .name("keeper".into())
            .spawn(move || {
                let spawned = command.spawn().and_then(|child| {
                    let pid = Pid::from_child(&child);
                    Ok((pidfd_open(pid, PidfdFlags::empty())?, child))
                });
                // Ends of pipes that the command holds are the child's alone now.
                drop(command);
                match spawned {
                    Ok((handle, mut child)) => {
                        let _ = started_tx.send(Ok((child.id(), handle)));
                        let _ = exit_tx.send(child.wait());
                    }
                    Err(error) => {
                        let _ = started_tx.send(Err(error));
                    }
                }
            })?;
        let gone = || io::Error::other("the thread that starts programs is gone");
        let (pid, handle) = started.recv().map_err(|_| gone())??;
        Ok(Self {
            pid,
            handle,
            exit,
            ended: None,
        })
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Waits for the child's end, at most `timeout`; describes how the child ended.
    pub(crate) fn wait(&mut self, timeout: Duration) -> Option<&str> {
        if self.ended.is_none() {
            let how = match self.exit.recv_timeout(timeout) {
                Ok(Ok(status)) => match (status.code(), status.signal()) {
                    (Some(code), _) => format!("exited with status {code}"),
                    (None, Some(signal)) => format!("was killed by signal {signal}"),
                    (None, None) => status.to_string(),
                },
                Ok(Err(error)) => format!("could not be waited for: {error}"),
                Err(RecvTimeoutError::Disconnected) => "was lost".to_owned(),
                Err(RecvTimeoutError::Timeout) => return None,
            };
            self.ended = Some(how);
        }
        self.ended.as_deref()
    }

    /// Kills it and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        let begun = Instant::now();
        while self.wait(Duration::ZERO).is_none() && begun.elapsed() < Duration::from_secs(10) {
            // Fails only when it has ended.
            let _ = pidfd_send_signal(&self.handle, Signal::KILL);
            self.wait(Duration::from_millis(200));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(unsafe_code, reason = "the code between fork and exec does nothing")]
    fn start(program: &str, arguments: &[&str]) -> io::Result<Process> {
        let mut command = Command::new(program);
        command.args(arguments);
        // SAFETY: nothing is done before the program.
        unsafe { Process::start(command, || Ok(())) }
    }

    #[test]
    fn warnings_of_slurm_end_nothing() {
        let mut process = start("sh", &["-c", "kill -USR1 $$; kill -USR2 $$; exit 4"]).unwrap();
        let how = process.wait(Duration::from_secs(20)).unwrap();
        assert_eq!(how, "exited with status 4");
    }

    #[test]
    fn ends_are_told_in_words() {
        let mut process = start("sh", &["-c", "exit 3"]).unwrap();
        let how = process.wait(Duration::from_secs(20)).unwrap();
        assert_eq!(how, "exited with status 3");
        let mut process = start("sleep", &["1000"]).unwrap();
        assert_eq!(process.wait(Duration::from_millis(1)), None);
        process.kill();
        let how = process.wait(Duration::ZERO).unwrap();
        assert_eq!(how, "was killed by signal 9");
        assert!(start("/nonexistent", &[]).is_err());
    }
}
