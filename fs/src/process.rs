//! The processes behind the requests: whether a process lives, and whether a signal will end it.
//!
//! FUSE names a thread with every request. A file system is never told that the tool behind a half-written
//! folder was killed, and an interrupted `close` is known only to the kernel. Both facts are read from `/proc`.

use std::cell::Cell;
use std::fs;

use pcocc_core::process::start_time;

thread_local! {
    /// The thread whose request this thread serves; 0 for none.
    static SERVED: Cell<u32> = const { Cell::new(0) };
}

/// Runs `call` for a thread: waits inside of the call end when a signal ends the thread's process.
pub fn serving<T>(thread: u32, call: impl FnOnce() -> T) -> T {
    let before = SERVED.replace(thread);
    let result = call();
    SERVED.set(before);
    result
}

/// The process that this thread serves; `None` for an invisible process, for instance of another pid namespace.
pub fn served() -> Option<Process> {
    match SERVED.get() {
        0 => None,
        thread => Some(Process::of_thread(thread)),
    }
}

/// A process. The start time tells it from a later process with the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    id: u32,
    started: Option<u64>,
}

impl Process {
    /// Finds the process of a thread. An invisible process, for instance of another pid namespace, counts as
    /// alive.
    pub fn of_thread(thread: u32) -> Self {
        let id = status(thread)
            .and_then(|status| value(&status, "Tgid:")?.parse().ok())
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

    /// Whether a signal that ends the process is pending.
    pub fn is_interrupted(&self) -> bool {
        // HUP, INT, QUIT, KILL and TERM as bits of the masks in proc_pid_status(5).
        const ENDING: u64 = 1 | 1 << 1 | 1 << 2 | 1 << 8 | 1 << 14;
        let Some(status) = status(self.id) else {
            return false;
        };
        let mask = |name| {
            value(&status, name)
                .and_then(|text| u64::from_str_radix(text, 16).ok())
                .unwrap_or(0)
        };
        let pending = (mask("SigPnd:") | mask("ShdPnd:")) & ENDING;
        let caught = mask("SigCgt:");
        pending & !mask("SigBlk:") & (caught | !mask("SigIgn:")) != 0
            // The main thread of a killed process ends before threads that wait.
            || value(&status, "State:").is_some_and(|state| state.starts_with(['Z', 'X']))
    }

    /// Whether the program makes folders for later programs, so that its own end means nothing.
    pub fn makes_for_others(&self) -> bool {
        matches!(&*self.program(), "mkdir" | "install")
    }

    /// The name of the process's program, at most 15 bytes.
    pub fn program(&self) -> String {
        fs::read_to_string(format!("/proc/{}/comm", self.id))
            .map(|name| name.trim_end().to_owned())
            .unwrap_or_default()
    }
}

fn status(id: u32) -> Option<String> {
    fs::read_to_string(format!("/proc/{id}/status")).ok()
}

fn value<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    let value = status.lines().find_map(|line| line.strip_prefix(name))?;
    Some(value.trim())
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

    #[test]
    fn a_signal_that_waits_is_seen_unless_it_is_ignored() {
        // A stopped process takes no signal but SIGKILL: other signals stay pending.
        let told = |ignores: &str| {
            let script = format!("{ignores} kill -STOP $$; exit");
            let mut child = Command::new("sh").args(["-c", &script]).spawn().unwrap();
            let process = Process::of_thread(child.id());
            let state = || fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
            while !state().contains(") T ") {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            let before = process.is_interrupted();
            let kill = |signal: &str| {
                let id = child.id().to_string();
                assert!(
                    Command::new("kill")
                        .args([signal, &id])
                        .status()
                        .unwrap()
                        .success()
                );
            };
            kill("-TERM");
            let after = process.is_interrupted();
            child.kill().unwrap();
            child.wait().unwrap();
            (before, after)
        };
        assert_eq!(told(""), (false, true));
        assert_eq!(told("trap : TERM;"), (false, true));
        assert_eq!(told("trap '' TERM;"), (false, false));
    }
}
