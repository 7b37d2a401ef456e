//! The user's private folder on a node-local disk: `pcocc-UID/` in TMPDIR, else in `/var/tmp`.
//!
//! Everybody can make names in there: what has ours must really be ours. Where somebody else has made `pcocc-UID` before, it
//! is `pcocc-UID.RANDOM`, so that nobody can keep others from their VMs.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use pcocc_core::beneath::OpenFolder;

/// Gives the private folder below `temporary`, made when it is missing.
pub(crate) fn open(temporary: &Path) -> io::Result<PathBuf> {
    let user = rustix::process::geteuid().as_raw();
    let name = format!("pcocc-{user}");
    let private = temporary.join(&name);
    match fs::DirBuilder::new().mode(0o700).create(&private) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        result => result?,
    }
    let metadata = fs::symlink_metadata(&private)?;
    if metadata.uid() != user {
        return another(temporary, &format!("{name}."));
    }
    if !is_private(&metadata) {
        let why = format!("{} is not a private folder of yours", private.display());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    }
    Ok(private)
}

/// A private folder whose name begins with `prefix`: the user's own of before, or a new one.
fn another(temporary: &Path, prefix: &str) -> io::Result<PathBuf> {
    let entries = fs::read_dir(temporary).into_iter().flatten().flatten();
    let mut own: Vec<PathBuf> = entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .filter(|entry| entry.metadata().is_ok_and(|metadata| is_private(&metadata)))
        .map(|entry| entry.path())
        .collect();
    own.sort();
    if let Some(own) = own.into_iter().next() {
        return Ok(own);
    }
    let made = tempfile::Builder::new()
        .prefix(prefix)
        .permissions(fs::Permissions::from_mode(0o700))
        .tempdir_in(temporary)?;
    Ok(made.keep())
}

/// Whether it is a folder, itself and no link, that only the user can enter.
pub(crate) fn is_private(metadata: &fs::Metadata) -> bool {
    let user = rustix::process::geteuid().as_raw();
    metadata.is_dir() && metadata.uid() == user && metadata.mode() & 0o077 == 0
}

/// Removes folders in `private` that are named `<prefix><pid>-…`, or `<prefix><pid>.<start time>-…` where they may be
/// older than the machine's boot, and whose process is gone. Best effort: it only frees space.
pub(crate) fn sweep(private: &Path, prefix: &str) {
    let Ok(folder) = OpenFolder::open(private) else {
        return;
    };
    for name in folder.names().unwrap_or_default() {
        let process = name
            .to_str()
            .and_then(|name| name.strip_prefix(prefix)?.split('-').next());
        if process.and_then(is_gone) == Some(true)
            && let Err(error) = folder.remove_all(&name)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_somebody_else_took_is_passed_by_as_root() {
        let temporary = tempfile::tempdir().unwrap();
        let user = rustix::process::geteuid().as_raw();
        let taken = temporary.path().join(format!("pcocc-{user}"));
        fs::create_dir(&taken).unwrap();
        std::os::unix::fs::chown(&taken, Some(4242), None).unwrap();
        // Somebody else's, although it has the right form.
        let lure = temporary.path().join(format!("pcocc-{user}.aaa"));
        fs::create_dir(&lure).unwrap();
        fs::set_permissions(&lure, fs::Permissions::from_mode(0o700)).unwrap();
        std::os::unix::fs::chown(&lure, Some(4242), None).unwrap();
        let private = open(temporary.path()).unwrap();
        assert!(private != taken && private != lure);
        assert!(is_private(&fs::symlink_metadata(&private).unwrap()));
        // The next process finds the same.
        assert_eq!(open(temporary.path()).unwrap(), private);
        fs::remove_dir(&taken).unwrap();
        std::os::unix::fs::symlink("/etc", &taken).unwrap();
        std::os::unix::fs::lchown(&taken, Some(4242), None).unwrap();
        assert_eq!(open(temporary.path()).unwrap(), private);
        fs::remove_file(&taken).unwrap();
        assert_eq!(open(temporary.path()).unwrap(), taken);
    }
}
