//! The folder where images wait that are being copied into the mounted tree.
//!
//! It lies in TMPDIR, else in `/var/tmp`: on a local disk, unlike many home directories, and unlike many
//! `/tmp` not in memory. It goes with the mount; what a killed one left behind, the next removes.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::environment::Environment;

/// What the name of every such folder starts with, before the number of its process.
const PREFIX: &str = "pcocc-mount-";

/// Makes the folder, private to the user.
pub(super) fn folder(environment: &Environment) -> io::Result<tempfile::TempDir> {
    sweep(&environment.temporary);
    tempfile::Builder::new()
        .prefix(&format!("{PREFIX}{}-", std::process::id()))
        .tempdir_in(&environment.temporary)
}

/// Removes folders of this user whose process is gone. Best effort: it only frees space.
fn sweep(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else {
        return;
    };
    let user = rustix::process::geteuid().as_raw();
    for entry in entries.flatten() {
        let name = entry.file_name();
        let process = name
            .to_str()
            .and_then(|name| name.strip_prefix(PREFIX)?.split('-').next());
        let Some(process) = process.and_then(|id| id.parse::<u32>().ok()) else {
            continue;
        };
        let owned = entry
            .metadata()
            .is_ok_and(|data| data.is_dir() && data.uid() == user);
        if owned && !Path::new(&format!("/proc/{process}")).exists() {
            if let Err(error) = fs::remove_dir_all(entry.path()) {
                tracing::debug!(%error, "an old staging folder stays");
            }
        }
    }
}
