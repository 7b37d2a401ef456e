//! Docker VMs on QEMU, as the invoking user.
//!
//! Data path of a start: which accelerator works ([`accel`]) → is there a snapshot of such a guest ([`snapshot`])? →
//! if not, one is made: the guest boots with its memory in a file, starts dockerd, is stopped and saved →
//! [`instance`] runs QEMU in a namespace of its own ([`namespace`], [`uplink`]) with the saved memory mapped copy-on-write →
//! the agent ([`channel`]) gets the job's identity ([`settings`]) → docker answers over TLS. Without a snapshot the same guest
//! boots with its memory in the process. A snapshot that does not work is reported, and the guest boots without it.

mod accel;
mod arguments;
pub(crate) mod channel;
mod checks;
mod console;
mod filter;
mod instance;
mod migration;
mod namespace;
mod process;
pub(crate) mod qmp;
mod running;
mod settings;
pub(crate) mod snapshot;
mod start;
pub(crate) mod uplink;
mod watch;
mod words;

use std::path::PathBuf;

pub use accel::Accelerator;

/// Starts docker VMs on QEMU.
#[derive(Clone, Debug)]
pub struct Qemu {
    /// The program, as a path or a name to be found in PATH.
    pub program: PathBuf,
    /// What executes the guest; found out when `None`.
    pub accelerator: Option<Accelerator>,
}

impl Default for Qemu {
    fn default() -> Self {
        Self {
            program: "qemu-system-x86_64".into(),
            accelerator: None,
        }
    }
}
