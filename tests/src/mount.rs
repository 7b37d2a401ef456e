//! A mounted tree that is unmounted however the test ends.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::children::{Guarded, read_log, run, wait_until};
use crate::leaks;
use crate::pcocc::Pcocc;

/// `pcocc docker mount -f` on a folder in the home of a [`Pcocc`].
#[derive(Debug)]
pub struct Mount {
    guard: Guarded,
    point: PathBuf,
    log: PathBuf,
}

impl Mount {
    /// Mounts the tree at `~/mnt` and waits until it is there.
    #[track_caller]
    pub fn new(pcocc: &Pcocc) -> Self {
        Self::with(pcocc, "mnt", &[])
    }

    /// Mounts the tree at `~/<folder>` with more options for `pcocc docker mount`.
    #[track_caller]
    pub fn with(pcocc: &Pcocc, folder: &str, options: &[&str]) -> Self {
        let point = pcocc.home().join(folder);
        run(pcocc.any("mkdir").arg("-p").arg(&point)).ok();
        let log = pcocc.home().join(format!("{folder}.log"));
        let mut command = pcocc.command(&["docker", "mount", "-f"]);
        command.args(options).arg(&point);
        let guard = Guarded::watch(&command, &log);
        let mut mount = Self { guard, point, log };
        let start = std::time::Instant::now();
        while !is_mounted(&mount.point) || !mount.log().contains("Mounted at") {
            assert!(
                mount.guard.is_running() && start.elapsed() < Duration::from_secs(20),
                "no mount at {}:\n{}",
                mount.point.display(),
                mount.log()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
        mount
    }

    /// The mount point.
    pub fn path(&self) -> &Path {
        &self.point
    }

    /// Gives a path below the mount point.
    pub fn join(&self, path: &str) -> PathBuf {
        self.point.join(path)
    }

    /// What `.pcocc/status.json` says.
    #[track_caller]
    pub fn status(&self) -> serde_json::Value {
        let text = fs::read(self.join(".pcocc/status.json")).expect("read status.json");
        serde_json::from_slice(&text).expect("JSON in status.json")
    }

    /// The transfers of `image` that the mount knows, oldest first.
    #[track_caller]
    pub fn transfers(&self, image: &str) -> Vec<serde_json::Value> {
        let status = self.status();
        let all = status["transfers"].as_array().expect("a list of transfers");
        // The daemon's own names have their tag.
        let latest = format!("{image}:latest");
        all.iter()
            .filter(|transfer| transfer["image"] == image || transfer["image"] == *latest)
            .cloned()
            .collect()
    }

    /// What `pcocc docker mount` wrote so far.
    pub fn log(&self) -> String {
        read_log(&self.log)
    }

    /// Kills the mount with SIGKILL and takes away the dead mount it leaves.
    #[track_caller]
    pub fn kill(self) {
        let serving = || {
            let lines = leaks::processes_naming(&self.point);
            // The shell that watches it names it too, and so does who reads from it.
            lines
                .into_iter()
                .find(|line| line.contains(" docker mount -f ") && !line.contains(" -c "))
        };
        let line = serving().expect("a process that serves the mount");
        let pid = line.split(' ').next().and_then(|pid| pid.parse().ok());
        let pid = pid.and_then(Pid::from_raw).expect("a process number");
        kill_process(pid, Signal::KILL).expect("kill the mount");
        wait_until("the mount is dead", Duration::from_secs(10), || {
            serving().is_none()
        });
    }

    /// Ends the mount as SIGTERM does, and checks that the mount point is an ordinary folder again.
    #[track_caller]
    pub fn end(mut self) {
        self.guard.stop();
        assert!(
            !is_mounted(&self.point),
            "still mounted after SIGTERM:\n{}",
            self.log()
        );
        assert_eq!(
            fs::read_dir(&self.point)
                .expect("read the mount point")
                .count(),
            0
        );
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        self.guard.stop();
        if is_mounted(&self.point) {
            let _ = Command::new("fusermount3")
                .arg("-uz")
                .arg(&self.point)
                .status();
        }
    }
}

/// Says whether something is mounted exactly at `point`.
pub(crate) fn is_mounted(point: &Path) -> bool {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let point = point.to_string_lossy();
    table
        .lines()
        .any(|line| line.split(' ').nth(4) == Some(&point))
}
