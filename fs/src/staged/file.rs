//! A file of a staged folder.
//!
//! The content is in an unlinked temporary file, so that nothing stays behind when the mount dies. If
//! `copy_file_range` copied a blob of an image in the tree, the content is a reference to this blob; the first
//! write replaces the reference by a copy.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;
use pcocc_core::cancel::Cancel;
use pcocc_layers::Digest;
use pcocc_layers::digest::Hashing;

use super::id::{StagedId, compare_by_id};
use super::source::{FileOf, Source};
use crate::blob::BlobFile;
use crate::errno::{Errno, Result, errno_of_io, io_to_errno};

/// Size of the chunks in which files are copied and hashed.
const CHUNK: usize = 1 << 20;

#[derive(Debug)]
enum Body {
    Empty,
    Held(Source),
    /// The content is freed; this was its length. The kernel may still know the inode.
    Dropped(u64),
}

#[derive(Debug)]
struct Data {
    body: Body,
    /// Hash of the bytes so far, while they come in order.
    hash: Option<Hashing<io::Sink>>,
    /// Digest of the whole content, if it was computed after the last change.
    digest: Option<Digest>,
    /// Handles for writing that were not flushed after their opening or last write.
    unflushed: BTreeSet<u64>,
    /// Number of open handles, for reading as well.
    handles: usize,
    /// Whether the content is useless after the last handle is closed.
    retired: bool,
    modified: SystemTime,
}

/// A file of a staged image.
#[derive(Debug)]
pub struct StagedFile {
    pub(super) id: StagedId,
    folder: Arc<Path>,
    data: Mutex<Data>,
}

compare_by_id!(StagedFile);

impl StagedFile {
    /// An empty file; its content will be in `folder`.
    pub fn new(folder: Arc<Path>) -> Arc<Self> {
        Arc::new(Self {
            id: StagedId::next(),
            folder,
            data: Mutex::new(Data {
                body: Body::Empty,
                hash: Some(Hashing::new(io::sink())),
                digest: None,
                unflushed: BTreeSet::new(),
                handles: 0,
                retired: false,
                modified: SystemTime::now(),
            }),
        })
    }

    /// Length in bytes.
    pub fn size(&self) -> u64 {
        self.data.lock().body.size()
    }

    /// When it was last written.
    pub fn modified(&self) -> SystemTime {
        self.data.lock().modified
    }

    /// Notes an opened handle; fails when the content is freed.
    pub fn attach(&self) -> Result<()> {
        let mut data = self.data.lock();
        if matches!(data.body, Body::Dropped(_)) {
            return Err(Errno::STALE);
        }
        data.handles += 1;
        Ok(())
    }

    /// Notes a handle that is closed for good.
    pub fn detach(&self) {
        let mut data = self.data.lock();
        data.handles = data.handles.saturating_sub(1);
        data.drop_if_unused();
    }

    /// Frees the content as soon as no handle is open. Otherwise the content would stay as long as the kernel
    /// remembers the inode, which may be for ever.
    pub fn retire(&self) {
        let mut data = self.data.lock();
        data.retired = true;
        data.drop_if_unused();
    }

    /// Notes a handle that was opened for writing.
    pub fn open_for_writing(&self, handle: u64) {
        self.data.lock().unflushed.insert(handle);
    }

    /// Notes a handle that was flushed or closed.
    pub fn flushed(&self, handle: u64) {
        self.data.lock().unflushed.remove(&handle);
    }

    /// Whether every handle was flushed after its opening or last write.
    pub fn is_flushed(&self) -> bool {
        self.data.lock().unflushed.is_empty()
    }

    /// Whether the next write first copies a referenced blob, which takes time.
    pub fn is_reference(&self) -> bool {
        matches!(&self.data.lock().body, Body::Held(source) if source.blob().is_some())
    }

