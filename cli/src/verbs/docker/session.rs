//! `pcocc docker session`: the command that salloc runs. Started by `alloc`, never by users.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use pcocc_core::beneath;
use pcocc_vm::job::{Backend, JobId};
use pcocc_vm::lifeline::HeldLauncher;
use pcocc_vm::slurm;
use rustix::process::{Signal, getppid, set_parent_process_death_signal};
use serde::{Deserialize, Serialize};

use crate::errors::{Failure, Outcome, While as _};
use crate::invocation::{Invocation, Run};
use crate::old_jobs;
use crate::session::{GiveUp, Session};
use crate::verbs::docker::launch::{self, LaunchRequest, MachineArgs};

/// Be the command of an allocation
#[derive(Debug, clap::Args)]
#[command(hide = true)]
pub(crate) struct Args {
    /// File with the request, which is replaced by what became of it
    file: PathBuf,
}

/// A request of `alloc` to the session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SessionRequest {
    /// The command line to run instead of a shell.
    pub(crate) script: Option<String>,
    /// Folder that shows the images.
    pub(crate) mount: Option<PathBuf>,
    /// When the wait ends.
    pub(crate) give_up: Option<GiveUp>,
    /// The machine.
    pub(crate) machine: MachineArgs,
}

/// The content of the file between `alloc` and its session, a private file on the machine of both.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Handover {
    /// `alloc` asks.
    Requested(Box<SessionRequest>),
    /// The session runs in the allocation of a job.
    Begun(JobId),
    /// The session has ended with an exit code.
    Ended(u8),
}

impl Handover {
    /// Reads the file.
    pub(crate) fn read(file: &Path) -> Outcome<Self> {
        let text = fs::read(file)?;
        serde_json::from_slice(&text).part(|| format!("read {}", file.display()))
    }

    /// Replaces the file's content.
    pub(crate) fn write(&self, file: &Path) -> Outcome {
        let text = serde_json::to_vec(self)?;
        Ok(fs::write(file, text)?)
    }
}

impl Run for Args {
    fn action(&self) -> String {
        "start a docker VM in the allocation".to_owned()
    }

    fn run(self, invocation: &Invocation) -> Outcome {
        let salloc = getppid();
        set_parent_process_death_signal(Some(Signal::TERM)).map_err(io::Error::from)?;
        let environment = &invocation.environment;
        let id = environment
            .slurm
            .job()
            .ok_or_else(|| Failure::because("SLURM_JOB_ID is not set"))?;
        let Handover::Requested(request) = Handover::read(&self.file)? else {
            return Err(Failure::because("it was started before"));
        };
        Handover::Begun(id).write(&self.file)?;
        let outcome = session(invocation, *request, id);
        if getppid() != salloc {
            // salloc is gone and cannot give the allocation back.
            slurm::cancel(id).when(|| format!("end the Slurm job {id}"))?;
        }
        let code = match &outcome {
            Ok(code) => *code,
            // This process prints the failure; `alloc` needs only the code.
            Err(failure) => failure.exit_code(),
        };
        Handover::Ended(code).write(&self.file)?;
        Failure::passed_on(outcome?)
    }
}

fn session(invocation: &Invocation, request: SessionRequest, id: JobId) -> Outcome<u8> {
    let environment = &invocation.environment;
    let jobs = invocation.host.jobs()?;
    old_jobs::clean_up(&invocation.host);
    let folder = jobs.create_slurm(id, false)?;
    let name = environment.slurm.variable("SLURM_JOB_NAME");
    let mut record = launch::first_record(invocation, id, Backend::Slurm, name.as_deref());
    record.mount.clone_from(&request.mount);
    record.launcher = Some(jobs.here().holder(std::process::id())?);
    folder.write(&record)?;
    let log = beneath::append_to(&folder.launcher_log(), 0o600)?;
    let launch = LaunchRequest {
        held: true,
        machine: request.machine,
        ..LaunchRequest::default()
    };
    let mut step = slurm::step(&launch::program()?, &launch::VERB);
    step.stderr(Stdio::from(log));
    let launcher = HeldLauncher::spawn(&mut step, &launch.line()?).part(|| "run srun")?;
    let session = Session {
        folder,
        launcher,
        script: request.script.as_deref(),
        mount: request.mount.as_deref(),
        give_up: request.give_up,
        elsewhere: true,
    };
    session.run(invocation)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_and_its_fate_are_handed_over() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let request = SessionRequest {
            script: Some("docker 'a b'\n".into()),
            mount: Some("/mnt".into()),
            give_up: Some(GiveUp::after(60)),
            machine: MachineArgs::default(),
        };
        for handover in [
            Handover::Requested(Box::new(request)),
            Handover::Begun("7".parse().unwrap()),
            Handover::Ended(124),
        ] {
            handover.write(file.path()).unwrap();
            assert_eq!(Handover::read(file.path()).unwrap(), handover);
        }
        fs::write(file.path(), "").unwrap();
        assert!(Handover::read(file.path()).is_err());
    }
}
