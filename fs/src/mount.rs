//! Mounts the tree and takes it down again.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pcocc_core::cancel::Cancel;
use pcocc_image::store::Store;

/// What is mounted, and where.
pub struct MountOptions {
    /// The empty folder the tree appears in.
    pub mountpoint: PathBuf,
    /// The daemon whose images stand under `docker/`.
    pub docker: Option<Arc<dyn Store>>,
    /// The repositories under `repo/`, by name.
    pub repositories: Vec<(String, Arc<dyn Store>)>,
    /// Whether `rm -r` of an image folder removes the image.
    pub allow_delete: bool,
    /// An existing folder on a local disk for images that are being copied in.
    pub staging_dir: PathBuf,
}

impl std::fmt::Debug for MountOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MountOptions")
            .field("mountpoint", &self.mountpoint)
            .finish_non_exhaustive()
    }
}

/// Why the tree could not be mounted or unmounted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MountError {
    /// The mount point cannot be used.
    #[error("mount point {} {why}", path.display())]
    MountPoint {
        /// The folder.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        why: String,
    },
    /// A system call failed.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

/// A mounted tree; dropping it unmounts.
#[derive(Debug)]
pub struct Mounted(());

impl Mounted {
    /// Serves until someone unmounts the tree or `cancel` is raised, then takes the mount down.
    pub fn wait(self, cancel: &Cancel) -> Result<(), MountError> {
        let _ = cancel;
        Ok(())
    }
}

/// Mounts the tree. It answers from the moment this returns: tell whoever waits for it then.
pub fn mount(options: MountOptions) -> Result<Mounted, MountError> {
    Err(MountError::MountPoint {
        path: options.mountpoint,
        why: "cannot be mounted yet".into(),
    })
}

/// Unmounts the tree at `mountpoint`, a stale one too.
pub fn unmount(mountpoint: &Path) -> Result<(), MountError> {
    Err(MountError::MountPoint {
        path: mountpoint.to_owned(),
        why: "cannot be unmounted yet".into(),
    })
}
