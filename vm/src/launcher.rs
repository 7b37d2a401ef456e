//! The launcher: keeps one VM alive on its node, and records the VM's state.
//!
//! Phases, each written to the job's record before it begins:
//! starting (certificates, guest image) → booting (the machine starts; a port that is taken is replaced by another)
//! → ready (the docker daemon answered over TLS) → stopping → ended or failed.
//!
//! It ends when the VM ends, when the time is up, and when `cancel` is raised: by a signal, or because the command that
//! wanted the VM is gone. When [`Launch::run`] returns, nothing of the VM is left.
//!
//! A node that Slurm has lost may still run a launcher whose job was started again elsewhere. The record then names the
//! other launcher, and this one ends without writing to it.

use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use pcocc_core::cancel::Cancel;

use self::deadline::Deadline;
pub use self::endpoint::EndpointSpec;
use crate::clock::Clock;
use crate::guest_image::GuestImage;
use crate::job::{self, JobFolder, Record, State};
use crate::machine::{
    Exit, Hypervisor, Machine, MachineError, MachineEvent, MachinePlan, MachineSpec, Stage,
};
use crate::report::Report;
use crate::tls::{Identities, TlsError, Validity, endpoint_names};

mod deadline;
mod endpoint;

/// How long the guest may take to stop its containers.
const GRACE: Duration = Duration::from_millis(500);
/// How often the launcher checks whether it is to stop.
const TICK: Duration = Duration::from_millis(50);
/// How often the launcher checks whether the record still names it.
const OWNERSHIP: Duration = Duration::from_secs(3);
/// How many other ports are tried when a port is taken.
const PORTS_TRIED: usize = 8;

/// Why a VM could not be kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LaunchError {
    /// The machine.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// The job's folder.
    #[error(transparent)]
    Job(#[from] job::Error),
    /// The certificates.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// No port is free.
    #[error("no port of {address} in {first}-{last} is free")]
    NoPort {
        /// The address.
        address: IpAddr,
        /// Lowest port.
        first: u16,
        /// Highest port.
        last: u16,
    },
}

/// One VM and what its launcher needs.
pub struct Launch<'a> {
    /// The job's folder.
    pub folder: &'a JobFolder,
    /// The job's record, with this process as its launcher.
    pub record: Record,
    /// Where the docker endpoint is to be.
    pub endpoint: EndpointSpec,
    /// The plan of the VM.
    pub plan: MachinePlan,
    /// The image that the guest boots from.
    pub image: GuestImage,
    /// What starts the machine.
    pub hypervisor: &'a dyn Hypervisor,
    /// Raised when the VM is to end.
    pub cancel: &'a Cancel,
    /// Receives every step.
    pub report: &'a mut dyn FnMut(Report),
    /// The time.
    pub clock: &'a dyn Clock,
}

impl std::fmt::Debug for Launch<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Launch")
            .field("record", &self.record)
            .finish_non_exhaustive()
    }
}

/// How a VM's life ended.
enum End {
    /// As intended, perhaps with a reason.
    Ended(Option<String>),
    /// By an error.
    Failed(String),
}

