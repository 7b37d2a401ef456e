//! Which shell will read the code: the one that started this process, not the one in SHELL.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use crate::dialect::Dialect;

/// How many processes may be between us and the shell, such as `sudo` or `env`.
const GENERATIONS: usize = 8;

/// Finds the nearest shell among the ancestors of process `pid`, which `proc` (`/proc`) tells of.
pub fn shell_above(proc: &Path, pid: u32) -> Option<Dialect> {
    let mut pid = parent(proc, pid)?;
    for _ in 0..GENERATIONS {
        let folder = proc.join(pid.to_string());
        // A script's process is called as the script, but its program is the shell. Programs of other
        // users cannot be seen; their names can.
        let program = fs::read_link(folder.join("exe"))
            .ok()
            .and_then(|exe| Dialect::of_program(exe.as_os_str()));
        let by_name = || {
            let name = fs::read(folder.join("comm")).ok()?;
            Dialect::of_program(OsStr::from_bytes(name.trim_ascii_end()))
        };
        if let Some(dialect) = program.or_else(by_name) {
            return Some(dialect);
        }
        pid = parent(proc, pid)?;
    }
    None
}

/// The parent of a process; `None` for the first.
fn parent(proc: &Path, pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(proc.join(pid.to_string()).join("stat")).ok()?;
    // "PID (NAME) STATE PPID …", where NAME may hold anything.
    let (_, rest) = stat.rsplit_once(')')?;
    let parent = rest.split_whitespace().nth(1)?.parse().ok()?;
    (parent != 0).then_some(parent)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn the_nearest_shell_is_found() {
        let proc = tempfile::tempdir().unwrap();
        let process = |pid: u32, name: &str, parent: u32, exe: Option<&str>| {
            let folder = proc.path().join(pid.to_string());
            fs::create_dir(&folder).unwrap();
            fs::write(
                folder.join("stat"),
                format!("{pid} ({name}) S {parent} 1 1"),
            )
            .unwrap();
            fs::write(folder.join("comm"), format!("{name}\n")).unwrap();
            if let Some(exe) = exe {
                symlink(exe, folder.join("exe")).unwrap();
            }
        };
        process(1, "init", 0, None);
        process(10, "fish", 1, Some("/usr/bin/fish"));
        process(11, "evil) R 1 (bash", 10, Some("/usr/bin/python3"));
        process(12, "sudo", 11, None);
        process(13, "pcocc", 12, Some("/usr/bin/pcocc"));
        process(20, "job.sh", 10, Some("/usr/bin/bash"));
        process(21, "pcocc", 20, None);
        process(30, "-zsh", 1, None);
        process(31, "pcocc", 30, None);
        process(40, "pcocc", 1, None);
        process(50, "sh", 1, Some("/usr/bin/dash (deleted)"));
        process(51, "pcocc", 50, None);
        let above = |pid| shell_above(proc.path(), pid);
        assert_eq!(above(13), Some(Dialect::Fish));
        assert_eq!(above(21), Some(Dialect::Bash));
        assert_eq!(above(31), Some(Dialect::Zsh));
        assert_eq!(above(51), Some(Dialect::Sh));
        assert_eq!(above(40), None);
        assert_eq!(above(99), None);
    }
}
