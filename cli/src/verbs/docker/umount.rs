//! `pcocc docker umount`: ends a mount.

use std::path::PathBuf;

use crate::app::Invocation;
use crate::errors::{Outcome, While as _};

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
    /// Unmounts.
    pub(crate) fn run(self, _: &Invocation) -> Outcome {
        let action = || format!("unmount {}", self.mount_point.display());
        let mount_point = std::path::absolute(&self.mount_point).when(action)?;
        pcocc_fs::unmount(&mount_point).when(action)
    }
}
