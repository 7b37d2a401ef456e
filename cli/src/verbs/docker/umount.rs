//! `pcocc docker umount`: ends a mount.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use pcocc_core::named;
use serde::Deserialize;

use crate::errors::Outcome;
use crate::invocation::{Invocation, Run};
use crate::messages::warn;

/// How long the mount's process may take to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// Unmount what `pcocc docker mount` mounted
///
/// Comes back when the mount is gone and its process has ended. Programs that still have files open in
/// there keep them a few seconds at most.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  pcocc docker umount ~/img")]
pub(crate) struct Args {
    /// The mount point
    #[arg(value_name = "MOUNTPOINT")]
    mount_point: PathBuf,
}

impl Run for Args {
    fn action(&self) -> String {
        format!("unmount {}", self.mount_point.display())
    }

    fn run(self, invocation: &Invocation) -> Outcome {
        let mount_point = std::path::absolute(&self.mount_point)?;
        let server = server(&mount_point);
        pcocc_fs::unmount(&mount_point)?;
        let Some(server) = server else {
            return Ok(());
        };
        let deadline = Instant::now() + PATIENCE;
        while Path::new(&format!("/proc/{server}")).exists() && !invocation.cancel.is_cancelled() {
            if Instant::now() > deadline {
                warn(&format!(
                    "{} is gone, but process {server} serves what programs still have open there",
                    mount_point.display()
                ));
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

/// Most bytes of the mount's status.
const MAX_STATUS: u64 = 16 << 20;

/// The process behind the mount, if it answers.
fn server(mount_point: &Path) -> Option<u32> {
    #[derive(Deserialize)]
    struct Status {
        pid: u32,
    }
    // A folder of somebody else is not asked.
    let is_ours = pcocc_fs::mount_points()
        .ok()?
        .contains(&mount_point.to_owned());
    let status = mount_point.join(".pcocc/status.json");
    let text = is_ours
        .then(|| named::read(&status, MAX_STATUS).ok())
        .flatten()?;
    Some(serde_json::from_slice::<Status>(&text).ok()?.pid)
}