    /// Reads at `offset`; short only at the end.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        let source = self.data.lock().body.source();
        let read = source.map_or(Ok(0), |source| source.read_at(buffer, offset));
        read.map_err(io_to_errno)
    }

    /// Writes at `offset` through `handle`.
    pub fn write_at(&self, bytes: &[u8], offset: u64, handle: u64) -> Result<()> {
        let end = offset
            .checked_add(bytes.len() as u64)
            .filter(|end| i64::try_from(*end).is_ok())
            .ok_or(Errno::FBIG)?;
        let mut data = self.data.lock();
        data.unflushed.insert(handle);
        let (file, size) = self.local(&mut data)?;
        file.write_all_at(bytes, offset).map_err(io_to_errno)?;
        data.body = Body::Held(Source::local(file, size.max(end)));
        data.digest = None;
        data.modified = SystemTime::now();
        match &mut data.hash {
            Some(hash) if hash.size() == offset => {
                if hash.write_all(bytes).is_err() {
                    data.hash = None;
                }
            }
            _ => data.hash = None,
        }
        Ok(())
    }

    /// Cuts or extends the file.
    pub fn truncate(&self, size: u64) -> Result<()> {
        if i64::try_from(size).is_err() {
            return Err(Errno::FBIG);
        }
        let mut data = self.data.lock();
        if data.body.size() == size {
            return Ok(());
        }
        data.digest = None;
        data.modified = SystemTime::now();
        if size == 0 {
            data.body = Body::Empty;
            data.hash = Some(Hashing::new(io::sink()));
            return Ok(());
        }
        let (file, _) = self.local(&mut data)?;
        file.set_len(size).map_err(io_to_errno)?;
        data.body = Body::Held(Source::local(file, size));
        if data.hash.as_ref().is_some_and(|hash| hash.size() > size) {
            data.hash = None;
        }
        Ok(())
    }

    /// Makes the file a reference to the first `size` bytes of `blob`, if its content is a shorter start of
    /// them. Returns whether it did.
    pub fn refer(&self, blob: &Arc<BlobFile>, from: u64, size: u64) -> bool {
        let mut data = self.data.lock();
        let continues = match &data.body {
            Body::Empty => from == 0,
            Body::Held(source) => source
                .blob()
                .is_some_and(|known| known.digest == blob.digest && source.size == from),
            Body::Dropped(_) => false,
        };
        if continues && size > from && size <= blob.size {
            data.body = Body::Held(Source::first_of(blob, size));
            data.hash = None;
            data.digest = (size == blob.size).then_some(blob.digest);
            data.modified = SystemTime::now();
        }
        continues
    }

    /// The content for reading; `None` for an empty file.
    pub fn source(&self) -> Option<Source> {
        self.data.lock().body.source()
    }

    /// Digest of the content, computed unless it is known. Fails with `INTR` when cancelled.
    pub fn digest(&self, cancel: &Cancel) -> io::Result<Digest> {
        let source = {
            let mut data = self.data.lock();
            if let Some(digest) = data.digest {
                return Ok(digest);
            }
            let size = data.body.size();
            if data.hash.as_ref().is_some_and(|hash| hash.size() == size)
                && let Some(hash) = data.hash.take()
            {
                let digest = hash.finish().0;
                data.digest = Some(digest);
                return Ok(digest);
            }
            data.body.source()
        };
        let Some(source) = source else {
            return Ok(Digest::of(b""));
        };
        let mut reader = source.reader();
        let mut hash = Hashing::new(io::sink());
        let mut chunk = vec![0; CHUNK];
        loop {
            if cancel.is_cancelled() {
                return Err(Errno::INTR.into());
            }
            match reader.read(&mut chunk)? {
                0 => break,
                n => hash.write_all(chunk.get(..n).unwrap_or_default())?,
            }
        }
        let (digest, size, _) = hash.finish();
        let mut data = self.data.lock();
        // The digest is kept only if nobody wrote meanwhile; a commit checks that as well.
        if size == data.body.size() && data.unflushed.is_empty() {
            data.digest = Some(digest);
        }
        Ok(digest)
    }

    /// The whole content of a small file; `None` when it is larger than `limit`.
    pub fn document(&self, limit: u64) -> io::Result<Option<Vec<u8>>> {
        let Some(source) = self.source() else {
            return Ok(Some(Vec::new()));
        };
        if source.size > limit {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        source.reader().read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    }

    /// The local file with the content, made or copied from the referenced blob if needed.
    fn local(&self, data: &mut Data) -> Result<(Arc<File>, u64)> {
        let source = match &data.body {
            Body::Dropped(_) => return Err(Errno::STALE),
            Body::Empty => return Ok((Arc::new(self.temporary()?), 0)),
            Body::Held(source) => source,
        };
        if let FileOf::Local(file) = &source.file {
            return Ok((Arc::clone(file), source.size));
        }
        let (file, size) = (self.temporary()?, source.size);
        io::copy(&mut source.reader(), &mut &file).map_err(io_to_errno)?;
        let file = Arc::new(file);
        data.body = Body::Held(Source::local(Arc::clone(&file), size));
        Ok((file, size))
    }

    fn temporary(&self) -> Result<File> {
        tempfile::tempfile_in(&self.folder).map_err(|error| {
            tracing::warn!(folder = %self.folder.display(), %error, "cannot stage a file");
            errno_of_io(&error)
        })
    }
}

impl Data {
    fn drop_if_unused(&mut self) {
        if self.retired && self.handles == 0 {
            self.body = Body::Dropped(self.body.size());
            self.hash = None;
        }
    }
}

impl Body {
    fn size(&self) -> u64 {
        match self {
            Self::Empty => 0,
            Self::Held(source) => source.size,
            Self::Dropped(size) => *size,
        }
    }

    fn source(&self) -> Option<Source> {
        match self {
            Self::Held(source) => Some(source.clone()),
            Self::Empty | Self::Dropped(_) => None,
        }
    }
}
