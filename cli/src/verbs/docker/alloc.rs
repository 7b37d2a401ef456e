//! `pcocc docker alloc`: a docker VM with the lifetime of a shell.
//!
//! Data path without Slurm: a job folder → the launcher, held by a pipe → [`Session`]. With Slurm: `salloc OPTIONS --
//! pcocc docker session`, and the session starts the launcher on the node through srun.

mod slurm;

use std::ffi::OsString;
use std::path::PathBuf;

use pcocc_core::batch::BatchType;

use crate::errors::{Failure, Outcome, USAGE};
use crate::invocation::{Invocation, Run};
use crate::session::{GiveUp, Session};
use crate::verbs::docker::launch::{LocalJob, MachineArgs, absolute_path};

/// Allocate a docker VM and start a docker shell
///
/// The VM is allocated through Slurm, where there is Slurm: all options that are not listed here are those of
/// salloc, and are handed to it as they are. Elsewhere the VM runs on this machine, and -c, --mem, -J and -t are
/// understood. In the shell, docker is the VM's; leaving the shell ends the VM.
///
/// Options of pcocc may stand anywhere; words behind -- all go to salloc.
#[derive(Debug, clap::Args)]
#[command(
    override_usage = "pcocc docker alloc [OPTIONS] [BATCH OPTIONS]",
    after_help = "Exit status: that of the shell or the script; 124 when the VM was not ready in time.\n\n\
    Examples:\n  pcocc docker alloc -p sandy -c 16\n  \
    pcocc docker alloc -t 60 -E 'docker build -t work .'\n  \
    pcocc docker alloc -c 4 --mem 8G --mount ~/img"
)]
pub(crate) struct Args {
    /// Run this command line instead of a shell
    #[arg(short = 'E', long, value_name = "SCRIPT")]
    script: Option<String>,
    /// Give up when the VM is not ready after so many seconds, waiting in the queue included
    #[arg(short = 'T', long, value_name = "SECONDS")]
    timeout: Option<u64>,
    /// Show docker and the repositories as folders there, see `pcocc docker mount`
    #[arg(long, value_name = "DIR", value_parser = absolute_path())]
    mount: Option<PathBuf>,
    #[command(flatten)]
    machine: MachineArgs,
    /// Options of salloc
    #[arg(last = true, value_name = "BATCH OPTIONS", hide = true)]
    batch: Vec<OsString>,
}

impl Run for Args {
    fn action(&self) -> String {
        "allocate a docker VM".to_owned()
    }

    fn run(self, invocation: &Invocation) -> Outcome {
        if let Some(script) = &self.script {
            check_script(script)?;
        }
        let give_up = self.timeout.map(GiveUp::after);
        let code = match invocation.host.backend()? {
            BatchType::Slurm => slurm::run(invocation, self, give_up)?,
            BatchType::Local => {
                invocation.announce("Starting the docker VM ...");
                let local = LocalJob::create(invocation, &self.batch, true, None, self.machine)?;
                let launcher = local.launch()?;
                let session = Session {
                    folder: local.folder,
                    launcher,
                    script: self.script.as_deref(),
                    mount: self.mount.as_deref(),
                    give_up,
                    elsewhere: false,
                };
                session.run(invocation)?
            }
        };
        Failure::passed_on(code)
    }
}

/// Refuses a script that cannot be run, before anything is allocated.
pub(crate) fn check_script(script: &str) -> Outcome {
    let why = match shell_words::split(script) {
        Ok(words) if !words.is_empty() => return Ok(()),
        Ok(_) => "names no program",
        Err(_) => "has a quote that is not closed",
    };
    Err(Failure::because(format!("the script {script:?} {why}")).code(USAGE))
}
