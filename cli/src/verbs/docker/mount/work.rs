//! The folders a mount works in: images being copied in, and images exported from the daemon.
//!
//! Disk layout, in TMPDIR, else in `/var/tmp`: on a local disk, unlike many home directories, and unlike
//! many `/tmp` not in memory.
//!
//! ```text
//! pcocc-UID/                    private to the user
//! pcocc-UID/spool/              exported images, kept for the next mount, bounded
//! pcocc-UID/staging-PID-XXXXXX/ goes with its mount; what a killed one left, the next removes
//! ```

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

/// What the name of a staging folder starts with, before the number of its process.
const STAGING: &str = "staging-";

/// The folders of one mount.
#[derive(Debug)]
pub(super) struct WorkFolders {
    staging: tempfile::TempDir,
    spool: PathBuf,
}

impl WorkFolders {
    /// Makes them below `temporary`.
    pub(super) fn create(temporary: &Path) -> io::Result<Self> {
        let user = rustix::process::geteuid().as_raw();
        let private = temporary.join(format!("pcocc-{user}"));
        match fs::DirBuilder::new().mode(0o700).create(&private) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            result => result?,
        }
        // Everybody can make names in there: whatever has ours must really be ours.
        let metadata = fs::symlink_metadata(&private)?;
        if !metadata.is_dir() || metadata.uid() != user || metadata.mode() & 0o077 != 0 {
            let why = format!("{} is not a private folder of yours", private.display());
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
        }
        sweep(&private);
        let staging = tempfile::Builder::new()
            .prefix(&format!("{STAGING}{}-", std::process::id()))
            .tempdir_in(&private)?;
        Ok(Self {
            staging,
            spool: private.join("spool"),
        })
    }

    /// For images being copied in.
    pub(super) fn staging(&self) -> &Path {
        self.staging.path()
    }

    /// For images exported from the daemon; made when it is first used.
    pub(super) fn spool(&self) -> &Path {
        &self.spool
    }
}

/// Removes staging folders whose process is gone. Best effort: it only frees space.
fn sweep(private: &Path) {
    let Ok(entries) = fs::read_dir(private) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let process = name
            .to_str()
            .and_then(|name| name.strip_prefix(STAGING)?.split('-').next())
            .and_then(|process| process.parse::<u32>().ok());
        if process.is_some_and(|process| !Path::new(&format!("/proc/{process}")).exists())
            && let Err(error) = fs::remove_dir_all(entry.path())
        {
            tracing::debug!(%error, "an old staging folder stays");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_dead_processes_go_and_others_stay() {
        let temporary = tempfile::tempdir().unwrap();
        let first = WorkFolders::create(temporary.path()).unwrap();
        let private = first.staging().parent().unwrap().to_owned();
        // No process has the largest number.
        let dead = private.join(format!("{STAGING}{}-x", u32::MAX));
        fs::create_dir_all(dead.join("below")).unwrap();
        let second = WorkFolders::create(temporary.path()).unwrap();
        assert!(!dead.exists());
        assert!(first.staging().exists() && second.staging().exists());
        let staging = first.staging().to_owned();
        drop(first);
        assert!(!staging.exists());
    }

    #[test]
    fn a_folder_others_can_read_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let temporary = tempfile::tempdir().unwrap();
        let user = rustix::process::geteuid().as_raw();
        let private = temporary.path().join(format!("pcocc-{user}"));
        fs::create_dir(&private).unwrap();
        fs::set_permissions(&private, fs::Permissions::from_mode(0o755)).unwrap();
        let error = WorkFolders::create(temporary.path()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    }
}
