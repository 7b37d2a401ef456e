//! Signals that end the command.
//!
//! The first SIGINT, SIGTERM or SIGHUP raises the [`Cancel`] flag: the verb rolls back and returns.
//! A second one ends the process at once.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use pcocc_core::cancel::Cancel;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

/// The signals that were received.
#[derive(Debug)]
pub(crate) struct Signals(Arc<AtomicUsize>);

impl Signals {
    /// Installs the handlers.
    pub(crate) fn install(cancel: &Cancel) -> io::Result<Self> {
        let received = Arc::new(AtomicUsize::new(0));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            // Order matters: the shutdown looks at the flag before this signal raises it.
            flag::register_conditional_shutdown(signal, 128 + signal, cancel.flag())?;
            flag::register_usize(signal, Arc::clone(&received), signal as usize)?;
            flag::register(signal, cancel.flag())?;
        }
        Ok(Self(received))
    }

    /// The signal that asked to stop, if any did.
    pub(crate) fn received(&self) -> Option<u8> {
        match self.0.load(Ordering::Acquire) {
            0 => None,
            signal => u8::try_from(signal).ok(),
        }
    }
}
