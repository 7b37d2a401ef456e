//! Hands the signals that this process gets on to the container.

use std::ffi::c_int;
use std::io;

use rustix::process::{Pid, Signal};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH};
use signal_hook::iterator::SignalsInfo;
use signal_hook::iterator::exfiltrator::WithOrigin;
use signal_hook::low_level::siginfo::Cause;

/// Those that mean something to a command. The others have their usual effect on this process.
const HANDED_ON: [c_int; 6] = [SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2];

/// Signals, from the moment on that this is made.
#[derive(Debug)]
pub(super) struct Signals(SignalsInfo<WithOrigin>);

impl Signals {
    /// Takes the signals but for those in `ignored`, which this process was started not to hear.
    pub(super) fn take(ignored: &[c_int]) -> io::Result<Self> {
        let wanted = HANDED_ON
            .into_iter()
            .filter(|signal| !ignored.contains(signal));
        SignalsInfo::new(wanted.chain([SIGWINCH])).map(Self)
    }

    /// Hands signals on to `container`, for as long as this process lives. `own_terminal` says whether the
    /// container has one of its own, and so hears nothing of what is typed into ours; `resize` is called
    /// when that changes its size.
    pub(super) fn hand_on(
        mut self,
        container: Pid,
        own_terminal: bool,
        resize: impl Fn() + Send + 'static,
    ) -> io::Result<()> {
        std::thread::Builder::new()
            .name("pcocc-signals".into())
            .spawn(move || {
                for origin in self.0.forever() {
                    if origin.signal == SIGWINCH {
                        resize();
                        continue;
                    }
                    // What a terminal sends, it sends to all in the foreground, the container too.
                    if origin.cause == Cause::Kernel && !own_terminal {
                        continue;
                    }
                    if let Some(signal) = Signal::from_named_raw(origin.signal) {
                        // It may have ended just now.
                        let _ = rustix::process::kill_process(container, signal);
                    }
                }
            })
            .map(drop)
    }
}

/// The signals that this process ignores, as it was told by whoever started it.
pub fn ignored() -> Vec<c_int> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    parse_ignored(&status)
}

fn parse_ignored(status: &str) -> Vec<c_int> {
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0);
    (1..=64)
        // Rust programs ignore this one by themselves.
        .filter(|signal| *signal != libc::SIGPIPE && mask & (1 << (signal - 1)) != 0)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mask_is_read_from_its_lowest_bit() {
        let status = "Name:\tx\nSigIgn:\t0000000000001003\nSigCgt:\t0\n";
        assert_eq!(parse_ignored(status), [libc::SIGHUP, libc::SIGINT]);
        assert_eq!(parse_ignored(""), Vec::<c_int>::new());
    }
}
