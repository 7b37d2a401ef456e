//! A Slurm cluster of the test's own: one partition, two nodes, both of them this machine.
//!
//! `scripts/private-slurm` starts it and takes it away again, however the test ends. Needs root.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::children::{Guarded, read_log, run, wait_until};
use crate::{is_root, scratch, workspace};

/// A cluster. It ends, with all its jobs, on drop.
#[derive(Debug)]
pub struct Slurm {
    // Declared first: the daemons must be gone before their folder goes.
    guard: Guarded,
    configuration: PathBuf,
    folder: tempfile::TempDir,
    nodes: Vec<u32>,
}

impl Slurm {
    /// Starts a cluster.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts a cluster with more lines for slurm.conf, such as `MaxJobCount=1`.
    pub fn start_with(settings: &[&str]) -> Self {
        let settings = settings.iter().flat_map(|setting| ["--set", setting]);
        Self::start_script(&settings.collect::<Vec<_>>())
    }

    /// Starts a cluster with slurmdbd and its database: accounts and QOS, which are made with sacctmgr.
    pub fn start_with_accounting() -> Self {
        Self::start_script(&["--accounting"])
    }

    fn start_script(options: &[&str]) -> Self {
        assert!(
            is_root(),
            "a test that starts a Slurm cluster needs root: put `as_root` into its name"
        );
        let folder = scratch();
        let log = folder.path().join("start.log");
        let mut command = Command::new(workspace().join("scripts/private-slurm"));
        command.arg("--folder").arg(folder.path().join("s"));
        command.args(options).arg("--hold");
        let (guard, stdout) = Guarded::spawn(command, &log);
        // All that it says is read: with a line still to be written, the script would die of the closed pipe, and
        // the cluster with it.
        let said: Vec<String> = BufReader::new(stdout)
            .lines()
            .take(2)
            .map_while(Result::ok)
            .collect();
        let configuration = match said.as_slice() {
            [configuration, pids] if pids.starts_with("PIDS=") => {
                configuration.strip_prefix("SLURM_CONF=")
            }
            _ => None,
        };
        // A cluster that does not come up says why in the log.
        let configuration = configuration
            .map(PathBuf::from)
            .unwrap_or_else(|| panic!("no Slurm cluster:\n{}", read_log(&log)));
        let pids = said[1].trim_start_matches("PIDS=").split(' ');
        // Those of munged and the controller come first, those of accounting last.
        let nodes = pids
            .skip(2)
            .take(2)
            .map(|pid| pid.parse().expect("a process id"));
        Self {
            guard,
            configuration,
            folder,
            nodes: nodes.collect(),
        }
    }

    /// The cluster's slurm.conf, to be named by `SLURM_CONF`.
    pub fn configuration(&self) -> &Path {
        &self.configuration
    }

    /// The process of the daemon of node `n1` or `n2`.
    pub fn node_daemon(&self, node: &str) -> u32 {
        let index = usize::from(node == "n2");
        *self.nodes.get(index).expect("a node's daemon")
    }

    /// Builds one of Slurm's commands for this cluster, as root.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("SLURM_CONF", &self.configuration)
            .current_dir(self.folder.path());
        command
    }

    /// Runs one of Slurm's commands and gives its standard output; panics when it fails.
    #[track_caller]
    pub fn run(&self, program: &str, arguments: &[&str]) -> String {
        run(self.command(program).args(arguments)).ok().to_owned()
    }

    /// The jobs in the queue, as `NUMBER STATE`.
    #[track_caller]
    pub fn jobs(&self) -> Vec<String> {
        let text = self.run("squeue", &["--noheader", "--format=%A %T"]);
        text.lines().map(|line| line.trim().to_owned()).collect()
    }

    /// Waits until no job is left in the queue.
    #[track_caller]
    pub fn wait_until_empty(&self) {
        wait_until("no Slurm job is left", Duration::from_secs(20), || {
            self.jobs().is_empty()
        });
    }

    /// Says whether the fixture still holds the cluster.
    pub fn is_held(&mut self) -> bool {
        self.guard.is_running()
    }
}
