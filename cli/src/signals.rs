//! Signals that end the command.
//!
//! The first SIGINT, SIGTERM or SIGHUP raises the [`Cancel`] flag: the verb rolls back and returns. A second
//! signal ends the process at once, except for the launcher of a VM.
//!
//! Slurm sends SIGUSR1 and SIGUSR2 to all processes of a job if `--signal` asks for it. Verbs with the lifetime
//! of a job note these signals and go on.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use pcocc_core::cancel::Cancel;
use signal_hook::SigId;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::{flag, low_level};

/// The received signals.
#[derive(Debug)]
pub(crate) struct Signals {
    received: Arc<AtomicUsize>,
    noted: Arc<AtomicUsize>,
    handlers: Mutex<Vec<SigId>>,
}

impl Signals {
    /// Installs the handlers, except for signals that the parent wants ignored (`nohup`). A second signal does
    /// not end a `patient` verb, which cleans up after others. A warning does not end a verb that `lasts` as
    /// long as a job.
    pub(crate) fn install(cancel: &Cancel, patient: bool, lasts: bool) -> io::Result<Self> {
        let received = Arc::new(AtomicUsize::new(0));
        let noted = Arc::new(AtomicUsize::new(0));
        let ignored = pcocc_run::sandbox::ignored_signals();
        let mut handlers = Vec::new();
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            if ignored.contains(&signal) {
                continue;
            }
            if !patient {
                // The order matters: the shutdown reads the flag before this signal raises it.
                handlers.push(flag::register_conditional_shutdown(
                    signal,
                    128 + signal,
                    cancel.flag(),
                )?);
            }
            let number = Arc::clone(&received);
            handlers.push(flag::register_usize(signal, number, signal as usize)?);
            handlers.push(flag::register(signal, cancel.flag())?);
        }
        if lasts {
            for signal in [SIGUSR1, SIGUSR2] {
                let number = Arc::clone(&noted);
                handlers.push(flag::register_usize(signal, number, signal as usize)?);
            }
        }
        Ok(Self {
            received,
            noted,
            handlers: Mutex::new(handlers),
        })
    }

    /// Removes the handlers: from here on the signals are for others.
    pub(crate) fn release(&self) {
        let mut handlers = self.handlers.lock();
        for handler in handlers.drain(..) {
            low_level::unregister(handler);
        }
    }

    /// The name of a warning since the last call.
    pub(crate) fn warning(&self) -> Option<&'static str> {
        match self.noted.swap(0, Ordering::AcqRel) {
            0 => None,
            signal if signal == SIGUSR1 as usize => Some("SIGUSR1"),
            _ => Some("SIGUSR2"),
        }
    }

    /// The signal that asked to stop.
    pub(crate) fn received(&self) -> Option<u8> {
        match self.received.load(Ordering::Acquire) {
            0 => None,
            signal => u8::try_from(signal).ok(),
        }
    }
}
