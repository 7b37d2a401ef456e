//! Runs a [`Plan`] in namespaces of its own, without root and without a helper program.
//!
//! Processes: this one serves the image's files and waits; the container's first process, a copy of it in
//! new user, mount and other namespaces (`inside.rs`), mounts them (`root.rs`) and starts the command (`command.rs`).
//! They talk over a socket until the command runs (`channel.rs`).
//!
//! No other process sees the mounts, and nothing is written to disk. When this process dies, the kernel kills the
//! container's first process, and with it all others of its process namespace. Without a process namespace, the first
//! process ends the others itself (`descendants.rs`). The mounts end with the last process.

mod channel;
mod command;
mod descendants;
mod inside;
mod namespace;
mod prepare;
mod refusal;
mod root;
mod signals;
mod stop;
mod sys;
mod terminal;
mod view;

use std::ffi::c_int;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pcocc_core::containers::Namespace;
use pcocc_fs::root::{RootTree, serve};
use rustix::process::WaitOptions;

pub use prepare::PrepareError;
pub use signals::ignored as ignored_signals;
pub use view::View;

use channel::{Channel, Message};
use descendants::Descendants;
use inside::Inside;
use terminal::Relay;

use crate::plan::Plan;

/// Exit code when the container could not be set up, as docker has it.
pub const FAILED: u8 = 125;
/// Exit code when the command cannot be run.
pub const NOT_EXECUTABLE: u8 = 126;
/// Exit code when there is no such command.
pub const NOT_FOUND: u8 = 127;

/// Threads that serve files, at most.
const SERVERS: usize = 4;

/// How long other threads may take to end before the container starts.
const PATIENCE: Duration = Duration::from_secs(2);

/// Why a container did not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The plan does not fit the image or the machine.
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    /// The kernel refuses what is needed.
    #[error("{0}")]
    Refused(String),
    /// The container could not be set up, or its command could not be run.
    #[error("{text}")]
    Stopped {
        /// 125, 126 or 127.
        code: u8,
        /// What happened.
        text: String,
    },
    /// A system call of this process failed.
    #[error("{action}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The system's error.
        source: io::Error,
    },
}

impl RunError {
    /// The exit code that `docker run` would give.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Stopped { code, .. } => *code,
            _ => FAILED,
        }
    }

    fn io<E: Into<io::Error>>(action: &'static str) -> impl FnOnce(E) -> Self {
        move |error| Self::Io {
            action,
            source: error.into(),
        }
    }
}

/// What a run is given besides its plan.
pub struct Surroundings<'a> {
    /// Files and folders (with a slash at the end) that every container has.
    pub image_mountpoints: &'a [String],
    /// This program's file, for a message about AppArmor.
    pub program: PathBuf,
    /// Called with warnings for the user.
    pub warn: &'a mut dyn FnMut(String),
    /// Called when the container takes signals over: from then on they are forwarded to the command.
    pub release_signals: &'a mut dyn FnMut(),
}

impl std::fmt::Debug for Surroundings<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Surroundings")
            .field("image_mountpoints", &self.image_mountpoints)
            .field("program", &self.program)
            .finish_non_exhaustive()
    }
}

/// Runs `plan` in the image `tree`; gives the command's exit code, 128 and a signal's number when that
/// ended it. This process may have no other thread.
pub fn run(
    plan: &Plan,
    mut tree: RootTree,
    surroundings: Surroundings<'_>,
) -> Result<u8, RunError> {
    let targets = prepare::prepare(
        plan,
        &mut tree,
        surroundings.image_mountpoints,
        surroundings.warn,
    )?;
    let (near, far) = Channel::pair().map_err(RunError::io("make a socket"))?;
    let ignored = signals::ignored();
    let signals = signals::Signals::take(&ignored).map_err(RunError::io("take signals"))?;
    (surroundings.release_signals)();
    let ids = namespace::ids();
    wait_for_threads();
    let descendants = match plan.namespaces.contains(&Namespace::Pid) {
        true => None,
        false => Some(Descendants::adopt().map_err(RunError::io("take care of processes"))?),
    };
    let blocked = sys::Blocked::all();
    let container = match sys::clone_into(flags(&plan.namespaces)) {
        Ok(Some(container)) => container,
        Ok(None) => {
            // Its own copy would take the messages that a starter who is gone does not.
            drop(near);
            Inside {
                plan,
                targets: &targets,
                ids,
                program: &surroundings.program,
                ignored: &ignored,
                blocked: &blocked,
            }
            .run(far)
        }
        Err(error) => {
            let knobs = refusal::Knobs::read();
            return Err(RunError::Refused(
                knobs.explain(&error, &surroundings.program),
            ));
        }
    };
    blocked.release();
    drop(far);
    let relay: Arc<Mutex<Option<Relay>>> = Arc::default();
    let resize = {
        let relay = Arc::clone(&relay);
        move || {
            if let Some(relay) = &*relay.lock() {
                relay.resize();
            }
        }
    };
    signals
        .forward(container, plan.pty, resize)
        .map_err(RunError::io("start a thread"))?;
    let mut failure = None;
    let mut tree = Some(tree);
    while let Some(message) = near
        .receive()
        .map_err(RunError::io("hear of the container"))?
    {
        match message {
            Message::Device(device) => {
                if let Some(tree) = tree.take() {
                    serve(tree, device, servers()).map_err(RunError::io("serve the image"))?;
                }
            }
            Message::Terminal(master) => {
                let started = Relay::start(master).map_err(RunError::io("use the terminal"))?;
                *relay.lock() = Some(started);
            }
            Message::Warning(text) => (surroundings.warn)(text),
            Message::Failed(code, text) => failure = Some((code, text)),
        }
    }
    let status = loop {
        match rustix::process::waitpid(Some(container), WaitOptions::empty()) {
            Ok(Some((_, status))) => break status,
            Ok(None) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(RunError::io("wait for the container")(error)),
        }
    };
    if let Some(descendants) = descendants {
        descendants
            .end()
            .map_err(RunError::io("end what the command left running"))?;
    }
    drop(relay.lock().take());
    match failure {
        Some((code, text)) => Err(RunError::Stopped { code, text }),
        None => Ok(inside::exit_code(status.as_raw() as c_int)),
    }
}

fn servers() -> usize {
    std::thread::available_parallelism().map_or(2, |cores| cores.get().clamp(2, SERVERS))
}

/// The kernel's flags for `namespaces` and for those every container has.
fn flags(namespaces: &[Namespace]) -> c_int {
    let mut flags = libc::CLONE_NEWUSER | libc::CLONE_NEWNS;
    for namespace in namespaces {
        flags |= match namespace {
            Namespace::Uts => libc::CLONE_NEWUTS,
            Namespace::Pid => libc::CLONE_NEWPID,
            Namespace::Ipc => libc::CLONE_NEWIPC,
            Namespace::Network => libc::CLONE_NEWNET,
            Namespace::Mount | Namespace::User => 0,
        };
    }
    flags
}

/// Waits for the end of the threads that prepared the image's files.
fn wait_for_threads() {
    let until = Instant::now() + PATIENCE;
    let count = || std::fs::read_dir(Path::new("/proc/self/task")).map_or(1, Iterator::count);
    while count() > 1 && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(1));
    }
}
