//! A small process that unmounts when the mount's process was killed.
//!
//! Phases: the guard starts before the mount, with a pipe as its standard input → the mount's process writes
//! the mount's ID → after unmounting, it writes `bye`. If the pipe ends without `bye`, the process was killed:
//! the guard waits until all files of the process are closed, and unmounts, unless another mount is there by
//! then. The mount point is locked meanwhile, so that no new mount comes between check and unmount.

use std::io::{BufRead, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::mount_error::MountError;
use crate::mountpoint::{MountLock, absolute, is_dead, mount_at, unmount_now};

/// Prefix of the line with the mount's ID.
const MOUNTED: &str = "mounted ";

/// The line before an orderly end.
const BYE: &str = "bye";

/// How long a killed process may take to end: closing large files takes time.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long a guard may take to end.
const LEAVING: Duration = Duration::from_secs(1);

/// The guard, for the mount's process. Dropping it without [`Guard::dismiss`] has the effect of a kill.
#[derive(Debug)]
pub(crate) struct Guard {
    process: Child,
    pipe: Option<ChildStdin>,
}

impl Guard {
    /// Starts a guard; a mount works without a guard.
    pub(crate) fn start(mut command: Command) -> Option<Self> {
        match command.stdin(Stdio::piped()).spawn() {
            Ok(mut process) => Some(Self {
                pipe: process.stdin.take(),
                process,
            }),
            Err(error) => {
                tracing::warn!(%error, "no guard: a mount whose process is killed stays until the next one");
                None
            }
        }
    }

    /// Tells the guard the mount's ID.
    pub(crate) fn watch(&mut self, id: &str) {
        self.say(&format!("{MOUNTED}{id}\n"));
    }

    /// Ends the guard after unmounting.
    pub(crate) fn dismiss(mut self) {
        self.say(&format!("{BYE}\n"));
        drop(self.pipe.take());
        let until = Instant::now() + LEAVING;
        while matches!(self.process.try_wait(), Ok(None)) && Instant::now() < until {
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn say(&mut self, words: &str) {
        if let Some(pipe) = &mut self.pipe
            && let Err(error) = pipe.write_all(words.as_bytes())
        {
            tracing::debug!(%error, "the guard is gone");
        }
    }
}

/// The result of a guard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guarded {
    /// The mount ended in order; nothing was done.
    Dismissed,
    /// The mount was gone; nothing was done.
    Gone,
    /// The mount was dead, and the guard unmounted it.
    Unmounted,
}

/// Guards the mount at `mountpoint` of our parent, the process `server`; `words` are the lines of that process.
pub fn guard(mountpoint: &Path, server: u32, words: impl BufRead) -> Result<Guarded, MountError> {
    let mut id = None;
    for line in words.lines() {
        match line {
            Ok(word) if word == BYE => return Ok(Guarded::Dismissed),
            Ok(word) => id = word.strip_prefix(MOUNTED).map(str::to_owned).or(id),
            Err(_) => break,
        }
    }
    // A process closes its files, and with them the mount's connection, before its children get another parent.
    let until = Instant::now() + PATIENCE;
    while parent() == Some(server) && Instant::now() < until {
        thread::sleep(Duration::from_millis(10));
    }
    let path = absolute(mountpoint)?;
    let _lock = MountLock::take(&path)?;
    match mount_at(&path)? {
        Some(mounted) if mounted.is_ours() && id.is_none_or(|id| id == mounted.id) => {}
        _ => return Ok(Guarded::Gone),
    }
    if !is_dead(&path) {
        // A newer mount may have the same ID.
        return Ok(Guarded::Gone);
    }
    unmount_now(&path)?;
    Ok(Guarded::Unmounted)
}

fn parent() -> Option<u32> {
    let parent = rustix::process::getppid()?;
    u32::try_from(parent.as_raw_nonzero().get()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_happens_where_nothing_of_ours_is_mounted() {
        let folder = tempfile::tempdir().unwrap();
        let run = |words: &str| guard(folder.path(), 0, words.as_bytes()).unwrap();
        assert_eq!(run("mounted 1 0:1\nbye\n"), Guarded::Dismissed);
        assert_eq!(run("mounted 1 0:1\n"), Guarded::Gone);
        assert_eq!(run(""), Guarded::Gone);
        let elsewhere = guard(Path::new("/proc"), 0, &b"mounted 1 0:1\n"[..]).unwrap();
        assert_eq!(elsewhere, Guarded::Gone);
    }
}
