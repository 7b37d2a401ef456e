//! The user's private folder on a node-local disk: `pcocc-UID/` in TMPDIR, else in `/var/tmp`.
//!
//! Everybody can make names in these folders, so the owner of our folder is checked.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

/// Opens the private folder below `temporary`, made if missing.
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

/// Removes folders in `private` named `<prefix><pid>-…` whose process is gone; `<prefix><pid>.<start time>-…`
/// if the folders may be older than the boot. Best effort: it only frees space.
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

/// Whether the process `<pid>` or `<pid>.<start time>` is gone; a zombie counts as gone.
fn is_gone(process: &str) -> Option<bool> {
    let (pid, started) = match process.split_once('.') {
        Some((pid, started)) => (pid, Some(started.parse::<u64>().ok()?)),
        None => (process, None),
    };
    let running = pcocc_core::process::start_time(pid.parse().ok()?);
    Some(running.is_none() || started.is_some_and(|started| running != Some(started)))
}
