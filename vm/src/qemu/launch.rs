//! One QEMU process from its start to a guest that talks.
//!
//! Phases: data disk → QEMU, stopped → connected to the node's network → either the state of a snapshot is loaded
//! or nothing → the guest runs. Dropping a [`Launched`] at any of them kills what runs.

use std::fs::{self, File};
use std::io;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use pcocc_core::cancel::Cancel;
use serde_json::json;

use super::Accelerator;
use super::arguments::{CONTROL_SOCKET, Memory, Options, QMP_SOCKET, arguments};
use super::channel::Channel;
use super::network::{Forward, Namespace, Uplink};
use super::process::Process;
use super::qmp::Qmp;
use crate::machine::{MachineError, MachineSpec, NetworkPolicy};
use crate::program;

/// Longest time that moving the state of the devices may take.
const STATE: Duration = Duration::from_secs(120);
/// Lines of the console that a failure shows.
const LAST_LINES: usize = 12;

/// How long a start may take, and what it is doing.
#[derive(Debug)]
pub(crate) struct Watch<'a> {
    cancel: &'a Cancel,
    begun: Instant,
    deadline: Duration,
    console: PathBuf,
    /// When a guest must have answered that has nothing to do before.
    pub(crate) answer_by: Option<Instant>,
    /// What it is doing, as it follows "the VM was".
    pub(crate) doing: &'static str,
}

impl<'a> Watch<'a> {
    /// Starts the clock of `spec`'s start.
    pub(crate) fn new(spec: &MachineSpec, cancel: &'a Cancel) -> Self {
        Self {
            cancel,
            begun: Instant::now(),
            deadline: spec.plan.deadline,
            console: spec.plan.console_log.clone(),
            answer_by: None,
            doing: "starting",
        }
    }

    /// The flag that asks to stop.
    pub(crate) fn cancel(&self) -> &'a Cancel {
        self.cancel
    }

    /// Whether a guest has not answered in time.
    pub(crate) fn is_late(&self) -> bool {
        self.answer_by.is_some_and(|by| Instant::now() >= by)
    }

    /// Fails when the start was cancelled or takes too long.
    pub(crate) fn check(&self) -> Result<(), MachineError> {
        if self.cancel.is_cancelled() {
            return Err(MachineError::Cancelled);
        }
        if self.is_late() {
            return Err(MachineError::Guest("does not answer".into()));
        }
        if self.begun.elapsed() >= self.deadline {
            return Err(MachineError::TimedOut {
                after: self.deadline,
                stage: self.doing.to_owned(),
                console: last_lines(&self.console),
            });
        }
        Ok(())
    }
}

/// Reads the last lines of a console log.
pub(crate) fn last_lines(console: &Path) -> Vec<String> {
    let text = fs::read(console).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    let first = lines.len().saturating_sub(LAST_LINES);
    let last = lines.get(first..).unwrap_or_default();
    last.iter()
        .map(|line| line.chars().filter(|c| !c.is_control()).collect())
        .collect()
}

/// What a launch needs besides the specification.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan<'a> {
    /// QEMU.
    pub(crate) program: &'a Path,
    /// What executes the guest.
    pub(crate) accelerator: Accelerator,
    /// Where its memory is.
    pub(crate) memory: Memory<'a>,
    /// State of the devices to load.
    pub(crate) state: Option<&'a Path>,
    /// The data disk.
    pub(crate) data: &'a Path,
    /// Whether it is a job's: shares, endpoint, network. One that is only to be saved has none.
    pub(crate) job: bool,
    /// Whether it may have a namespace.
    pub(crate) namespace: bool,
}

/// A running QEMU and the connections to it. Fields are dropped in order: the guest first.
#[derive(Debug)]
pub(crate) struct Launched {
    pub(crate) process: Process,
    pub(crate) uplink: Option<Uplink>,
    pub(crate) qmp: Qmp,
    pub(crate) channel: Channel,
}

/// Makes the data disk `path` out of the image's template.
pub(crate) fn make_data_disk(
    spec: &MachineSpec,
    path: &Path,
    cancel: &Cancel,
) -> Result<(), MachineError> {
    fs::copy(&spec.image.data, path).map_err(MachineError::io("copy the data disk to", path))?;
    let mut resize = Command::new("qemu-img");
    resize.args(["resize", "-q", "-f", "qcow2", "--"]);
    resize.arg(path).arg(spec.plan.disk_bytes.to_string());
    program::run(&mut resize, "qemu-utils", cancel).map(drop)
}

