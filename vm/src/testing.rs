//! Machines in memory, also with faults, for the tests of code that uses machines, and what guests and QEMU say, for the
//! fuzzer in `fuzz/`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};
use pcocc_core::cancel::Cancel;

use crate::machine::{Exit, Hypervisor, Machine, MachineError, MachineEvent, MachineSpec, Stage};
use crate::qemu::channel;
use crate::qemu::{qmp, snapshot, uplink};
use crate::slurm;

/// A test's control over machines in memory. Clones control the same machines.
#[derive(Clone, Debug, Default)]
pub struct Strings {
    shared: Arc<(Mutex<State>, Condvar)>,
}

#[derive(Debug, Default)]
struct State {
    running: usize,
    started: Vec<MachineSpec>,
    exit: Option<Exit>,
    events: Vec<MachineEvent>,
}

impl Strings {
    fn state(&self) -> MutexGuard<'_, State> {
        // A test that panicked says so by itself.
        self.shared.0.lock()
    }

    /// Number of machines that run now.
    pub fn running(&self) -> usize {
        self.state().running
    }

    /// The specifications of all machines that were started.
    pub fn started(&self) -> Vec<MachineSpec> {
        self.state().started.clone()
    }

    /// Ends the machines that run, as `exit` says.
    pub fn end(&self, exit: Exit) {
        self.state().exit = Some(exit);
        self.shared.1.notify_all();
    }

    /// Makes something happen in the machine that asks next.
    pub fn happen(&self, event: MachineEvent) {
        self.state().events.push(event);
    }
}

/// Where a [`TestHypervisor`] fails.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    /// Nowhere.
    #[default]
    None,
    /// The start fails at once, with this reason.
    Start(String),
    /// The start never ends, until it is cancelled or its deadline passes.
    Hang,
    /// Stopping fails, with this reason; the machine is gone all the same.
    Stop(String),
}

/// Starts machines in memory.
#[derive(Clone, Debug, Default)]
pub struct TestHypervisor {
    /// Where it fails.
    pub fault: Fault,
    /// Its machines, to look at and to end.
    pub strings: Strings,
}

impl Hypervisor for TestHypervisor {
    fn start(
        &self,
        spec: &MachineSpec,
        cancel: &Cancel,
        on_stage: &mut dyn FnMut(Stage),
    ) -> Result<Box<dyn Machine>, MachineError> {
        on_stage(Stage::Booting);
        match &self.fault {
            Fault::Start(why) => {
                return Err(MachineError::Hypervisor {
                    program: "test hypervisor".into(),
                    why: why.clone(),
                });
            }
            Fault::Hang => {
                let begun = Instant::now();
                while !cancel.is_cancelled() {
                    if begun.elapsed() >= spec.plan.deadline {
                        return Err(MachineError::TimedOut {
                            after: spec.plan.deadline,
                            stage: "booting".into(),
                        });
                    }
                    std::thread::sleep(Duration::from_millis(2));
                }
                return Err(MachineError::Cancelled);
            }
            Fault::None | Fault::Stop(_) => {}
        }
        on_stage(Stage::Ready);
        let mut state = self.strings.state();
        state.running += 1;
        state.started.push(spec.clone());
        Ok(Box::new(TestMachine {
            endpoint: spec.listen,
            fault: self.fault.clone(),
            strings: self.strings.clone(),
            ended: None,
        }))
    }
}

#[derive(Debug)]
struct TestMachine {
    endpoint: SocketAddr,
    fault: Fault,
    strings: Strings,
    ended: Option<Exit>,
}

impl TestMachine {
    fn end(&mut self, exit: Exit) {
        if self.ended.is_none() {
            self.ended = Some(exit);
            self.strings.state().running -= 1;
        }
    }
}

impl Machine for TestMachine {
    fn endpoint(&self) -> SocketAddr {
        self.endpoint
    }

    fn processes(&self) -> Vec<u32> {
        Vec::new()
    }

    fn wait(&mut self, timeout: Duration) -> Result<Option<Exit>, MachineError> {
        if self.ended.is_none() {
            let mut state = self.strings.state();
            let changed = &self.strings.shared.1;
            changed.wait_while_for(&mut state, |state| state.exit.is_none(), timeout);
            let exit = state.exit.clone();
            drop(state);
            if let Some(exit) = exit {
                self.end(exit);
            }
        }
        Ok(self.ended.clone())
    }

    fn events(&mut self) -> Vec<MachineEvent> {
        std::mem::take(&mut self.strings.state().events)
    }

    fn stop(&mut self, _grace: Duration) -> Result<(), MachineError> {
        self.end(Exit::ShutDown);
        match &self.fault {
            Fault::Stop(why) => Err(MachineError::Guest(why.clone())),
            _ => Ok(()),
        }
    }
}

impl Drop for TestMachine {
    fn drop(&mut self) {
        self.end(Exit::ShutDown);
    }
}

/// What a guest's agent says, line by line: texts are short, and what is read of a message is read again.
pub fn from_guest(data: &[u8]) {
    for line in data.split(|byte| *byte == b'\n') {
        if let Some(message) = channel::parse(line) {
            let written = serde_json::to_vec(&message).unwrap_or_default();
            assert!(
                written.len() < 256 << 10,
                "a message of {} bytes",
                written.len()
            );
            assert_eq!(channel::parse(&written).as_ref(), Some(&message));
        }
    }
}

/// All that QEMU says on its socket: what is kept of it is short.
pub fn qmp(data: &[u8]) {
    let mut events = qmp::Events::default();
    qmp::read_lines(data, |line| {
        if let Some(Err(words)) = events.take(&line) {
            assert!(words.chars().count() <= qmp::MAX_TEXT);
        }
        true
    });
}

/// The record of a snapshot: what is read is written as it was read.
pub fn snapshot(data: &[u8]) {
    if let Ok(record) = snapshot::Record::parse(data) {
        let written = record.render().unwrap_or_default();
        assert_eq!(snapshot::Record::parse(&written).ok(), Some(record));
    }
}

/// The answer of slirp4netns.
pub fn uplink(data: &[u8]) {
    if let Err(words) = uplink::forwarded(data) {
        assert!(words.chars().count() <= uplink::MAX_WORDS);
    }
}

/// What Slurm's commands print: the list of squeue in two forms, and the words of sbatch.
pub fn slurm(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let lines = text.lines().count();
    // Any time: a job that ends in the far future ends.
    let jobs = slurm::parse(&text, u64::from(u32::MAX));
    assert!(jobs.len() <= lines);
    let marked = slurm::with_comment(&text, "pcocc-mark");
    assert!(marked.len() <= lines);
    for line in text.lines() {
        if let Some(id) = slurm::submitted(line) {
            assert!(line.contains(&id.to_string()), "{line:?} is no job {id}");
        }
    }
}