impl Launch<'_> {
    /// Starts the VM and stays until it has ended; gives the last record.
    ///
    /// Fails only when the record itself cannot be written.
    pub fn run(mut self) -> Result<Record, job::Error> {
        let end = match self.live() {
            Ok(end) => end,
            // The record cannot say it.
            Err(LaunchError::Job(error)) => return Err(self.report_unwritten(error)),
            Err(_) if self.cancel.is_cancelled() => End::Ended(None),
            Err(error) => End::Failed(error.to_string()),
        };
        // Slurm puts no job back into the queue that has ended by itself.
        self.record.may_return &= self.cancel.is_cancelled();
        (self.record.state, self.record.error) = match end {
            End::Ended(word) => (State::Ended, word),
            End::Failed(why) => (State::Failed, Some(why)),
        };
        if !is_own(self.folder, &self.record) {
            return Ok(self.record);
        }
        if let Err(error) = self.folder.remove_client_files() {
            tracing::warn!(%error, "the certificates of a job that is over stay");
        }
        match self.write() {
            Ok(()) => Ok(self.record),
            Err(error) => Err(self.report_unwritten(error)),
        }
    }

    /// Ends a job whose record cannot be written: the last record goes to the caller alone.
    fn report_unwritten(&mut self, error: job::Error) -> job::Error {
        if is_own(self.folder, &self.record)
            && let Err(error) = self.folder.remove_client_files()
        {
            tracing::warn!(%error, "the certificates of a job that is over stay");
        }
        self.record.state = State::Failed;
        self.record.error = Some(error.to_string());
        (self.report)(Report::Record(Box::new(self.record.clone())));
        error
    }

    fn live(&mut self) -> Result<End, LaunchError> {
        self.set(State::Starting)?;
        let mut deadline = Deadline::new(self.record.deadline, self.clock);
        let now = self.clock.unix();
        let endpoint = &self.endpoint;
        let names = endpoint_names(&endpoint.node, endpoint.address, endpoint.name.as_deref());
        let validity = Validity::of_job(now, self.record.deadline);
        let identities = Identities::issue(self.record.id, &names, validity)?;
        self.folder.write_client_files(&identities.client_files())?;
        let spec = MachineSpec {
            plan: self.plan.clone(),
            image: self.image.unpack()?,
            listen: self.endpoint.free_port()?,
            identity: identities.server,
            client: identities.client,
        };
        let mut machine = self.start(spec)?;
        // The machine keeps its files open; without names they go with it, whichever process is killed.
        unlink_files(&self.plan.scratch);
        self.record.endpoint = Some(self.endpoint.url(machine.endpoint()));
        self.set(State::Ready)?;
        let end = self.wait(&mut *machine, &mut deadline)?;
        self.set(State::Stopping)?;
        match machine.stop(GRACE) {
            Ok(()) => Ok(end),
            // The machine is gone in any case.
            Err(error) => {
                tracing::warn!(%error, "the guest did not stop by itself");
                Ok(end)
            }
        }
    }

    fn start(&mut self, mut spec: MachineSpec) -> Result<Box<dyn Machine>, LaunchError> {
        let mut tried = 0;
        loop {
            if self.cancel.is_cancelled() {
                return Err(MachineError::Cancelled.into());
            }
            let (folder, cancel) = (self.folder, self.cancel);
            let (record, report) = (&mut self.record, &mut *self.report);
            let mut failed = None;
            let mut on_stage = |stage: Stage| {
                let booting = matches!(stage, Stage::Booting | Stage::Resuming);
                if booting && record.state != State::Booting {
                    record.state = State::Booting;
                    failed = failed.take().or(write_own(folder, record).err());
                    report(Report::Record(Box::new(record.clone())));
                }
                report(match stage {
                    Stage::Warning(text) => Report::Warning(text),
                    stage => Report::Stage(stage.to_string()),
                });
            };
            let started = self.hypervisor.start(&spec, cancel, &mut on_stage);
            if let Some(error) = failed {
                return Err(error.into());
            }
            match started {
                Ok(machine) => return Ok(machine),
                Err(MachineError::PortTaken(_)) if tried < PORTS_TRIED => {
                    tried += 1;
                    spec.listen = self.endpoint.free_port()?;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Waits until the VM ends, or is to end.
    fn wait(
        &mut self,
        machine: &mut dyn Machine,
        deadline: &mut Deadline,
    ) -> Result<End, LaunchError> {
        let mut checked = Instant::now();
        loop {
            let exit = machine.wait(TICK)?;
            for event in machine.events() {
                (self.report)(Report::Warning(describe(&event)));
            }
            if self.cancel.is_cancelled() {
                return Ok(End::Ended(None));
            }
            if let Some(exit) = exit {
                return Ok(self.end_of(exit));
            }
            if checked.elapsed() > OWNERSHIP {
                checked = Instant::now();
                if !is_own(self.folder, &self.record) {
                    let word = "the job was started again, and this VM is not its own any more";
                    (self.report)(Report::Warning(word.to_owned()));
                    return Ok(End::Ended(Some(word.to_owned())));
                }
            }
            if deadline.is_over(self.clock) {
                return Ok(End::Ended(Some("the time limit was reached".to_owned())));
            }
            if let Some(moved) = deadline.moved(self.clock) {
                // The node's clock was set: prompts count down to the new deadline.
                self.record.deadline = Some(moved);
                self.write()?;
            }
        }
    }

    /// The end of a VM that ended by itself.
    fn end_of(&self, exit: Exit) -> End {
        // Slurm signals all processes of a job at once, and the VM may end before this process sees its signal.
        let patience = Instant::now() + Duration::from_millis(300);
        while Instant::now() < patience {
            if self.cancel.is_cancelled() {
                return End::Ended(None);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        match exit {
            Exit::ShutDown => End::Ended(Some("the guest shut down".to_owned())),
            Exit::Panicked => End::Failed("the guest's kernel panicked".to_owned()),
            Exit::Died(how) => End::Failed(format!("the hypervisor ended: {how}")),
        }
    }

    fn set(&mut self, state: State) -> Result<(), job::Error> {
        self.record.state = state;
        self.write()
    }

    fn write(&mut self) -> Result<(), job::Error> {
        write_own(self.folder, &self.record)?;
        (self.report)(Report::Record(Box::new(self.record.clone())));
        Ok(())
    }
}

/// Whether the record of a job still names the launcher of `ours`; assumed of a record that cannot be read.
fn is_own(folder: &JobFolder, ours: &Record) -> bool {
    folder
        .read()
        .map_or(true, |written| written.launcher == ours.launcher)
}

/// Writes a record, unless another launcher has taken it over.
fn write_own(folder: &JobFolder, record: &Record) -> Result<(), job::Error> {
    match is_own(folder, record) {
        true => folder.write(record),
        false => Ok(()),
    }
}

/// Removes the names of the files in a running machine's scratch folder.
fn unlink_files(scratch: &Path) {
    for entry in fs::read_dir(scratch).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_file())
            && let Err(error) = fs::remove_file(entry.path())
        {
            tracing::debug!(%error, "a scratch file keeps its name");
        }
    }
}

/// An event in words.
fn describe(event: &MachineEvent) -> String {
    match event {
        MachineEvent::DaemonRestarted { how } => {
            format!("the docker daemon ended ({how}) and was started again")
        }
        MachineEvent::DaemonFailed { why } => {
            format!("the docker daemon does not start any more: {why}")
        }
        MachineEvent::Note(text) => text.clone(),
    }
}

#[cfg(test)]
mod tests;