/// Starts QEMU as planned; the guest runs when this returns.
#[expect(unsafe_code, reason = "code between fork and exec")]
pub(crate) fn launch(
    spec: &MachineSpec,
    plan: &Plan<'_>,
    watch: &Watch<'_>,
) -> Result<Launched, MachineError> {
    watch.check()?;
    let sockets = &spec.plan.sockets;
    let nothing = sockets.join("nothing");
    for socket in [QMP_SOCKET, CONTROL_SOCKET, "uplink", "state"] {
        // Of the guest that was saved a moment ago.
        let _ = fs::remove_file(sockets.join(socket));
    }
    fs::create_dir_all(&nothing).map_err(MachineError::io("make the folder", &nothing))?;
    let shares: Vec<(&Path, bool)> = match plan.job {
        true => spec
            .plan
            .shares
            .iter()
            .map(|share| (&*share.source, share.read_only))
            .collect(),
        false => Vec::new(),
    };
    let forward = match plan.namespace {
        true => Forward::Namespace,
        false => Forward::Direct(spec.listen),
    };
    let options = Options {
        cpus: spec.plan.cpus,
        memory_mib: spec.plan.memory_mib,
        accelerator: plan.accelerator,
        image: &spec.image,
        memory: plan.memory,
        data: plan.data,
        sockets,
        console: &spec.plan.console_log,
        forward,
        shares: &shares,
        nothing: &nothing,
    };
    let words = sockets.join("qemu.log");
    let log = File::create(&words).map_err(MachineError::io("make", &words))?;
    let mut command = Command::new(plan.program);
    command
        .args(arguments(&options))
        .env_clear()
        .stdin(Stdio::null())
        .stdout(log.try_clone().map_err(MachineError::io("share", &words))?)
        .stderr(log);
    // Nothing leaves a guest that is only there to be saved.
    let policy = match plan.job {
        true => spec.plan.network,
        false => NetworkPolicy::Closed,
    };
    let namespace = plan
        .namespace
        .then(|| Namespace::new(policy, &spec.plan.reachable));
    let enter = move || namespace.as_ref().map_or(Ok(()), Namespace::enter);
    let program = plan.program.to_path_buf();
    // SAFETY: `enter` is async-signal-safe.
    let started = unsafe { Process::start(command, enter) };
    let mut process = started.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => MachineError::ProgramMissing {
            program: program.display().to_string(),
            package: "qemu-system-x86",
        },
        _ => MachineError::io("start", &program)(error),
    })?;
    let alive = |process: &mut Process| -> Result<(), MachineError> {
        watch.check()?;
        match process.wait(Duration::ZERO) {
            None => Ok(()),
            Some(how) => Err(early_end(&program, how, &words)),
        }
    };
    let uplink = match plan.namespace && plan.job {
        true => Some(Uplink::open(
            process.pid(),
            spec.listen,
            spec.plan.network,
            sockets,
            watch.cancel(),
        )?),
        false => None,
    };
    let mut qmp = loop {
        alive(&mut process)?;
        match Qmp::connect(&sockets.join(QMP_SOCKET)) {
            Ok(qmp) => break qmp,
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    let control = sockets.join(CONTROL_SOCKET);
    let channel = Channel::connect(&control)
        .map_err(MachineError::io("connect to the guest at", &control))?;
    if let Some(state) = plan.state {
        load(&mut qmp, state, sockets, || alive(&mut process))?;
    }
    qmp.execute("cont", json!({}))?;
    Ok(Launched {
        process,
        uplink,
        qmp,
        channel,
    })
}

/// Says how QEMU ended before it should, with its own words.
pub(crate) fn early_end(program: &Path, how: &str, words: &Path) -> MachineError {
    let text = fs::read_to_string(words).unwrap_or_default();
    let said = text.lines().rev().find(|line| !line.trim().is_empty());
    MachineError::Hypervisor {
        program: program.display().to_string(),
        why: format!("{how}: {}", said.unwrap_or("it said nothing")),
    }
}

/// The memory is a file of its own and does not go through the stream of the state.
fn leave_memory_out(qmp: &mut Qmp) -> Result<(), MachineError> {
    let capability = json!({"capability": "x-ignore-shared", "state": true});
    qmp.execute(
        "migrate-set-capabilities",
        json!({"capabilities": [capability]}),
    )?;
    Ok(())
}

/// Loads the state of the devices from a file.
fn load(
    qmp: &mut Qmp,
    state: &Path,
    sockets: &Path,
    check: impl FnMut() -> Result<(), MachineError>,
) -> Result<(), MachineError> {
    let socket = sockets.join("state");
    leave_memory_out(qmp)?;
    let uri = format!("unix:{}", socket.display());
    qmp.execute("migrate-incoming", json!({"uri": uri}))?;
    let feed = || -> io::Result<()> {
        let mut stream = std::os::unix::net::UnixStream::connect(&socket)?;
        io::copy(&mut File::open(state)?, &mut stream)?;
        Ok(())
    };
    feed().map_err(MachineError::io("load the state", state))?;
    qmp.wait_migrated(STATE, check)
}

/// Stops the guest and saves the state of its devices to the new file `state`; its memory is in its file.
pub(crate) fn save(
    launched: &mut Launched,
    state: &Path,
    sockets: &Path,
    watch: &Watch<'_>,
) -> Result<(), MachineError> {
    let socket = sockets.join("state");
    let listener = UnixListener::bind(&socket).map_err(MachineError::io("listen at", &socket))?;
    let mut file = File::create_new(state).map_err(MachineError::io("make", state))?;
    launched.qmp.execute("stop", json!({}))?;
    leave_memory_out(&mut launched.qmp)?;
    let receiver = std::thread::spawn(move || -> io::Result<()> {
        let (mut stream, _) = listener.accept()?;
        io::copy(&mut stream, &mut file)?;
        Ok(())
    });
    let uri = format!("unix:{}", socket.display());
    launched.qmp.execute("migrate", json!({"uri": uri}))?;
    launched.qmp.wait_migrated(STATE, || watch.check())?;
    launched.qmp.execute("quit", json!({}))?;
    // QEMU has gone or goes: its end of the stream is closed.
    match receiver.join() {
        Ok(result) => result.map_err(MachineError::io("save the state in", state))?,
        Err(_) => return Err(MachineError::Guest("state was not saved".into())),
    }
    if launched.process.wait(Duration::from_secs(30)).is_none() {
        launched.process.kill();
    }
    let _ = fs::remove_file(&socket);
    Ok(())
}
