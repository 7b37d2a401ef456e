//! Keeps the terminal from echoing `^C` into the bars.
//!
//! Bars fill the width of the terminal: two more characters wrap, and the bars could not be taken
//! away cleanly any more.

use rustix::stdio::stderr;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetpgrp, tcsetattr};

/// Control characters are not echoed while this lives.
#[derive(Debug)]
pub(super) struct QuietKeys(Option<Termios>);

impl QuietKeys {
    /// Changes the terminal on stderr, if it is ours to change.
    pub(super) fn new() -> Self {
        let Some(before) = in_foreground().then(|| tcgetattr(stderr()).ok()).flatten() else {
            return Self(None);
        };
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHOCTL);
        match tcsetattr(stderr(), OptionalActions::Now, &quiet) {
            Ok(()) => Self(Some(before)),
            // Only looks are at stake.
            Err(_) => Self(None),
        }
    }
}

impl Drop for QuietKeys {
    fn drop(&mut self) {
        if let Some(before) = self.0.take().filter(|_| in_foreground()) {
            // Only looks are at stake.
            let _ = tcsetattr(stderr(), OptionalActions::Now, &before);
        }
    }
}

/// A process in the background that changed its terminal would be stopped.
fn in_foreground() -> bool {
    tcgetpgrp(stderr()).is_ok_and(|group| group == rustix::process::getpgrp())
}
