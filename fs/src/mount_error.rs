//! Why a tree could not be mounted or unmounted.

use std::io;
use std::path::{Path, PathBuf};

use pcocc_core::FileError;

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
    /// The machine lacks something.
    #[error("{what}")]
    Missing {
        /// What, and what to do.
        what: String,
    },
    /// A system call failed.
    #[error(transparent)]
    File(#[from] FileError),
}

impl MountError {
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        FileError::of(action, path)
    }

    pub(crate) fn point(path: &Path, why: impl Into<String>) -> Self {
        Self::MountPoint {
            path: path.to_owned(),
            why: why.into(),
        }
    }

    /// Without `fusermount3` an ordinary user can neither mount nor unmount.
    pub(crate) fn missing_helper() -> Self {
        Self::Missing {
            what:
                "fusermount3 was not found; ordinary users mount through it: install the package fuse3"
                    .into(),
        }
    }
}
