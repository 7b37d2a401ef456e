//! `pcocc docker umount`: ends a mount.

use std::path::PathBuf;

use crate::app::Invocation;
use crate::errors::Outcome;

/// Unmount what `pcocc docker mount` mounted
///
/// Comes back when it is gone; fails while a program uses the folders.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  pcocc docker umount ~/img")]
pub(crate) struct Args {
    /// The mount point
    #[arg(value_name = "MOUNTPOINT")]
    mount_point: PathBuf,
}

impl Args {
    /// Runs the verb.
    pub(crate) fn run(self, invocation: &Invocation) -> Outcome {
        let _ = invocation;
        Err(crate::errors::Failure::message(
            "do this",
            "this build lacks it",
        ))
    }
}
