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

use std::io;
use std::path::{Path, PathBuf};

use crate::private_folder;

/// Prefix of a staging folder, in front of the process number.
const STAGING: &str = "staging-";

/// The folders of one mount.
#[derive(Debug)]
pub(super) struct WorkFolders {
    staging: tempfile::TempDir,
    spool: PathBuf,
}

impl WorkFolders {
    /// Makes the folders below `temporary`.
    pub(super) fn create(temporary: &Path) -> io::Result<Self> {
        let private = private_folder::open(temporary)?;
        private_folder::sweep(&private, STAGING);
        let staging = tempfile::Builder::new()
            .prefix(&format!("{STAGING}{}-", std::process::id()))
            .tempdir_in(&private)?;
        Ok(Self {
            staging,
            spool: private.join("spool"),
        })
    }

    /// The folder for images that are being copied in.
    pub(super) fn staging(&self) -> &Path {
        self.staging.path()
    }

    /// The folder for images exported from the daemon, made when it is first used.
    pub(super) fn spool(&self) -> &Path {
        &self.spool
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

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
