//! The launcher: keeps one VM alive on its node, and writes down how it is doing.
//!
//! Phases, each written to the job's record before it begins:
//! starting (certificates, guest image) → booting (the machine starts; a port that is taken is replaced by another)
//! → ready (the docker daemon answered over TLS) → stopping → ended or failed.
//!
//! It ends when the VM ends, when the time is up, and when it is told to by `cancel`: by a signal, or because the command
//! that wanted the VM is gone. Whatever happens, [`Launch::run`] returns with nothing of the VM left.
//!
//! A node that Slurm has lost may still run us when the job was started again elsewhere: then the record is another's, and
//! we end without touching it.

use std::fs;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::Path;
use std::time::{Duration, Instant};

use pcocc_core::batch::Ports;
use pcocc_core::cancel::Cancel;

use crate::clock::Clock;
use crate::guest_image::GuestImage;
use crate::job::{self, JobFolder, Record, State};
use crate::machine::{
    Exit, Hypervisor, Machine, MachineError, MachineEvent, MachinePlan, MachineSpec, Stage,
};
use crate::report::Report;
use crate::tls::{Identities, TlsError, Validity, endpoint_names};

/// How long the guest may take to stop its containers.
const GRACE: Duration = Duration::from_millis(500);
/// How often the launcher looks whether it is to stop.
const TICK: Duration = Duration::from_millis(50);
/// How often it looks whether the job still is its own.
const OWNERSHIP: Duration = Duration::from_secs(3);
/// How often another port is tried when one is taken.
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

/// Where a docker endpoint is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSpec {
    /// Name of the node.
    pub node: String,
    /// The address to listen at.
    pub address: IpAddr,
    /// The name clients shall use instead of the address.
    pub name: Option<String>,
    /// The ports to choose from; any when missing.
    pub ports: Option<Ports>,
}

impl EndpointSpec {
    /// A port that is free now.
    fn free_port(&self) -> Result<SocketAddr, LaunchError> {
        let bound = |port: u16| {
            let listener = TcpListener::bind((self.address, port))?;
            listener.local_addr()
        };
        let Some(Ports { first, last }) = self.ports else {
            return bound(0).map_err(|source| {
                MachineError::Io {
                    action: "listen at",
                    path: self.address.to_string().into(),
                    source,
                }
                .into()
            });
        };
        // Not everybody starts with the lowest.
        let count = u32::from(last - first) + 1;
        let start = std::process::id() % count;
        for step in 0..count {
            let port = first + u16::try_from((start + step) % count).unwrap_or(0);
            if let Ok(found) = bound(port) {
                return Ok(found);
            }
        }
        Err(LaunchError::NoPort {
            address: self.address,
            first,
            last,
        })
    }

    /// The endpoint's URL for clients.
    fn url(&self, found: SocketAddr) -> String {
        match &self.name {
            Some(name) => format!("tcp://{name}:{}", found.port()),
            None => format!("tcp://{found}"),
        }
    }
}

/// One launch.
pub struct Launch<'a> {
    /// The job's folder.
    pub folder: &'a JobFolder,
    /// Its record, with this process as its launcher.
    pub record: Record,
    /// Where its endpoint is to be.
    pub endpoint: EndpointSpec,
    /// What the VM is to be.
    pub plan: MachinePlan,
    /// What the guest boots from.
    pub image: GuestImage,
    /// What starts it.
    pub hypervisor: &'a dyn Hypervisor,
    /// Raised when it is to end.
    pub cancel: &'a Cancel,
    /// Told of every step.
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
    /// As it was meant to, perhaps with a word about it.
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
            // Nobody can read it in the record.
            Err(LaunchError::Job(error)) => return Err(self.unwritten(error)),
            Err(_) if self.cancel.is_cancelled() => End::Ended(None),
            Err(error) => End::Failed(error.to_string()),
        };
        // Nobody puts a job back into the queue that has ended by itself.
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
            Err(error) => Err(self.unwritten(error)),
        }
    }

    /// Takes leave of a job whose record cannot be written: what it would say is told to whoever listens.
    fn unwritten(&mut self, error: job::Error) -> job::Error {
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
        let end = self.keep(&mut *machine, &mut deadline)?;
        self.set(State::Stopping)?;
        match machine.stop(GRACE) {
            Ok(()) => Ok(end),
            // It is gone in any case.
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
    fn keep(
        &mut self,
        machine: &mut dyn Machine,
        deadline: &mut Deadline,
    ) -> Result<End, LaunchError> {
        let mut looked = Instant::now();
        loop {
            let exit = machine.wait(TICK)?;
            for event in machine.events() {
                (self.report)(Report::Warning(tell(&event)));
            }
            if self.cancel.is_cancelled() {
                return Ok(End::Ended(None));
            }
            if let Some(exit) = exit {
                return Ok(self.explain(exit));
            }
            if looked.elapsed() > OWNERSHIP {
                looked = Instant::now();
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
                // The machine's clock was set: prompts count down to the new one.
                self.record.deadline = Some(moved);
                self.write()?;
            }
        }
    }

    /// Tells how a VM ended by itself.
    fn explain(&self, exit: Exit) -> End {
        // Slurm's signals go to all processes of a job at once, and the VM may be faster than we are.
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

/// Whether the record of a job is still that of the launcher which `ours` names. One that cannot be read is.
fn is_own(folder: &JobFolder, ours: &Record) -> bool {
    folder
        .read()
        .map_or(true, |written| written.launcher == ours.launcher)
}

/// Writes a record, unless it is another launcher's by now.
fn write_own(folder: &JobFolder, record: &Record) -> Result<(), job::Error> {
    match is_own(folder, record) {
        true => folder.write(record),
        false => Ok(()),
    }
}

/// When a job is to end, measured so that setting the machine's clock does not change it.
struct Deadline {
    /// In seconds since boot, sleep included.
    boot: Option<f64>,
    /// In unix seconds, as it was told last.
    unix: u64,
}

impl Deadline {
    fn new(unix: Option<u64>, clock: &dyn Clock) -> Self {
        let left = |deadline: u64| deadline as f64 - clock.unix() as f64;
        Self {
            boot: unix.map(|deadline| clock.boot() + left(deadline)),
            unix: unix.unwrap_or(0),
        }
    }

    fn is_over(&self, clock: &dyn Clock) -> bool {
        self.boot.is_some_and(|boot| clock.boot() >= boot)
    }

    /// The deadline in unix seconds, when the clock was set since.
    fn moved(&mut self, clock: &dyn Clock) -> Option<u64> {
        let now = clock.unix() as f64 + (self.boot? - clock.boot());
        if (now - self.unix as f64).abs() < 5.0 {
            return None;
        }
        self.unix = now.max(0.0) as u64;
        Some(self.unix)
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
fn tell(event: &MachineEvent) -> String {
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
