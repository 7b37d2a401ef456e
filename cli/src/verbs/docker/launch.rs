//! `pcocc docker launch`: the launcher of a VM, on the VM's node. Started by other verbs, never by users.
//!
//! Two processes. The *keeper* is the ancestor of all processes of the VM: it starts the *worker* and waits for it. The worker
//! runs the launcher proper ([`pcocc_vm::launcher`]). When one of the two is killed, the other cleans up:
//!
//! - worker killed: its children die with it or become the keeper's, which kills them, removes the node's folders and records
//!   the job's end;
//! - keeper killed: the kernel sends the worker SIGTERM, and the worker stops the VM;
//! - both killed: the kernel ends the VM; the next start removes the folders, and readers do not believe the record.
//!
//! Data path: [`LaunchRequest`] on standard input → keeper → the same request for the worker → [`plan`] → the launcher proper →
//! reports on standard output, if the caller holds the launcher.

mod folders;
mod keeper;
mod local;
mod node;
mod plan;
mod request;
mod settings;
mod worker;

use std::io::{self, Write as _};
use std::path::PathBuf;

pub(crate) use local::LocalJob;
use pcocc_vm::clock::{Clock as _, SystemClock};
use pcocc_vm::job::{Backend, JobFolder, JobId, Record};
use pcocc_vm::report::Report;
pub(crate) use request::{LaunchRequest, MachineArgs, absolute_path};

use crate::errors::{Failure, Outcome, While as _};
use crate::invocation::Invocation;
use crate::messages::warn;

/// The words that start a launcher; its standard input has the [`LaunchRequest`].
pub(crate) const VERB: [&str; 2] = ["docker", "launch"];

/// Keep a VM alive on this node
#[derive(Clone, Debug, clap::Args)]
#[command(hide = true)]
pub(crate) struct Args {
    /// Be the worker of this keeper
    #[arg(long, value_name = "PID")]
    worker: Option<u32>,
}

/// A job, and the request for its VM.
#[derive(Clone, Debug)]
struct Assignment {
    id: JobId,
    backend: Backend,
    request: LaunchRequest,
}

impl Args {
    /// Runs as the keeper or as the worker.
    pub(crate) fn run(self, invocation: &Invocation) -> Outcome {
        let request = LaunchRequest::read(&mut io::stdin().lock())?;
        let assignment = Assignment::new(request, invocation)?;
        let ended = match self.worker {
            Some(keeper) => worker::run(invocation, &assignment, keeper),
            None => keeper::run(invocation, &assignment),
        };
        ended.when(|| format!("launch the VM of job {}", assignment.id))
    }
}

impl Assignment {
    fn new(request: LaunchRequest, invocation: &Invocation) -> Outcome<Self> {
        if let Some(id) = request.job {
            return Ok(Self {
                id,
                backend: Backend::Local,
                request,
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
        Ok(Self {
            id,
            backend: Backend::Slurm,
            request,
        })
    }

    /// The job's folder, which a job of Slurm may not have yet.
    fn folder(&self, invocation: &Invocation) -> Outcome<JobFolder> {
        let jobs = invocation.host.jobs()?;
        match self.backend {
            Backend::Local => Ok(jobs.folder(self.id)),
            Backend::Slurm => {
                let slurm = &invocation.environment.slurm;
                let again = slurm.variable("SLURM_RESTART_COUNT").is_some();
                Ok(jobs.create_slurm(self.id, again)?)
            }
        }
    }

    /// Reports to the caller through standard output, if the caller listens.
    fn report(&self, report: &Report) {
        if let Report::Warning(text) = report {
            // The launcher's log needs it as well.
            warn(text);
        }
        if self.request.held {
            // The caller may be gone: the record says the same.
            let _ = io::stdout()
                .write_all(report.line().as_bytes())
                .and_then(|()| io::stdout().flush());
        }
    }
}

/// The first record of a requested job.
pub(crate) fn first_record(
    invocation: &Invocation,
    id: JobId,
    backend: Backend,
    name: Option<&str>,
) -> Record {
    let owner = &invocation.environment.user;
    Record::new(
        id,
        name.unwrap_or("docker"),
        backend,
        owner,
        SystemClock.unix(),
    )
}

/// The path of this program, which processes on other nodes use as well.
pub(crate) fn program() -> Outcome<PathBuf> {
    Ok(std::env::current_exe()?)
}
