//! Start times, which tell a process from a later one with the same number, and children that end with their parent.

use std::fs;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use rustix::process::{Signal, getpid, getppid, set_parent_process_death_signal};

/// Gives the start time of a process in clock ticks since boot; `None` for one that is gone or a zombie.
///
/// Field 22 of proc_pid_stat(5).
pub fn start_time(id: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The name in parentheses may hold anything, so count from the last one.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    match fields.next()? {
        "Z" | "X" | "x" => None,
        _ => fields.nth(18)?.parse().ok(),
    }
}

/// Makes the kernel send `signal` to the child of `command` when the thread that starts the child ends for any reason.
/// Start such children in the main thread.
pub fn die_with_parent(command: &mut Command, signal: Signal) -> &mut Command {
    let parent = getpid();
    let ask = move || -> io::Result<()> {
        set_parent_process_death_signal(Some(signal))?;
        // The parent may be gone already.
        match getppid() == Some(parent) {
            true => Ok(()),
            false => Err(io::Error::from(rustix::io::Errno::SRCH)),
        }
    };
    #[expect(unsafe_code, reason = "the only way to ask between fork and exec")]
    // SAFETY: between fork and exec only two system calls are made, both async-signal-safe; nothing is allocated.
    unsafe {
        command.pre_exec(ask)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_a_start_time_until_it_ends() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let started = start_time(child.id()).unwrap();
        assert!(started >= start_time(std::process::id()).unwrap());
        assert_eq!(start_time(child.id()), Some(started));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(start_time(child.id()), None);
    }
}
