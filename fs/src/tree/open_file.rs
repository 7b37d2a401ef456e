//! What an open file does; each kind of node has its own.

use std::fmt::Debug;
use std::sync::Arc;

use crate::blob::BlobFile;
use crate::errno::{Errno, Result};
use crate::tree::Tree;

/// How the kernel may cache an opened file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caching {
    /// Its content may have changed since it was last opened.
    Refresh,
    /// Its content never changes.
    Keep,
    /// Its size is only known once it is read.
    Direct,
}

/// An opened file, and how the kernel may cache it.
pub(super) type Opened = (Arc<dyn OpenFile>, Caching);

/// An open file. A method that a kind of file leaves out refuses what such a file cannot do.
pub(super) trait OpenFile: Debug + Send + Sync {
    /// Reads at `offset`; short only at the end.
    fn read(&self, tree: &Tree, offset: u64, buffer: &mut [u8]) -> Result<usize>;

    /// Whether reading first looks for the content in a store.
    fn read_may_wait(&self) -> bool {
        false
    }

    /// The whole blob that is read here, which a copy can refer to.
    fn blob(&self, _tree: &Tree) -> Result<Option<Arc<BlobFile>>> {
        Ok(None)
    }

    /// Writes through `handle`, the number of this open file.
    fn write(&self, _handle: u64, _offset: u64, _bytes: &[u8]) -> Result<()> {
        Err(Errno::BADF)
    }

    /// Whether writing first copies a referenced blob.
    fn write_may_wait(&self) -> bool {
        false
    }

    /// Copies at most `length` bytes from an open file and an offset in it to a handle and an offset. Returns how many.
    fn copy_from(
        &self,
        _tree: &Tree,
        _source: (&dyn OpenFile, u64),
        _to: (u64, u64),
        _length: u64,
    ) -> Result<u32> {
        Err(Errno::BADF)
    }

    /// A descriptor was closed, by `thread`.
    fn flush(&self, _tree: &Tree, _handle: u64, _thread: u32) -> Result<()> {
        Ok(())
    }

    /// Whether closing a descriptor may complete a copy.
    fn flush_may_wait(&self) -> bool {
        false
    }

    /// The last descriptor was closed. Never completes a copy: nobody would hear of its failure.
    fn release(&self, _handle: u64) {}
}
