//! Docker VMs on QEMU, as the invoking user.
//!
//! Data path of a start: which accelerator works ([`accel`]) → is there a snapshot of such a guest ([`snapshot`])? →
//! if not, one is made: the guest boots with its memory in a file, starts dockerd, is stopped and saved →
//! [`launch`] runs QEMU in a namespace of its own ([`network`]) with the saved memory mapped copy-on-write → the
//! agent ([`channel`]) is told whose the guest is now → docker answers over TLS. Without a snapshot the same guest boots
//! with its memory in the process. What goes wrong with a snapshot is told, and the guest boots without.

mod accel;
mod arguments;
mod channel;
mod launch;
mod network;
mod process;
mod qmp;
mod running;
mod snapshot;
mod start;

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
