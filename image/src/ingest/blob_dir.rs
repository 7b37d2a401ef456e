//! Where received blobs are put.

use std::io;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::error::{Error, Result};
use crate::oci::Layer;
use pcocc_layers::{DiffId, Digest};

/// A folder of content-addressed blobs on a local or shared file system.
pub trait BlobDir: Send + Sync {
    /// Size of the blob in bytes; `None` when it is not there.
    ///
    /// Asked just before the blob is relied upon, so that an implementation with garbage collection
    /// marks it as used.
    fn size_of(&self, digest: Digest) -> Result<Option<u64>>;

    /// The file of a blob that is there.
    fn path_of(&self, digest: Digest) -> PathBuf;

    /// Creates an empty file on the same file system, gone when dropped.
    fn temp(&self) -> Result<NamedTempFile>;

    /// Flushes `temp` to disk and gives it its place. Its content was verified to be `digest`.
    /// A blob that is there already is as good.
    fn publish(&self, temp: NamedTempFile, digest: Digest, size: u64) -> Result<()>;

    /// The layer with this diff ID as the folder holds it, its blob present.
    ///
    /// Only what an image that was verified once says counts: nobody checks it again.
    fn known_layer(&self, diff_id: DiffId) -> Result<Option<Layer>>;

    /// Puts into words that writing `path` failed, for instance because of a quota.
    fn write_failed(&self, path: &Path, error: io::Error) -> Error {
        Error::io("write", path)(error)
    }
}
