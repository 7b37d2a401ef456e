//! A layer's blob in a store, as an open file.

use std::fs::File;
use std::path::PathBuf;

use pcocc_layers::Digest;

/// A layer's blob in a store.
#[derive(Debug)]
pub struct BlobFile {
    /// The open file.
    pub file: File,
    /// Its path in the store.
    pub path: PathBuf,
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
}
