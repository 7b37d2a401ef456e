//! A machine that runs.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use pcocc_guest::protocol::ToGuest;
use serde_json::json;

use super::instance::Instance;
use crate::clock::unix_nanoseconds;
use crate::machine::{Exit, Machine, MachineError, MachineEvent, MachineSpec};

/// How often the guest's clock is corrected.
const CLOCK: Duration = Duration::from_secs(30);
/// How often a machine that waits for room on the node's disk is resumed.
const ROOM: Duration = Duration::from_secs(3);
/// How long QEMU may take to quit.
const QUIT: Duration = Duration::from_secs(2);

/// A running docker VM; ends when dropped.
#[derive(Debug)]
pub(crate) struct QemuMachine {
    instance: Instance,
    endpoint: SocketAddr,
    disk: PathBuf,
    time_sent: Instant,
    /// Since when the machine stands still because the node's disk is full, or when it was last asked to go on.
    stalled: Option<Instant>,
    notes: Vec<String>,
    ended: Option<Exit>,
    asked: bool,
}

impl QemuMachine {
    pub(crate) fn new(instance: Instance, spec: &MachineSpec) -> Self {
        Self {
            instance,
            endpoint: spec.listen,
            disk: spec.plan.scratch.join("data.qcow2"),
            time_sent: Instant::now(),
            stalled: None,
            notes: Vec::new(),
            ended: None,
            asked: false,
        }
    }

    /// Sends the guest the time: it was suspended together with the node.
    fn send_time(&mut self) {
        if self.time_sent.elapsed() < CLOCK {
            return;
        }
        self.time_sent = Instant::now();
        let time_ns = unix_nanoseconds();
        if let Err(error) = self.instance.channel.send(&ToGuest::Clock { time_ns }) {
            tracing::debug!(%error, "the guest does not get the time");
        }
    }

    /// Resumes a machine that a full disk stopped, as soon as there is room.
    fn resume_when_room(&mut self) {
        if self.instance.qmp.disk_was_full() {
            if self.stalled.is_none() {
                let folder = self.disk.parent().unwrap_or(&self.disk);
                self.notes.push(format!(
                    "the node's disk at {} is full: the VM stands still until there is room",
                    folder.display()
                ));
            }
            self.stalled = Some(Instant::now());
        } else if self.stalled.is_some_and(|since| since.elapsed() > ROOM) {
            let status = self.instance.qmp.execute("query-status", json!({}));
            if status.is_ok_and(|status| status.get("running") == Some(&json!(true))) {
                self.stalled = None;
                let word = "there is room on the node's disk again: the VM goes on";
                self.notes.push(word.to_owned());
            } else {
                // QEMU tries the same write again, and reports a disk that is still full.
                let _ = self.instance.qmp.execute("cont", json!({}));
                self.stalled = Some(Instant::now());
            }
        }
    }

    /// Notes the end, if QEMU ends within `timeout`.
    fn wait_for_end(&mut self, timeout: Duration) {
        if self.ended.is_some() {
            return;
        }
        let Some(how) = self.instance.process.wait(timeout).map(str::to_owned) else {
            return;
        };
        let reason = self.instance.qmp.shutdown_reason();
        self.ended = Some(match reason {
            _ if self.asked => Exit::ShutDown,
            // The guest never restarts itself: only a panicking kernel does.
            Some("guest-reset" | "guest-panic") => Exit::Panicked,
            Some(_) => Exit::ShutDown,
            None => Exit::Died(how),
        });
        self.instance.uplink = None;
        let _ = std::fs::remove_file(&self.disk);
    }
}

impl Machine for QemuMachine {
    fn endpoint(&self) -> SocketAddr {
        self.endpoint
    }

    fn processes(&self) -> Vec<u32> {
        let uplink = self
            .instance
            .uplink
            .as_ref()
            .map(super::uplink::Uplink::pid);
        std::iter::once(self.instance.process.pid())
            .chain(uplink)
            .collect()
    }

    fn wait(&mut self, timeout: Duration) -> Result<Option<Exit>, MachineError> {
        let begun = Instant::now();
        loop {
            self.send_time();
            self.resume_when_room();
            let left = timeout.saturating_sub(begun.elapsed());
            self.wait_for_end(left.min(CLOCK));
            if self.ended.is_some() || begun.elapsed() >= timeout {
                return Ok(self.ended.clone());
            }
        }
    }

    fn events(&mut self) -> Vec<MachineEvent> {
        let events = self.instance.channel.events();
        let notes = self.notes.drain(..).map(MachineEvent::Note);
        notes.chain(events).collect()
    }

    fn stop(&mut self, grace: Duration) -> Result<(), MachineError> {
        self.wait_for_end(Duration::ZERO);
        if self.ended.is_none() && !grace.is_zero() {
            self.asked = true;
            let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
            if self
                .instance
                .channel
                .send(&ToGuest::Shutdown { grace_ms })
                .is_ok()
            {
                self.wait_for_end(grace);
            }
        }
        if self.ended.is_none() {
            self.asked = true;
            // A QEMU that does not quit is killed below.
            let _ = self.instance.qmp.execute("quit", json!({}));
            self.wait_for_end(QUIT);
        }
        if self.ended.is_none() {
            self.instance.process.kill();
            self.wait_for_end(Duration::ZERO);
        }
        Ok(())
    }
}

impl Drop for QemuMachine {
    fn drop(&mut self) {
        self.instance.process.kill();
        self.wait_for_end(Duration::ZERO);
    }
}
