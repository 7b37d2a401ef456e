//! Forwards the signals of this process to the container.

use std::ffi::c_int;
use std::io;

use rustix::process::{Pid, Signal};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH};
use signal_hook::iterator::SignalsInfo;
use signal_hook::iterator::exfiltrator::WithOrigin;
use signal_hook::low_level::siginfo::Cause;

/// The forwarded signals. The others have their usual effect on this process.
const FORWARDED: [c_int; 6] = [SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2];

/// Receives signals from its creation on.
#[derive(Debug)]
pub(super) struct Signals(SignalsInfo<WithOrigin>);

impl Signals {
    /// Registers the signals, except for those in `ignored`.
    pub(super) fn take(ignored: &[c_int]) -> io::Result<Self> {
        let wanted = FORWARDED
            .into_iter()
            .filter(|signal| !ignored.contains(signal));
        SignalsInfo::new(wanted.chain([SIGWINCH])).map(Self)
    }

    /// Forwards signals to `container` for as long as this process lives. A container with its `own_terminal` gets no
    /// signals of keys typed into ours. `resize` is called when our terminal changes its size.
    pub(super) fn forward(
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
                    // A terminal sends its signals to the whole foreground group, and so to the container.
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

/// The signals that this process was started to ignore.
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
