//! The user's private folder on a node-local disk: `pcocc-UID/` in TMPDIR, else in `/var/tmp`.
//!
//! Everybody can make names in there: what has ours must really be ours.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

/// Gives the private folder below `temporary`, made when it is missing.
pub(crate) fn open(temporary: &Path) -> io::Result<PathBuf> {
    let user = rustix::process::geteuid().as_raw();
    let private = temporary.join(format!("pcocc-{user}"));
    match fs::DirBuilder::new().mode(0o700).create(&private) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        result => result?,
    }
    let metadata = fs::symlink_metadata(&private)?;
    if !metadata.is_dir() || metadata.uid() != user || metadata.mode() & 0o077 != 0 {
        let why = format!("{} is not a private folder of yours", private.display());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    }
    Ok(private)
}

/// Removes folders in `private` that are named `<prefix><pid>-…`, or `<prefix><pid>.<start time>-…` where they may be
/// older than the machine's boot, and whose process is gone. Best effort: it only frees space.
pub(crate) fn sweep(private: &Path, prefix: &str) {
    let Ok(entries) = fs::read_dir(private) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let process = name
            .to_str()
            .and_then(|name| name.strip_prefix(prefix)?.split('-').next());
        if process.and_then(is_gone) == Some(true)
            && let Err(error) = fs::remove_dir_all(entry.path())
        {
            tracing::debug!(%error, "an old folder stays");
        }
    }
}

/// Whether the process that `<pid>` or `<pid>.<start time>` names is gone; one that nobody has waited for yet is, too.
fn is_gone(process: &str) -> Option<bool> {
    let (pid, started) = match process.split_once('.') {
        Some((pid, started)) => (pid, Some(started.parse::<u64>().ok()?)),
        None => (process, None),
    };
    let running = pcocc_core::process::start_time(pid.parse().ok()?);
    Some(running.is_none() || started.is_some_and(|started| running != Some(started)))
}
