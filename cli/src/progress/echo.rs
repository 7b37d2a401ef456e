//! Keeps the terminal from echoing `^C` into the bars.
//!
//! Bars fill the width of the terminal: two more characters wrap, and the bars could not be removed cleanly.

use rustix::stdio::stderr;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetpgrp, tcsetattr};

/// Control characters are not echoed until this is dropped.
#[derive(Debug)]
pub(super) struct QuietKeys(Option<Termios>);

impl QuietKeys {
    /// Changes the terminal on stderr, if this process may change it.
    pub(super) fn new() -> Self {
        let Some(before) = in_foreground().then(|| tcgetattr(stderr()).ok()).flatten() else {
            return Self(None);
        };
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHOCTL);
        match tcsetattr(stderr(), OptionalActions::Now, &quiet) {
            Ok(()) => Self(Some(before)),
            // Only the appearance suffers.
            Err(_) => Self(None),
        }
    }
}

impl Drop for QuietKeys {
    fn drop(&mut self) {
        if let Some(before) = self.0.take().filter(|_| in_foreground()) {
            // Only the appearance suffers.
            let _ = tcsetattr(stderr(), OptionalActions::Now, &before);
        }
    }
}

/// A background process that changed its terminal would be stopped.
fn in_foreground() -> bool {
    tcgetpgrp(stderr()).is_ok_and(|group| group == rustix::process::getpgrp())
}
