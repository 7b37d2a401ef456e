//! `pcocc-guest`: the first and, besides docker, only long-lived program inside a docker VM.
//!
//! Data path: the kernel starts it as `/init` of the initramfs → [`init`] loads modules and mounts the root,
//! a writable overlay in memory over the read-only disk → [`agent`] talks to the host over the virtio-serial
//! port, starts containerd and dockerd, and opens the TLS endpoint once the guest is a job's.
#![cfg_attr(not(test), deny(clippy::expect_used, clippy::unwrap_used))]

mod adopt;
mod agent;
mod content;
mod control;
mod daemons;
mod endpoint;
mod engine_id;
mod init;
mod network;
mod reaper;
mod shell;

use std::process::ExitCode;

fn main() -> ExitCode {
    if std::process::id() != 1 {
        // Built into guest images only; `pcocc docker guest build` asks it for this line.
        println!(
            "pcocc-guest {} protocol {}",
            env!("CARGO_PKG_VERSION"),
            pcocc_guest::protocol::VERSION
        );
        return ExitCode::from(2);
    }
    if let Err(error) = init::run().and_then(|()| agent::run()) {
        say(&format!("cannot go on: {error}"));
    }
    // An init that ends makes the kernel panic, which would hide the reason given above.
    init::power_off();
    ExitCode::FAILURE
}

/// Writes a line to the console.
fn say(text: &str) {
    eprintln!("pcocc-guest: {text}");
}

/// Why the guest cannot do something, in words for the host's user.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Failure(String);

impl Failure {
    /// Makes the failure of `action` out of its cause.
    fn of<E: std::fmt::Display>(action: impl std::fmt::Display) -> impl FnOnce(E) -> Self {
        move |error| Self(format!("failed to {action}: {error}"))
    }
}
