//! The folders of a VM on its node.
//!
//! ```text
//! SCRATCH/pcocc-UID/vm-PID.START-JOB/   its disk, while it starts; PID and START are the keeper's
//! /tmp/pcocc-UID/vm-PID.START-JOB/      its sockets, whose names must be short
//! SCRATCH/pcocc-UID/guest/              snapshots, kept for later VMs
//! ```
//!
//! START is the keeper's start in ticks since boot: after a reboot another process may have the same PID.
//!
//! SCRATCH is `docker_scratch` of batch.yaml, else TMPDIR, else `/var/tmp`.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use pcocc_vm::job::JobId;

use crate::private_folder;

/// Prefix of a VM's folders, in front of the keeper's number.
const PREFIX: &str = "vm-";
/// Parent of the folders with sockets.
const SHORT: &str = "/tmp";

/// The folders of one VM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NodeFolders {
    /// The folder for the VM's disk.
    pub(super) scratch: PathBuf,
    /// The folder for the VM's sockets.
    pub(super) sockets: PathBuf,
    /// The folder for snapshots, which are kept.
    pub(super) cache: PathBuf,
}

impl NodeFolders {
    /// Names the folders, below `scratch`, of the job `id` and the keeper `keeper`.
    pub(super) fn new(scratch: &Path, keeper: u32, id: JobId) -> io::Result<Self> {
        let private = private_folder::open(scratch)?;
        let started = pcocc_core::process::start_time(keeper).unwrap_or(0);
        let name = format!("{PREFIX}{keeper}.{started}-{id}");
        Ok(Self {
            scratch: private.join(&name),
            sockets: private_folder::open(Path::new(SHORT))?.join(&name),
            cache: private.join("guest"),
        })
    }

    /// Makes the VM's folders, and removes those of dead keepers.
    pub(super) fn create(&self) -> io::Result<()> {
        for folder in [&self.scratch, &self.sockets] {
            if let Some(private) = folder.parent() {
                private_folder::sweep(private, PREFIX);
            }
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(folder)?;
        }
        Ok(())
    }

    /// Removes the VM's folders.
    pub(super) fn remove(&self) -> io::Result<()> {
        for folder in [&self.scratch, &self.sockets] {
            match fs::remove_dir_all(folder) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_keepers_folders_go_with_the_next_start() {
        let scratch = tempfile::tempdir().unwrap();
        let id = JobId::new(7).unwrap();
        let dead = NodeFolders::new(scratch.path(), u32::MAX, id).unwrap();
        dead.create().unwrap();
        fs::write(dead.scratch.join("disk"), "").unwrap();
        // The folder is from before the last boot, of a process that had our number.
        let old = format!("{PREFIX}{}.1-7", std::process::id());
        let old = dead.scratch.with_file_name(old);
        fs::create_dir(&old).unwrap();
        let ours = NodeFolders::new(scratch.path(), std::process::id(), id).unwrap();
        ours.create().unwrap();
        assert!(!dead.scratch.exists() && !dead.sockets.exists() && !old.exists());
        assert!(ours.scratch.exists() && ours.sockets.exists());
        assert!(ours.sockets.as_os_str().len() < 60);
        ours.remove().unwrap();
        ours.remove().unwrap();
        assert!(!ours.scratch.exists() && !ours.sockets.exists());
    }
}
