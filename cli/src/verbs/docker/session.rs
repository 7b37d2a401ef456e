//! `pcocc docker session`: the command that salloc runs. Started by `alloc`, never by users.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::Stdio;

use pcocc_vm::attend::Launcher;
use pcocc_vm::clock::{Clock as _, SystemClock};
use pcocc_vm::job::{Backend, Jobs, Record};
use pcocc_vm::slurm;
use rustix::process::{Signal, getppid, set_parent_process_death_signal};

use crate::allocation;
use crate::app::Invocation;
use crate::errors::{Failure, Outcome, While as _};
use crate::session::{GiveUp, Session};
use crate::verbs::docker::alloc::BEGUN;
use crate::verbs::docker::launch::{self, MachineArgs};

/// Be the command of an allocation
#[derive(Debug, clap::Args)]
#[command(hide = true)]
pub(crate) struct Args {
    /// File to write the shell's exit code to
    #[arg(long)]
    result: PathBuf,
    /// What to run instead of a shell
    #[arg(long)]
    script: Option<String>,
    /// Where to mount the images
    #[arg(long)]
    mount: Option<PathBuf>,
    /// When to give up waiting
    #[arg(long, value_parser = GiveUp::parse)]
    give_up: Option<GiveUp>,
    #[command(flatten)]
    machine: MachineArgs,
}

impl Args {
    /// Runs in the allocation.
    pub(crate) fn run(self, invocation: &Invocation) -> Outcome {
        let action = "start a docker VM in the allocation";
        let salloc = getppid();
        set_parent_process_death_signal(Some(Signal::TERM))
            .map_err(io::Error::from)
            .when(|| action)?;
        let environment = &invocation.environment;
        let id = environment
            .slurm
            .job()
            .ok_or_else(|| Failure::message(action, "SLURM_JOB_ID is not set"))?;
        fs::write(&self.result, format!("{BEGUN}{id}")).when(|| action)?;
        let outcome = self.session(invocation, id, action);
        if getppid() != salloc {
            // Nobody is left to give the allocation back.
            slurm::cancel(id).when(|| format!("end the Slurm job {id}"))?;
        }
        let code = match &outcome {
            Ok(code) => *code,
            // The words are ours, and only the number is handed on.
            Err(failure) => failure.exit_code(),
        };
        fs::write(&self.result, code.to_string()).when(|| action)?;
        match outcome? {
            0 => Ok(()),
            code => Err(Failure::reported(code)),
        }
    }

    fn session(
        &self,
        invocation: &Invocation,
        id: pcocc_vm::job::JobId,
        action: &str,
    ) -> Outcome<u8> {
        let environment = &invocation.environment;
        let jobs = Jobs::open(&environment.user_conf).when(|| action)?;
        allocation::forget_old(environment, &jobs);
        let folder = jobs.create_slurm(id, false).when(|| action)?;
        let name = environment.slurm.variable("SLURM_JOB_NAME");
        let mut record = Record::new(
            id,
            name.as_deref().unwrap_or("docker"),
            Backend::Slurm,
            &environment.user,
            SystemClock.unix(),
        );
        record.mount = self.mount.clone();
        record.launcher = Some(jobs.here().holder(std::process::id()).when(|| action)?);
        folder.write(&record).when(|| action)?;
        let words = launch::words(None, true, None, None, None, &self.machine);
        let log = fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(folder.launcher_log())
            .when(|| action)?;
        let mut step = slurm::step(&launch::program(action)?, &words);
        step.stderr(Stdio::from(log));
        let launcher = Launcher::spawn(&mut step).when(|| format!("{action}: run srun"))?;
        let session = Session {
            id,
            folder,
            launcher,
            script: self.script.as_deref(),
            mount: self.mount.as_deref(),
            give_up: self.give_up,
            elsewhere: true,
        };
        session.run(invocation)
    }
}
