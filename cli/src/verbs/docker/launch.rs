//! `pcocc docker launch`: the launcher of a VM, on the VM's node. Started by other verbs, never by users.
//!
//! Two processes. The *keeper* is the ancestor of everything of the VM: it starts the *worker* and waits for it. The worker
//! runs the launcher proper ([`pcocc_vm::launch`]). Whoever of them is killed, the other one cleans up:
//!
//! - worker killed: what it had started dies with it or becomes the keeper's child, which kills it, removes the node's
//!   folders and writes the job's end down;
//! - keeper killed: the worker is sent SIGTERM by the kernel, and stops the VM;
//! - both killed: the kernel ends the VM; the folders go at the next start, and nobody believes the record any more.

mod folders;
mod keeper;
mod node;
mod settings;
mod worker;

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use pcocc_vm::job::{Backend, JobId};
use pcocc_vm::report::Report;

use crate::app::Invocation;
use crate::errors::{Failure, Outcome};
use crate::progress::warn;

/// Keep a VM alive on this node
#[derive(Clone, Debug, clap::Args)]
#[command(hide = true)]
pub(crate) struct Args {
    /// The job; that of the Slurm step when missing
    #[arg(long)]
    job: Option<JobId>,
    /// End when standard input does
    #[arg(long)]
    lifeline: bool,
    /// Be the worker of this keeper
    #[arg(long, value_name = "PID")]
    worker: Option<u32>,
    /// Number of CPUs
    #[arg(long)]
    cpus: Option<u32>,
    /// Memory in MiB
    #[arg(long)]
    memory: Option<u64>,
    /// Show docker and the repositories as folders there while the VM is ready
    #[arg(long, value_name = "DIR")]
    mount: Option<PathBuf>,
    #[command(flatten)]
    machine: MachineArgs,
}

/// What the user says of the machine itself.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct MachineArgs {
    /// What the VM is made of: a template of templates.yaml (default: docker_template of containers.yaml)
    #[arg(long, value_name = "NAME")]
    template: Option<String>,
    /// Size of the docker daemon's disk, such as 50G; only what is used takes room
    #[arg(long, value_name = "SIZE", value_parser = pcocc_core::size::parse)]
    disk: Option<u64>,
    /// Settings of the docker daemon, a file like its own daemon.json, instead of the template's
    #[arg(long, value_name = "FILE")]
    docker_daemon_json: Option<PathBuf>,
    /// Boot the VM instead of resuming a snapshot of a booted one
    #[arg(long)]
    no_snapshot: bool,
}

impl MachineArgs {
    /// The same as words for a launcher.
    pub(crate) fn words(&self) -> Vec<OsString> {
        let mut words: Vec<OsString> = Vec::new();
        if let Some(template) = &self.template {
            words.push(format!("--template={template}").into());
        }
        if let Some(disk) = self.disk {
            words.push(format!("--disk={disk}").into());
        }
        if let Some(file) = &self.docker_daemon_json {
            let mut word = OsString::from("--docker-daemon-json=");
            // The launcher may run elsewhere.
            word.push(std::path::absolute(file).as_ref().unwrap_or(file));
            words.push(word);
        }
        if self.no_snapshot {
            words.push("--no-snapshot".into());
        }
        words
    }
}

/// The job a launcher works for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Assignment {
    id: JobId,
    backend: Backend,
}

impl Args {
    /// Runs as the keeper or as the worker.
    pub(crate) fn run(self, invocation: &Invocation) -> Outcome {
        let assignment = self.assignment(invocation)?;
        match self.worker {
            Some(keeper) => worker::run(invocation, &self, assignment, keeper),
            None => keeper::run(invocation, &self, assignment),
        }
    }

    fn assignment(&self, invocation: &Invocation) -> Outcome<Assignment> {
        if let Some(id) = self.job {
            return Ok(Assignment {
                id,
                backend: Backend::Local,
            });
        }
        let action = "find the Slurm job to launch a VM for";
        let slurm = &invocation.environment.slurm;
        if slurm.variable("SLURM_ARRAY_JOB_ID").is_some() {
            let why = "this is a task of a job array, and a docker VM is one job";
            return Err(Failure::message(action, why));
        }
        let id = slurm
            .job()
            .ok_or_else(|| Failure::message(action, "SLURM_JOB_ID is not set"))?;
        Ok(Assignment {
            id,
            backend: Backend::Slurm,
        })
    }
}

/// The words of a launcher's command line.
pub(crate) fn words(
    job: Option<JobId>,
    lifeline: bool,
    cpus: Option<u32>,
    memory: Option<u64>,
    mount: Option<&Path>,
    machine: &MachineArgs,
) -> Vec<OsString> {
    let mut words: Vec<OsString> = vec!["docker".into(), "launch".into()];
    if let Some(id) = job {
        words.push(format!("--job={id}").into());
    }
    if lifeline {
        words.push("--lifeline".into());
    }
    if let Some(cpus) = cpus {
        words.push(format!("--cpus={cpus}").into());
    }
    if let Some(memory) = memory {
        words.push(format!("--memory={memory}").into());
    }
    if let Some(mount) = mount {
        let mut word = OsString::from("--mount=");
        word.push(mount);
        words.push(word);
    }
    words.extend(machine.words());
    words
}

/// This program, by a name that another process, perhaps on another node, can start it by.
pub(crate) fn program(action: &str) -> Outcome<PathBuf> {
    std::env::current_exe().map_err(|error| Failure::new(action, error))
}

/// Reports to whoever holds us, at the other end of our standard output.
fn tell(report: &Report, held: bool) {
    if let Report::Warning(text) = report {
        // To the launcher's log, which is there when nobody holds us.
        warn(text);
    }
    if held {
        // Nobody there to hear it any more: the record has it all.
        let _ = io::stdout()
            .write_all(report.line().as_bytes())
            .and_then(|()| io::stdout().flush());
    }
}
