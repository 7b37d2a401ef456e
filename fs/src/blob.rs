//! A layer's blob in a store, as an open file.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use pcocc_layers::Digest;

/// A layer's blob in a store.
#[derive(Debug)]
pub struct BlobFile {
    /// The open file.
    pub file: File,
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
}

/// Fills `buffer` from `offset` of a file; short only at its end.
pub fn read_full_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset + done as u64) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}
