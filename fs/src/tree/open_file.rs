//! Open files; each kind of node has its own.

use std::fmt::Debug;
use std::sync::Arc;

use crate::blob::BlobFile;
use crate::errno::{Errno, Result};
use crate::tree::Tree;

/// How the kernel may cache an opened file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caching {
    /// The content may have changed after the last opening.
    Refresh,
    /// The content never changes.
    Keep,
    /// The size is known only after reading.
    Direct,
}

/// An opened file, and how the kernel may cache it.
pub(super) type Opened = (Arc<dyn OpenFile>, Caching);

/// An open file. The defaults refuse.
pub(super) trait OpenFile: Debug + Send + Sync {
    /// Reads at `offset`; short only at the end.
    fn read(&self, tree: &Tree, offset: u64, buffer: &mut [u8]) -> Result<usize>;

    /// Whether a read may first find the content in a store.
    fn read_may_wait(&self) -> bool {
        false
    }

    /// The whole blob behind this file, for a copy by reference.
    fn blob(&self, _tree: &Tree) -> Result<Option<Arc<BlobFile>>> {
        Ok(None)
    }

    /// Writes through `handle`, the number of this open file.
    fn write(&self, _handle: u64, _offset: u64, _bytes: &[u8]) -> Result<()> {
        Err(Errno::BADF)
    }

    /// Whether a write may first copy a referenced blob.
    fn write_may_wait(&self) -> bool {
        false
    }

    /// Copies at most `length` bytes from an offset of an open file to an offset of this one; returns the
    /// number of bytes.
    fn copy_from(
        &self,
        _tree: &Tree,
        _source: (&dyn OpenFile, u64),
        _to: (u64, u64),
        _length: u64,
    ) -> Result<u32> {
        Err(Errno::BADF)
    }

    /// The process of `thread` has closed a descriptor.
    fn flush(&self, _tree: &Tree, _handle: u64, _thread: u32) -> Result<()> {
        Ok(())
    }

    /// Whether closing a descriptor may complete a copy.
    fn flush_may_wait(&self) -> bool {
        false
    }

    /// The last descriptor was closed. Never completes a copy: nobody would learn of a failure.
    fn release(&self, _handle: u64) {}
}
