//! The present content of a staged file, for readers on any thread.

use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;

use crate::blob::{BlobFile, read_full_at};

#[derive(Clone, Debug)]
pub(super) enum FileOf {
    Local(Arc<File>),
    Blob(Arc<BlobFile>),
}

/// The first bytes of a local file or of a referenced blob.
#[derive(Clone, Debug)]
pub struct Source {
    pub(super) file: FileOf,
    /// Length in bytes.
    pub size: u64,
}

impl Source {
    pub(super) fn local(file: Arc<File>, size: u64) -> Self {
        let file = FileOf::Local(file);
        Self { file, size }
    }

    pub(super) fn first_of(blob: &Arc<BlobFile>, size: u64) -> Self {
        let file = FileOf::Blob(Arc::clone(blob));
        Self { file, size }
    }

    /// The referenced blob.
    pub(super) fn blob(&self) -> Option<&Arc<BlobFile>> {
        match &self.file {
            FileOf::Blob(blob) => Some(blob),
            FileOf::Local(_) => None,
        }
    }

    fn file(&self) -> &File {
        match &self.file {
            FileOf::Local(file) => file,
            FileOf::Blob(blob) => &blob.file,
        }
    }

    /// The file that is exactly this content: the store's own for a whole blob.
    pub fn whole_file(&self) -> Option<File> {
        match &self.file {
            FileOf::Blob(blob) if blob.size != self.size => None,
            _ => self.file().try_clone().ok(),
        }
    }

    /// Reads at `offset`; short only at the end.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let left = usize::try_from(self.size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let wanted = buffer.len().min(left);
        read_full_at(
            self.file(),
            buffer.get_mut(..wanted).unwrap_or_default(),
            offset,
        )
    }

    /// Reads from the start.
    pub fn reader(&self) -> impl Read + Send + use<> {
        SourceReader {
            source: self.clone(),
            position: 0,
        }
    }
}

struct SourceReader {
    source: Source,
    position: u64,
}

impl Read for SourceReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.source.read_at(buffer, self.position)?;
        self.position += n as u64;
        Ok(n)
    }
}
