//! One QEMU process from its start to a guest that talks.
//!
//! Phases: data disk → QEMU, stopped → connected to the node's network → the state of a snapshot is loaded, if there is
//! one → the guest runs. Dropping an [`Instance`] in any phase kills what runs.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use pcocc_core::cancel::Cancel;
use pcocc_guest::protocol::FromGuest;
use serde_json::json;

use super::Accelerator;
use super::arguments::{
    CONSOLE_SOCKET, CONTROL_SOCKET, Forward, Memory, Options, QMP_SOCKET, arguments,
};
use super::channel::Channel;
use super::console::Console;
use super::filter::ModeFilter;
use super::migration;
use super::namespace::Namespace;
use super::process::Process;
use super::qmp::{MAX_TEXT, Qmp};
use super::uplink::Uplink;
use super::watch::StartWatch;
use super::words::Words;
use crate::machine::{MachineError, MachineSpec, NetworkPolicy};
use crate::program;

/// What an instance needs besides the machine's specification.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InstancePlan<'a> {
    /// QEMU.
    pub(crate) program: &'a Path,
    /// What executes the guest.
    pub(crate) accelerator: Accelerator,
    /// Where the guest's memory is.
    pub(crate) memory: Memory<'a>,
    /// State of the devices to load.
    pub(crate) state: Option<&'a Path>,
    /// The data disk.
    pub(crate) data: &'a Path,
    /// Whether the guest is a job's, with shares, endpoint and network, or only there to be saved.
    pub(crate) job: bool,
    /// Whether QEMU gets a network namespace.
    pub(crate) namespace: bool,
}

/// A running QEMU and the connections to it. Fields are dropped in order: the guest first.
#[derive(Debug)]
pub(crate) struct Instance {
    program: PathBuf,
    words: Words,
    pub(crate) process: Process,
    pub(crate) uplink: Option<Uplink>,
    pub(crate) qmp: Qmp,
    pub(crate) channel: Channel,
    #[expect(dead_code, reason = "it is dropped")]
    console: Console,
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

impl Instance {
    /// Starts QEMU as planned; the guest runs when this returns.
    #[expect(unsafe_code, reason = "code between fork and exec")]
    pub(crate) fn start(
        spec: &MachineSpec,
        plan: &InstancePlan<'_>,
        watch: &StartWatch<'_>,
    ) -> Result<Self, MachineError> {
        watch.check()?;
        let sockets = &spec.plan.sockets;
        let nothing = sockets.join("nothing");
        for socket in [
            QMP_SOCKET,
            CONTROL_SOCKET,
            CONSOLE_SOCKET,
            "uplink",
            "state",
        ] {
            // A guest that was saved a moment ago leaves its own.
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
            forward,
            shares: &shares,
            nothing: &nothing,
        };
        let pipe = Words::new();
        let (words, output) = pipe.map_err(MachineError::io("make a pipe for", plan.program))?;
        let mut command = Command::new(plan.program);
        command
            .args(arguments(&options))
            .env_clear()
            .stdin(Stdio::null())
            .stdout(output.0)
            .stderr(output.1);
        // Nothing leaves a guest that is only there to be saved.
        let policy = match plan.job {
            true => spec.plan.network,
            false => NetworkPolicy::Closed,
        };
        let namespace = plan
            .namespace
            .then(|| Namespace::new(policy, &spec.plan.reachable));
        let program = plan.program.to_path_buf();
        let filter = ModeFilter::new().map_err(MachineError::io("make a filter for", &program))?;
        let enter = move || {
            namespace.as_ref().map_or(Ok(()), Namespace::enter)?;
            filter.enter()
        };
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
        let console = Console::connect(
            &sockets.join(CONSOLE_SOCKET),
            &spec.plan.console_log,
            spec.plan.console_bytes,
        )
        .map_err(MachineError::io(
            "write the console to",
            &spec.plan.console_log,
        ))?;
        let control = sockets.join(CONTROL_SOCKET);
        let channel = Channel::connect(&control)
            .map_err(MachineError::io("connect to the guest at", &control))?;
        if let Some(state) = plan.state {
            migration::load(&mut qmp, state, sockets, || alive(&mut process))?;
        }
        qmp.execute("cont", json!({}))?;
        Ok(Self {
            program,
            words,
            process,
            uplink,
            qmp,
            channel,
            console,
        })
    }

    /// Waits for the message of the agent from which `wanted` makes a value.
    pub(crate) fn expect<T>(
        &mut self,
        watch: &StartWatch<'_>,
        wanted: impl FnMut(&FromGuest) -> Option<T>,
    ) -> Result<T, MachineError> {
        let Self {
            program,
            words,
            process,
            channel,
            ..
        } = self;
        channel.expect(wanted, || {
            watch.check()?;
            match process.wait(Duration::ZERO) {
                None => Ok(()),
                Some(how) => Err(early_end(program, how, words)),
            }
        })
    }
}

/// The error of a QEMU that ended too early, with the last line of its output.
fn early_end(program: &Path, how: &str, words: &Words) -> MachineError {
    let text = words.last();
    let said = text.lines().rev().find(|line| !line.trim().is_empty());
    let said: String = said
        .unwrap_or("it said nothing")
        .chars()
        .take(MAX_TEXT)
        .collect();
    MachineError::Hypervisor {
        program: program.display().to_string(),
        why: format!("{how}: {said}"),
    }
}
