//! The folders of a VM on its node.
//!
//! ```text
//! SCRATCH/pcocc-UID/vm-PID.START-JOB/   its disk, while it starts; PID and START are the keeper's
//! RUNTIME/vm-PID.START-JOB/             its sockets, whose names must be short
//! SCRATCH/pcocc-UID/guest/              snapshots, kept for later VMs
//! ```
//!
//! START is the keeper's start in ticks since boot: after a reboot another process may have the same PID.
//!
//! SCRATCH is `docker_scratch` of batch.yaml, else TMPDIR, else `/var/tmp`. RUNTIME is `pcocc` in XDG_RUNTIME_DIR when that
//! is a private folder of the user, else `/tmp/pcocc-UID`. Where somebody else has made `pcocc-UID`, both are
//! `pcocc-UID.RANDOM`; the job's record has the name.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use pcocc_core::beneath::OpenFolder;
use pcocc_core::durable;
use pcocc_vm::job::JobId;

use super::node::Node;
use crate::private_folder;

/// Prefix of a VM's folders, in front of the keeper's number.
const PREFIX: &str = "vm-";
/// Parent of the folders with sockets.
const SHORT: &str = "/tmp";
/// Longest path of that folder, in bytes: the address of a socket in it has 108 at most (unix(7)).
const LONGEST: usize = 40;

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
    pub(super) fn new(node: &Node, keeper: u32, id: JobId) -> io::Result<Self> {
        let private = private_folder::open(&node.scratch)?;
        let runtime = match usable_runtime(node.runtime.as_deref()) {
            Some(runtime) => runtime,
            None => private_folder::open(Path::new(SHORT))?,
        };
        let started = pcocc_core::process::start_time(keeper).unwrap_or(0);
        let name = format!("{PREFIX}{keeper}.{started}-{id}");
        Ok(Self {
            scratch: private.join(&name),
            sockets: runtime.join(&name),
            cache: private.join("guest"),
        })
    }

    /// Makes the VM's folders, and removes those of dead keepers.
    pub(super) fn create(&self) -> io::Result<()> {
        for folder in [&self.scratch, &self.sockets] {
            if let Some(private) = folder.parent() {
                private_folder::sweep(private, PREFIX);
            }
            durable::create_folders(folder, 0o700)?;
        }
        Ok(())
    }

    /// Removes the VM's folders.
    pub(super) fn remove(&self) -> io::Result<()> {
        for folder in [&self.scratch, &self.sockets] {
            let private = folder.parent().unwrap_or(folder);
            match OpenFolder::open(private) {
                Ok(private) => private.remove_all(folder.file_name().unwrap_or_default())?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// The folder `pcocc` in the user's runtime folder, made when it is missing; `None` when there is none that only the user can
/// enter, or its path is too long.
fn usable_runtime(runtime: Option<&Path>) -> Option<PathBuf> {
    let runtime = runtime.filter(|runtime| runtime.is_absolute())?;
    let folder = runtime.join("pcocc");
    let is_private = |path: &Path| {
        fs::symlink_metadata(path).is_ok_and(|found| private_folder::is_private(&found))
    };
    if folder.as_os_str().len() > LONGEST || !is_private(runtime) {
        return None;
    }
    durable::create_folders(&folder, 0o700).ok()?;
    is_private(&folder).then_some(folder)
}

#[cfg(test)]
mod tests {
    use super::*;
    use pcocc_core::batch::BatchConfig;
    use std::os::unix::fs::PermissionsExt as _;

    fn node(scratch: &Path, runtime: Option<&Path>) -> Node {
        Node {
            name: "node".into(),
            scratch: scratch.to_owned(),
            runtime: runtime.map(Path::to_owned),
            batch: BatchConfig::default(),
        }
    }

    #[test]
    fn sockets_are_in_the_runtime_folder_when_that_is_private() {
        let scratch = tempfile::tempdir().unwrap();
        let runtime = tempfile::Builder::new()
            .prefix("r")
            .permissions(fs::Permissions::from_mode(0o700))
            .tempdir_in("/tmp")
            .unwrap();
        let sockets = |runtime: Option<&Path>| {
            let node = node(scratch.path(), runtime);
            let folders = NodeFolders::new(&node, 7, JobId::new(7).unwrap()).unwrap();
            folders.sockets.parent().unwrap().to_owned()
        };
        let elsewhere = sockets(None);
        assert_eq!(sockets(Some(runtime.path())), runtime.path().join("pcocc"));
        let set_mode = |mode| {
            fs::set_permissions(runtime.path(), fs::Permissions::from_mode(mode)).unwrap();
        };
        set_mode(0o755);
        assert_eq!(sockets(Some(runtime.path())), elsewhere);
        set_mode(0o700);
        let link = scratch.path().join("link");
        std::os::unix::fs::symlink(runtime.path(), &link).unwrap();
        let long = runtime.path().join("x".repeat(40));
        durable::create_folders(&long, 0o700).unwrap();
        for unusable in [&*link, &*long, Path::new("relative"), Path::new("/nowhere")] {
            assert_eq!(sockets(Some(unusable)), elsewhere, "{}", unusable.display());
        }
    }

    #[test]
    fn a_dead_keepers_folders_go_with_the_next_start() {
        let scratch = tempfile::tempdir().unwrap();
        let id = JobId::new(7).unwrap();
        let node = node(scratch.path(), None);
        let dead = NodeFolders::new(&node, u32::MAX, id).unwrap();
        dead.create().unwrap();
        fs::write(dead.scratch.join("disk"), "").unwrap();
        // The folder is from before the last boot, of a process that had our number.
        let old = format!("{PREFIX}{}.1-7", std::process::id());
        let old = dead.scratch.with_file_name(old);
        fs::create_dir(&old).unwrap();
        let ours = NodeFolders::new(&node, std::process::id(), id).unwrap();
        ours.create().unwrap();
        assert!(!dead.scratch.exists() && !dead.sockets.exists() && !old.exists());
        assert!(ours.scratch.exists() && ours.sockets.exists());
        assert!(ours.sockets.as_os_str().len() < 60);
        ours.remove().unwrap();
        ours.remove().unwrap();
        assert!(!ours.scratch.exists() && !ours.sockets.exists());
    }
}
