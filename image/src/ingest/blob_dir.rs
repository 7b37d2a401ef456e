//! The folder that received blobs go to.

use std::fs::File;
use std::io;
use std::path::Path;

use pcocc_core::beneath::TempFile;

use crate::error::{Error, Result};
use crate::oci::Layer;
use pcocc_layers::{DiffId, Digest};

/// A folder of content-addressed blobs on a local or shared file system.
pub trait BlobDir: Send + Sync {
    /// Size of the blob in bytes; `None` when it is missing.
    ///
    /// Called just before the blob is relied on, so that an implementation with garbage collection marks the
    /// blob as used.
    fn size_of(&self, digest: Digest) -> Result<Option<u64>>;

    /// Opens a blob that is there, at its start.
    fn open(&self, digest: Digest) -> Result<File>;

    /// Creates an empty file on the same file system, gone when dropped.
    fn temp(&self) -> Result<TempFile>;

    /// Flushes `temp` to disk and gives it its place. Its content was verified to be `digest`.
    /// It takes the place of a blob that is there already, whose content nobody has looked at.
    fn publish(&self, temp: TempFile, digest: Digest, size: u64) -> Result<()>;

    /// The layer with this diff ID, if the folder has its blob.
    ///
    /// The answer must come from an image that was verified once: the caller does not check the layer again.
    fn known_layer(&self, diff_id: DiffId) -> Result<Option<Layer>>;

    /// The error for a failed write of `path`, for instance because of a quota.
    fn write_failed(&self, path: &Path, error: io::Error) -> Error {
        Error::io("write", path)(error)
    }
}
