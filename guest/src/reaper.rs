//! Children of the first process: its own, and every orphan of the system.
//!
//! One thread waits for all children. The end of a child of [`Reaper::spawn`] is reported to its starter; others, such
//! as containerd's shims, are only reaped.
//!
//! Locking: `spawn` holds the table while it starts a child, so that the thread cannot record the child's end
//! before the child is in the table. Children are started by `posix_spawn` (no `pre_exec`, no `Child::wait`): other ways wait
//! for the child themselves, and the thread would take its end away from them.

use std::collections::HashMap;
use std::io;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, wait};
use tokio::sync::oneshot;

/// Starts children and collects them.
#[derive(Clone, Debug)]
pub(crate) struct Reaper {
    waiting: Arc<Mutex<HashMap<i32, oneshot::Sender<String>>>>,
}

/// A child that was started.
#[derive(Debug)]
pub(crate) struct Started {
    /// Its process id.
    pub(crate) pid: Pid,
    /// Tells how it ended, in words.
    pub(crate) ended: oneshot::Receiver<String>,
}

impl Reaper {
    /// Starts the collecting thread.
    pub(crate) fn start() -> io::Result<Self> {
        let reaper = Self {
            waiting: Arc::default(),
        };
        let clone = reaper.clone();
        std::thread::Builder::new()
            .name("reaper".into())
            .spawn(move || clone.collect())?;
        Ok(reaper)
    }

    fn collect(&self) {
        loop {
            match wait(WaitOptions::empty()) {
                Ok(Some((pid, status))) => {
                    let how = if let Some(code) = status.exit_status() {
                        format!("exited with status {code}")
                    } else if let Some(signal) = status.terminating_signal() {
                        format!("was killed by signal {signal}")
                    } else {
                        continue;
                    };
                    let mut waiting = self.waiting.lock();
                    if let Some(sender) = waiting.remove(&pid.as_raw_nonzero().get()) {
                        // Fails when nobody waits for the child.
                        let _ = sender.send(how);
                    }
                }
                // No child at the moment.
                Ok(None) | Err(_) => std::thread::sleep(Duration::from_millis(50)),
            }
        }
    }

    /// Starts a child.
    pub(crate) fn spawn(&self, command: &mut Command) -> io::Result<Started> {
        let mut waiting = self.waiting.lock();
        let child = command.spawn()?;
        let pid = Pid::from_child(&child);
        let (sender, ended) = oneshot::channel();
        waiting.insert(pid.as_raw_nonzero().get(), sender);
        Ok(Started { pid, ended })
    }

    /// Runs a child to its end; fails with its words when it fails.
    pub(crate) async fn run(&self, command: &mut Command) -> Result<(), crate::Failure> {
        let shown = format!("{command:?}");
        let started = self
            .spawn(command)
            .map_err(crate::Failure::of(format!("run {shown}")))?;
        match started.ended.await.as_deref() {
            Ok("exited with status 0") => Ok(()),
            Ok(how) => Err(crate::Failure(format!("{shown} {how}"))),
            Err(_) => Err(crate::Failure(format!("{shown} was lost"))),
        }
    }
}

impl Started {
    /// Sends the child a signal.
    pub(crate) fn kill(&self, signal: Signal) {
        // Fails for a child that has ended.
        let _ = kill_process(self.pid, signal);
    }
}
