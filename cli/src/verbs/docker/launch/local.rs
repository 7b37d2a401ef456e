//! Jobs of this machine, before they have a launcher of their own.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use pcocc_vm::job::{Backend, JobFolder, Jobs, State};
use pcocc_vm::lifeline::{self, HeldLauncher};
use pcocc_vm::options::LocalRequest;

use super::{LaunchRequest, MachineArgs, VERB, first_record, program};
use crate::allocation;
use crate::invocation::Invocation;
use crate::errors::{Failure, Outcome, USAGE, While as _};
use crate::progress::warn;

/// A job of the local backend that has no launcher yet.
pub(crate) struct LocalJob {
    /// Its folder.
    pub(crate) folder: JobFolder,
    request: LaunchRequest,
}

impl LocalJob {
    /// Makes the folder and the record of a job that ends with its caller, or of one in the background with its `mount`.
    pub(crate) fn create(
        invocation: &Invocation,
        batch: &[OsString],
        held: bool,
        mount: Option<PathBuf>,
        machine: MachineArgs,
        action: &str,
    ) -> Outcome<Self> {
        let options =
            LocalRequest::parse(batch).map_err(|error| Failure::new(action, error).code(USAGE))?;
        if !options.ignored.is_empty() {
            warn(&format!(
                "the VM runs on this machine, where these options mean nothing: {}",
                options.ignored.join(", ")
            ));
        }
        let environment = &invocation.environment;
        let jobs = Jobs::open(&environment.user_conf).when(|| action)?;
        allocation::forget_old(environment, &jobs);
        let folder = jobs.create_local().when(|| action)?;
        let name = options.name.as_deref();
        let mut record = first_record(invocation, folder.id(), Backend::Local, name);
        record.deadline = options.time.map(|time| record.created + time.as_secs());
        record.mount.clone_from(&mount);
        // This process holds the record until the launcher takes it over.
        record.launcher = Some(jobs.here().holder(std::process::id()).when(|| action)?);
        if let Err(error) = folder.write(&record) {
            // A folder without a record is nobody's.
            let _ = folder.remove();
            return Err(Failure::new(action, error));
        }
        let request = LaunchRequest {
            job: Some(folder.id()),
            held,
            cpus: options.cpus,
            memory_mib: options.memory_mib,
            mount,
            machine,
        };
        Ok(Self { folder, request })
    }

    /// Starts the launcher; the value that is returned holds it.
    pub(crate) fn launch(&self, action: &str) -> Outcome<HeldLauncher> {
        let (mut command, line) = self.command(action)?;
        HeldLauncher::spawn(&mut command, &line).map_err(|error| self.not_run(&error, action))
    }

    /// Starts a launcher that outlives this process.
    pub(crate) fn launch_alone(&self, action: &str) -> Outcome<Child> {
        let (mut command, line) = self.command(action)?;
        // The launcher leaves this session by itself, which the leader of a process group could not.
        command.stdout(Stdio::null());
        let started = lifeline::spawn(&mut command, &line);
        // Nothing but the request is on its standard input.
        let (child, _) = started.map_err(|error| self.not_run(&error, action))?;
        Ok(child)
    }

    fn command(&self, action: &str) -> Outcome<(Command, String)> {
        let mut command = Command::new(program(action)?);
        command.args(VERB);
        Ok((command, self.request.line(action)?))
    }

    fn not_run(&self, error: &std::io::Error, action: &str) -> Failure {
        self.fail(&format!("run its launcher: {error}"), action)
    }

    /// Records why there is no launcher; gives the failure.
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
