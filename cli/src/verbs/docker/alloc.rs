//! `pcocc docker alloc`: a docker VM for as long as a shell lasts.
//!
//! Data path without Slurm: a job folder → the launcher, held by a pipe → [`Session`]. With Slurm: `salloc OPTIONS --
//! pcocc docker session`, and the session starts the launcher on the node through srun.

mod slurm;

pub(crate) use slurm::BEGUN;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use pcocc_core::batch::BatchType;
use pcocc_vm::attend::Launcher;
use pcocc_vm::clock::{Clock as _, SystemClock};
use pcocc_vm::job::{Backend, JobFolder, Jobs, Record, State};
use pcocc_vm::options::LocalRequest;

use crate::allocation;
use crate::app::Invocation;
use crate::errors::{Failure, Outcome, USAGE, While as _};
use crate::progress::warn;
use crate::session::{GiveUp, Session};
use crate::verbs::docker::launch::{self, MachineArgs};

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
    #[arg(long, value_name = "DIR")]
    mount: Option<PathBuf>,
    #[command(flatten)]
    machine: MachineArgs,
    /// Options of salloc
    #[arg(last = true, value_name = "BATCH OPTIONS", hide = true)]
    batch: Vec<OsString>,
}

impl Args {
    /// Allocates, and stays with the shell.
    pub(crate) fn run(self, invocation: &Invocation) -> Outcome {
        let action = "allocate a docker VM";
        if let Some(script) = &self.script {
            check_script(script, action)?;
        }
        let mount = self
            .mount
            .as_ref()
            .map(std::path::absolute)
            .transpose()
            .when(|| action)?;
        let give_up = self.timeout.map(GiveUp::after);
        let code = match allocation::backend(invocation, action)? {
            BatchType::Slurm => slurm::run(
                invocation,
                &self,
                mount.as_deref(),
                give_up.as_ref(),
                action,
            )?,
            BatchType::Local => {
                invocation.tell("Starting the docker VM ...");
                let local = LocalJob::create(invocation, &self.batch, None, &self.machine, action)?;
                let launcher = local.launch(true, action)?;
                let session = Session {
                    id: local.folder.id(),
                    folder: local.folder.clone(),
                    launcher,
                    script: self.script.as_deref(),
                    mount: mount.as_deref(),
                    give_up,
                    elsewhere: false,
                };
                session.run(invocation)?
            }
        };
        match code {
            0 => Ok(()),
            code => Err(Failure::reported(code)),
        }
    }
}

/// Refuses a script that could not be run, before anything is allocated for it.
pub(crate) fn check_script(script: &str, action: &str) -> Outcome {
    let why = match shell_words::split(script) {
        Ok(words) if !words.is_empty() => return Ok(()),
        Ok(_) => "names no program",
        Err(_) => "has a quote that is not closed",
    };
    Err(Failure::message(action, format!("the script {script:?} {why}")).code(USAGE))
}

/// A job of the local backend that has no launcher yet.
pub(crate) struct LocalJob {
    /// Its folder.
    pub(crate) folder: JobFolder,
    words: Vec<OsString>,
}

impl LocalJob {
    /// Makes its folder and record.
    pub(crate) fn create(
        invocation: &Invocation,
        batch: &[OsString],
        mount: Option<&Path>,
        machine: &MachineArgs,
        action: &str,
    ) -> Outcome<Self> {
        let request =
            LocalRequest::parse(batch).map_err(|error| Failure::new(action, error).code(USAGE))?;
        if !request.ignored.is_empty() {
            warn(&format!(
                "the VM runs on this machine, where these options mean nothing: {}",
                request.ignored.join(", ")
            ));
        }
        let environment = &invocation.environment;
        let jobs = Jobs::open(&environment.user_conf).when(|| action)?;
        allocation::forget_old(environment, &jobs);
        let folder = jobs.create_local().when(|| action)?;
        let now = SystemClock.unix();
        let name = request.name.as_deref().unwrap_or("docker");
        let mut record = Record::new(folder.id(), name, Backend::Local, &environment.user, now);
        record.deadline = request.time.map(|time| now + time.as_secs());
        record.mount = mount.map(Path::to_owned);
        // Until the launcher takes over, we stand for it.
        record.launcher = Some(jobs.here().holder(std::process::id()).when(|| action)?);
        if let Err(error) = folder.write(&record) {
            // A folder without a record is nobody's.
            let _ = folder.remove();
            return Err(Failure::new(action, error));
        }
        let words = launch::words(
            Some(folder.id()),
            false,
            request.cpus,
            request.memory_mib,
            mount,
            machine,
        );
        Ok(Self { folder, words })
    }

    /// The launcher's command. One that is `held` ends with us.
    fn command(&self, held: bool, action: &str) -> Outcome<Command> {
        let mut command = Command::new(launch::program(action)?);
        command.args(&self.words);
        if held {
            command.arg("--lifeline");
        }
        Ok(command)
    }

    /// Starts the launcher; it is held by what is given back.
    pub(crate) fn launch(&self, held: bool, action: &str) -> Outcome<Launcher> {
        let mut command = self.command(held, action)?;
        Launcher::spawn(&mut command)
            .map_err(|error| self.fail(&format!("run its launcher: {error}"), action))
    }

    /// Starts a launcher that goes on without us.
    pub(crate) fn launch_alone(&self, action: &str) -> Outcome<std::process::Child> {
        use std::process::Stdio;
        let mut command = self.command(false, action)?;
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            // Leaves our session by itself, which the leader of a process group could not.
            .spawn()
            .map_err(|error| self.fail(&format!("run its launcher: {error}"), action))
    }

    /// Writes down why there is no launcher, and tells it.
    pub(crate) fn fail(&self, why: &str, action: &str) -> Failure {
        if let Ok(mut record) = self.folder.read() {
            record.state = State::Failed;
            record.error = Some(why.to_owned());
            if let Err(error) = self.folder.write(&record) {
                tracing::debug!(%error, "the record stays");
            }
        }
        Failure::message(action, why)
    }
}

impl Args {
    /// The same as words for a session in an allocation.
    fn session_words(&self, mount: Option<&Path>, give_up: Option<&GiveUp>) -> Vec<OsString> {
        let mut words = self.machine.words();
        let mut add = |option: &str, value: OsString| {
            let mut word = OsString::from(option);
            word.push(value);
            words.push(word);
        };
        if let Some(script) = &self.script {
            add("--script=", script.into());
        }
        if let Some(mount) = mount {
            add("--mount=", mount.into());
        }
        if let Some(give_up) = give_up {
            add("--give-up=", give_up.word().into());
        }
        words
    }
}
