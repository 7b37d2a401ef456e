//! The process that writes a record, and whether it still runs.
//!
//! Machine, boot, process-ID name space, number and start time name a process, so that a dead process is not taken for a later
//! one with the same number.

use std::fs;
use std::io;

use pcocc_core::process::start_time;
use serde::{Deserialize, Serialize};

use super::{Error, Result};

/// The process that answers for a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Name of its machine.
    pub host: String,
    /// The machine's boot: `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
    /// Name space of process numbers: what `/proc/self/ns/pid` links to.
    pub pid_namespace: String,
    /// Process number.
    pub pid: u32,
    /// Start time in clock ticks since boot.
    pub started: u64,
}

/// What is known of a holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It runs.
    Alive,
    /// It has ended, or its machine was booted again.
    Gone,
    /// It is on another machine, or in another name space of process numbers, and cannot be seen.
    Elsewhere,
}

/// This machine as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Here {
    /// Name of the machine.
    pub host: String,
    /// This boot.
    pub boot_id: String,
    /// Name space of process numbers.
    pub pid_namespace: String,
}

impl Here {
    /// Reads the names of machine, boot and name space.
    pub fn read() -> Result<Self> {
        const BOOT: &str = "/proc/sys/kernel/random/boot_id";
        const HOST: &str = "/proc/sys/kernel/hostname";
        const NAMESPACE: &str = "/proc/self/ns/pid";
        let boot = fs::read_to_string(BOOT).map_err(Error::io("read", BOOT.as_ref()))?;
        let namespace = fs::read_link(NAMESPACE).map_err(Error::io("read", NAMESPACE.as_ref()))?;
        let host = fs::read_to_string(HOST).map_err(Error::io("read", HOST.as_ref()))?;
        Ok(Self {
            host: host.trim().to_owned(),
            boot_id: boot.trim().to_owned(),
            pid_namespace: namespace.to_string_lossy().into_owned(),
        })
    }

    /// Names the process `pid` of this machine.
    pub fn holder(&self, pid: u32) -> Result<Holder> {
        let path = format!("/proc/{pid}/stat");
        let gone = || io::Error::from(io::ErrorKind::NotFound);
        let started = start_time(pid)
            .ok_or_else(gone)
            .map_err(Error::io("read", path.as_ref()))?;
        Ok(Holder {
            host: self.host.clone(),
            boot_id: self.boot_id.clone(),
            pid_namespace: self.pid_namespace.clone(),
            pid,
            started,
        })
    }

    /// Tells whether a holder still runs.
    pub fn presence(&self, holder: &Holder) -> Presence {
        if holder.boot_id == self.boot_id {
            // Containers of one machine share its boot, not its process numbers.
            if holder.pid_namespace != self.pid_namespace {
                return Presence::Elsewhere;
            }
            match start_time(holder.pid) == Some(holder.started) {
                true => Presence::Alive,
                false => Presence::Gone,
            }
        } else if holder.host == self.host {
            Presence::Gone
        } else {
            Presence::Elsewhere
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_holder_is_gone_when_it_ends_and_after_a_reboot() {
        let here = Here::read().unwrap();
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let holder = here.holder(child.id()).unwrap();
        assert_eq!(here.presence(&holder), Presence::Alive);
        // The same number used by a later process.
        let later = Holder {
            started: holder.started + 1,
            ..holder.clone()
        };
        assert_eq!(here.presence(&later), Presence::Gone);
        let before_reboot = Holder {
            boot_id: "another".into(),
            ..holder.clone()
        };
        assert_eq!(here.presence(&before_reboot), Presence::Gone);
        let elsewhere = Holder {
            host: "another".into(),
            ..before_reboot
        };
        assert_eq!(here.presence(&elsewhere), Presence::Elsewhere);
        let contained = Holder {
            pid_namespace: "pid:[1]".into(),
            ..holder.clone()
        };
        assert_eq!(here.presence(&contained), Presence::Elsewhere);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(here.presence(&holder), Presence::Gone);
        assert!(here.holder(child.id()).is_err());
    }
}
