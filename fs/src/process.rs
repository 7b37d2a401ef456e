//! The processes behind the requests: whether one still lives, and whether it is about to be
//! stopped by a signal.
//!
//! FUSE names a thread with every request. Nothing tells a file system that the tool behind a
//! half-written folder was killed, and an interrupted `close` only says so to the kernel, so both are
//! read from `/proc`.

use std::fs;

/// A process, told from a later one with the same number by its start time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    id: u32,
    started: Option<u64>,
}

impl Process {
    /// Finds the process of a thread. One that cannot be seen, as from another pid namespace,
    /// counts as alive.
    pub fn of_thread(thread: u32) -> Self {
        let id = field(thread, "Tgid:")
            .and_then(|text| text.parse().ok())
            .unwrap_or(thread);
        Self {
            id,
            started: start_time(id),
        }
    }

    /// Whether the process has not ended yet.
    pub fn is_alive(&self) -> bool {
        match self.started {
            None => true,
            Some(started) => start_time(self.id) == Some(started),
        }
    }

    /// Whether a signal that ends the process waits to be delivered.
    pub fn is_interrupted(&self) -> bool {
        // HUP, INT, QUIT, KILL and TERM as bits of the masks in proc_pid_status(5).
        const ENDING: u64 = 1 | 1 << 1 | 1 << 2 | 1 << 8 | 1 << 14;
        let mask = |name| {
            field(self.id, name)
                .and_then(|text| u64::from_str_radix(&text, 16).ok())
                .unwrap_or(0)
        };
        let pending = (mask("SigPnd:") | mask("ShdPnd:")) & ENDING;
        pending != 0 && pending & !(mask("SigIgn:") | mask("SigBlk:") | mask("SigCgt:")) != 0
            || pending & mask("SigCgt:") & !mask("SigBlk:") != 0
    }

    /// The name of the program the process runs, at most 15 bytes of it.
    pub fn program(&self) -> String {
        fs::read_to_string(format!("/proc/{}/comm", self.id))
            .map(|name| name.trim_end().to_owned())
            .unwrap_or_default()
    }
}

fn field(id: u32, name: &str) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    status
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .map(|value| value.trim().to_owned())
}

/// Start time in clock ticks since boot; `None` for what is gone or a zombie.
fn start_time(id: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The name in parentheses may hold anything, so count from the last one.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    match fields.next()? {
        "Z" | "X" | "x" => None,
        _ => fields.nth(18)?.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_process_lives_until_it_ends() {
        assert!(Process::of_thread(std::process::id()).is_alive());
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let process = Process::of_thread(child.id());
        assert!(process.is_alive());
        assert!(!process.is_interrupted());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!process.is_alive());
    }
}
