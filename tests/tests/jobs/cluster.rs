//! A Slurm cluster, and an ordinary user with a guest image who asks it for VMs.

use std::process::Child;

use pcocc_tests::{Pcocc, Slurm, wait_until};

use crate::home::{SOON, assert_nothing_left, find, home, said, start, wait_for};

/// What a VM of the tests needs of Slurm, so that it has the memory its template says.
pub const SIZE: [&str; 2] = ["-c2", "--mem=1500"];

/// The cluster, and the user.
pub struct Cluster {
    pub slurm: Slurm,
    pub pcocc: Pcocc,
}

impl Cluster {
    pub fn start() -> Self {
        Self::start_with(&[], "docker_address: 127.0.0.1\n")
    }

    /// A cluster with more lines in its slurm.conf, and a user with more in `batch.yaml`.
    pub fn start_with(settings: &[&str], batch: &str) -> Self {
        let slurm = Slurm::start_with(settings);
        let user = Pcocc::as_ordinary_user()
            .with_variable("SLURM_CONF", &slurm.configuration().to_string_lossy());
        let pcocc = home(user, "slurm", batch);
        Self { slurm, pcocc }
    }

    /// The words of an `alloc` of the tests' size.
    pub fn alloc(more: &[&'static str]) -> Vec<&'static str> {
        [&["docker", "alloc"], &SIZE[..], more].concat()
    }

    /// Starts an `alloc` with a script that goes on, and gives its job's number once it is granted.
    #[track_caller]
    pub fn allocated(&self, name: &str, more: &[&'static str]) -> (Child, u32) {
        let words = [more, &["-E", "sleep 986"]].concat();
        let mut command = start(&self.pcocc, name, &Self::alloc(&words));
        let mut job = None;
        wait_until("the job is allocated", SOON, || {
            job = granted(&said(&self.pcocc, name));
            job.is_some() || command.try_wait().unwrap().is_some()
        });
        let job = job.unwrap_or_else(|| panic!("{name}: {}", said(&self.pcocc, name)));
        (command, job)
    }

    /// The same, once the script runs.
    #[track_caller]
    pub fn running(&self, name: &str) -> (Child, u32) {
        let (command, job) = self.allocated(name, &[]);
        wait_for(&self.pcocc, job, "ready");
        wait_until("the script runs", SOON, || {
            find(&self.pcocc, "sleep 986").is_some()
        });
        (command, job)
    }

    /// Submits a VM and gives its job's number.
    #[track_caller]
    pub fn submit(&self, more: &[&str]) -> u32 {
        let words = [&["docker", "batch"], &SIZE[..], more].concat();
        let said = self.pcocc.run(&words);
        let id = said.strip_prefix("Submitted batch job ");
        let id = id.unwrap_or_else(|| panic!("{said}"));
        id.parse().unwrap()
    }

    /// A job's line of `ls`, as JSON; null when it is not listed.
    #[track_caller]
    pub fn listed(&self, job: u32) -> serde_json::Value {
        let text = self.pcocc.run(&["docker", "ls", "--format", "json"]);
        let list: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
        list.into_iter()
            .find(|line| line["job"] == job)
            .unwrap_or_default()
    }

    /// Asks the docker of a job for its guest's name; waits until it is ready.
    #[track_caller]
    pub fn guest_of(&self, job: u32) -> String {
        let id = job.to_string();
        let info = "docker info -f {{.Name}}";
        self.pcocc.run(&["docker", "shell", "-j", &id, "-E", info])
    }

    /// Fails unless a job of Slurm's is over for `ls`, and nothing of it is left. Where all of a VM's processes were
    /// killed at once, `ls` is the first to see it.
    #[track_caller]
    pub fn assert_over(&self, job: u32) {
        self.slurm.wait_until_empty();
        wait_until("ls says that it is over", SOON, || {
            self.listed(job).is_null()
        });
        assert_nothing_left(&self.pcocc);
    }

    #[track_caller]
    pub fn assert_nothing_left(&self) {
        self.slurm.wait_until_empty();
        assert_nothing_left(&self.pcocc);
    }
}

/// The job that salloc was granted.
pub fn granted(words: &str) -> Option<u32> {
    let line = words
        .lines()
        .find_map(|line| line.strip_prefix("salloc: Granted job allocation "))?;
    line.trim().parse().ok()
}
