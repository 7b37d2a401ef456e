//! A mount that outlives the command that made it.
//!
//! Phases: the command starts itself again in the foreground, with a pipe for its stdout → the child leaves the
//! terminal's session, mounts, moves its stderr to a log file and reports over the pipe → the command ends.
//! Until then the child's errors go to the user's stderr.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use pcocc_core::cancel::Cancel;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, Signal, kill_process};

use crate::errors::{Failure, Outcome, TIMED_OUT, While as _};

/// The child's report.
const READY: &[u8] = b"ready\n";
/// Longest wait for the mount; the docker daemon may take five seconds to answer.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Starts `command` and waits until it has mounted; the child goes on by itself.
pub(super) fn start(mut command: Command, cancel: &Cancel) -> Outcome {
    let (mut reader, writer) = io::pipe()?;
    let mut child = command.stdin(Stdio::null()).stdout(writer).spawn()?;
    // The command holds the pipe's other end, too; it must be closed for the child's end to show.
    drop(command);
    let deadline = Instant::now() + TIMEOUT;
    let mut said = Vec::new();
    while said != READY {
        if cancel.is_cancelled() {
            stop(&mut child);
            return Err(pcocc_image::Error::Cancelled.into());
        }
        if Instant::now() > deadline {
            stop(&mut child);
            let why = format!("nothing was mounted within {} seconds", TIMEOUT.as_secs());
            return Err(Failure::because(why)
                .hint("mount with --foreground --debug to see where it waits")
                .code(TIMED_OUT));
        }
        let tick = rustix::event::Timespec {
            tv_sec: 0,
            tv_nsec: 100_000_000,
        };
        let mut waiting = [PollFd::new(&reader, PollFlags::IN)];
        match poll(&mut waiting, Some(&tick)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => continue,
            Ok(_) => {}
            Err(error) => return Err(io::Error::from(error).into()),
        }
        let mut buffer = [0; 16];
        match reader.read(&mut buffer)? {
            0 => {
                let status = child.wait()?;
                let code = status.code().and_then(|code| u8::try_from(code).ok());
                // The child has reported the reason on our stderr, unless a signal ended it.
                return Err(match code {
                    Some(code) if code > 0 => Failure::reported(code),
                    _ => Failure::because(format!("its process ended: {status}")),
                });
            }
            n => said.extend_from_slice(buffer.get(..n).unwrap_or_default()),
        }
    }
    Ok(())
}

/// Ends an unwanted child, in order if possible.
fn stop(child: &mut Child) {
    // The child may have ended already.
    let _ = kill_process(Pid::from_child(child), Signal::TERM);
    let deadline = Instant::now() + Duration::from_secs(5);
    while Instant::now() < deadline {
        if matches!(child.try_wait(), Ok(Some(_))) {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let _ = child.kill();
    let _ = child.wait();
}

/// In the child: leaves the session of the terminal, whose end must not end the mount.
pub(super) fn leave_session() -> Outcome {
    match rustix::process::setsid() {
        // This process leads a session already: its parent took care of it.
        Ok(_) | Err(rustix::io::Errno::PERM) => Ok(()),
        Err(error) => Err(Failure::new(
            "leave the terminal's session",
            io::Error::from(error),
        )),
    }
}

/// In the child, after mounting: moves stderr to `log`, reports to the parent, and closes stdout.
pub(super) fn announce(log: &Path) -> Outcome {
    let action = || "tell that the mount is ready";
    let file = open_log(log)?;
    rustix::stdio::dup2_stderr(&file)
        .map_err(io::Error::from)
        .when(action)?;
    io::stdout()
        .write_all(READY)
        .and_then(|()| io::stdout().flush())
        .when(action)?;
    let null = OpenOptions::new()
        .write(true)
        .open("/dev/null")
        .when(action)?;
    rustix::stdio::dup2_stdout(&null)
        .map_err(io::Error::from)
        .when(action)?;
    // The user's folder must not be kept busy.
    std::env::set_current_dir("/").when(action)
}

fn open_log(path: &Path) -> Outcome<File> {
    let action = || format!("open the log {}", path.display());
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).when(action)?;
    }
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .when(action)
}

/// Path of the log of the mount at `mount_point`.
pub(super) fn log_path(user_conf: &Path, mount_point: &Path) -> PathBuf {
    let name: String = mount_point
        .to_string_lossy()
        .trim_matches('/')
        .chars()
        .map(|c| {
            if c.is_alphanumeric() || "._-".contains(c) {
                c
            } else {
                '-'
            }
        })
        .take(100)
        .collect();
    user_conf.join("log").join(format!("mount-{name}.log"))
}
