//! The process that unmounts when the mount's own process was killed: this program once more, with a pipe as
//! its standard input. Its session is its own, so that the end of a terminal does not end it.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use pcocc_fs::guard::Guarded;

use super::background;
use crate::errors::{Outcome, While as _};

/// The command of the guard of the mount at `mount_point`. It logs to `log`, or to our stderr.
pub(super) fn command(mount_point: &Path, log: Option<&Path>) -> Option<Command> {
    // The very program of this process, even if it was replaced or removed meanwhile.
    let mut command = Command::new("/proc/self/exe");
    command
        .arg0("pcocc")
        .args(["docker", "mount", "--guard"])
        .arg(std::process::id().to_string())
        .arg("--")
        .arg(mount_point)
        // The guard keeps no folder busy.
        .current_dir("/")
        .stdout(Stdio::null());
    if let Some(log) = log {
        let file = log
            .parent()
            .map_or(Ok(()), std::fs::create_dir_all)
            .and_then(|()| {
                OpenOptions::new()
                    .append(true)
                    .create(true)
                    .mode(0o600)
                    .open(log)
            });
        match file {
            Ok(file) => command.stderr(file),
            Err(error) => {
                tracing::debug!(%error, "the guard has no log");
                command.stderr(Stdio::null())
            }
        };
    }
    Some(command)
}

/// Runs as the guard.
pub(super) fn run(mount_point: &Path, server: u32) -> Outcome {
    background::leave_session()?;
    let action = || format!("guard the mount at {}", mount_point.display());
    let outcome = pcocc_fs::guard::guard(mount_point, server, io::stdin().lock()).when(action)?;
    if outcome == Guarded::Unmounted {
        tracing::warn!(
            mountpoint = %mount_point.display(),
            "the process of the mount was killed: unmounted"
        );
    }
    Ok(())
}
