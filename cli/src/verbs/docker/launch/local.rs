//! Jobs of this machine, before their launcher runs.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use pcocc_vm::job::{Backend, JobFolder, State};
use pcocc_vm::lifeline::{self, HeldLauncher};
use pcocc_vm::options::LocalRequest;

use super::{LaunchRequest, MachineArgs, VERB, first_record, program};
use crate::errors::{Failure, Outcome, USAGE};
use crate::invocation::Invocation;
use crate::messages::warn;
use crate::old_jobs;

/// A job of the local backend without a launcher.
pub(crate) struct LocalJob {
    /// Its folder.
    pub(crate) folder: JobFolder,
    request: LaunchRequest,
}

impl LocalJob {
    /// Makes the folder and the record of a job that ends with its caller, or of a background job with its
    /// `mount`.
    pub(crate) fn create(
        invocation: &Invocation,
        batch: &[OsString],
        held: bool,
        mount: Option<PathBuf>,
        machine: MachineArgs,
    ) -> Outcome<Self> {
        let options =
            LocalRequest::parse(batch).map_err(|error| Failure::from(error).code(USAGE))?;
        if !options.ignored.is_empty() {
            warn(&format!(
                "the VM runs on this machine, where these options mean nothing: {}",
                options.ignored.join(", ")
            ));
        }
        let jobs = invocation.host.jobs()?;
        old_jobs::clean_up(&invocation.host);
        let folder = jobs.create_local()?;
        let name = options.name.as_deref();
        let mut record = first_record(invocation, folder.id(), Backend::Local, name);
        record.deadline = options.time.map(|time| record.created + time.as_secs());
        record.mount.clone_from(&mount);
        // This process holds the record until the launcher takes it over.
        record.launcher = Some(jobs.here().holder(std::process::id())?);
        if let Err(error) = folder.write(&record) {
            // A folder without a record belongs to nobody.
            let _ = folder.remove();
            return Err(error.into());
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

    /// Starts the launcher; the returned value holds it.
    pub(crate) fn launch(&self) -> Outcome<HeldLauncher> {
        let (mut command, line) = self.command()?;
        HeldLauncher::spawn(&mut command, &line).map_err(|error| self.not_run(&error))
    }

    /// Starts a launcher that outlives this process.
    pub(crate) fn launch_alone(&self) -> Outcome<Child> {
        let (mut command, line) = self.command()?;
        // The launcher leaves this session by itself. The leader of a process group could not.
        command.stdout(Stdio::null());
        let started = lifeline::spawn(&mut command, &line);
        // The launcher gets only the request on its standard input.
        let (child, _) = started.map_err(|error| self.not_run(&error))?;
        Ok(child)
    }

    fn command(&self) -> Outcome<(Command, String)> {
        let mut command = Command::new(program()?);
        command.args(VERB);
        Ok((command, self.request.line()?))
    }

    fn not_run(&self, error: &std::io::Error) -> Failure {
        self.fail(&format!("run its launcher: {error}"))
    }

    /// Records why there is no launcher; returns the failure.
    pub(crate) fn fail(&self, why: &str) -> Failure {
        if let Ok(mut record) = self.folder.read() {
            record.state = State::Failed;
            record.error = Some(why.to_owned());
            if let Err(error) = self.folder.write(&record) {
                tracing::debug!(%error, "the record stays");
            }
        }
        Failure::because(why)
    }
}
