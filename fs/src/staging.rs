//! An image folder while a tool writes it.
//!
//! Files are kept in unlinked temporary files, so that nothing stays behind when the mount dies, or
//! are references to a blob of an image in the tree, where `copy_file_range` asked for one. A reference
//! is replaced by a copy at its first write. Locks: a folder's state, then a file's data; never the
//! other way round.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime};

use parking_lot::{Mutex, MutexGuard};
use pcocc_core::cancel::Cancel;
use pcocc_layers::Digest;
use pcocc_layers::digest::Hashing;

use crate::blob::BlobFile;
use crate::errno::{Errno, errno_of_io};
use crate::naming::StoreId;
use crate::process::Process;

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

fn next_id() -> u64 {
    NEXT_ID.fetch_add(1, Ordering::Relaxed)
}

/// Size of the chunks in which files are copied and hashed.
const CHUNK: usize = 1 << 20;

enum Body {
    Empty,
    Local(Arc<File>, u64),
    /// The first bytes of a blob; all of them once the copy is through.
    Reference(Arc<BlobFile>, u64),
    /// Given up, of that length: the kernel may still know the inode.
    Dropped(u64),
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Empty => f.write_str("Empty"),
            Self::Local(_, size) => write!(f, "Local({size})"),
            Self::Reference(blob, size) => write!(f, "Reference({}, {size})", blob.digest),
            Self::Dropped(size) => write!(f, "Dropped({size})"),
        }
    }
}

#[derive(Debug)]
struct Data {
    body: Body,
    /// Hash of the bytes so far while they come in order.
    hash: Option<Hashing<io::Sink>>,
    /// Digest of the whole content, when it was computed since the last change.
    digest: Option<Digest>,
    /// Handles opened for writing that were not flushed since they were opened or written.
    unsettled: BTreeSet<u64>,
    /// Open handles, for reading too.
    handles: usize,
    /// Whether the content is of no use once the last handle is closed.
    retired: bool,
    modified: SystemTime,
}

/// A file of a staged image.
#[derive(Debug)]
pub struct StagedFile {
    id: u64,
    folder: Arc<Path>,
    data: Mutex<Data>,
}

impl StagedFile {
    /// An empty file whose content will be kept in `folder`.
    pub fn new(folder: Arc<Path>) -> Arc<Self> {
        Arc::new(Self {
            id: next_id(),
            folder,
            data: Mutex::new(Data {
                body: Body::Empty,
                hash: Some(Hashing::new(io::sink())),
                digest: None,
                unsettled: BTreeSet::new(),
                handles: 0,
                retired: false,
                modified: SystemTime::now(),
            }),
        })
    }

    /// A number no other file has.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Length in bytes.
    pub fn size(&self) -> u64 {
        self.data.lock().body.size()
    }

    /// When it was last written.
    pub fn modified(&self) -> SystemTime {
        self.data.lock().modified
    }

    /// Notes that a handle was opened; fails when the content is gone.
    pub fn attach(&self) -> Result<(), Errno> {
        let mut data = self.data.lock();
        if matches!(data.body, Body::Dropped(_)) {
            return Err(Errno::STALE);
        }
        data.handles += 1;
        Ok(())
    }

    /// Notes that a handle was closed for good.
    pub fn detach(&self) {
        let mut data = self.data.lock();
        data.handles = data.handles.saturating_sub(1);
        data.drop_if_unused();
    }

    /// Frees the content as soon as no handle is open. Else it would stay as long as the kernel
    /// remembers the inode, which may be for ever.
    pub fn retire(&self) {
        let mut data = self.data.lock();
        data.retired = true;
        data.drop_if_unused();
    }

    /// Notes that a handle was opened for writing.
    pub fn opened(&self, handle: u64) {
        self.data.lock().unsettled.insert(handle);
    }

    /// Notes that a handle was flushed or closed.
    pub fn settled(&self, handle: u64) {
        self.data.lock().unsettled.remove(&handle);
    }

    /// Whether every handle was flushed since it was opened or written.
    pub fn is_settled(&self) -> bool {
        self.data.lock().unsettled.is_empty()
    }

    /// Whether the next write copies a referenced blob first, which takes its time.
    pub fn is_reference(&self) -> bool {
        matches!(self.data.lock().body, Body::Reference(..))
    }

    /// Reads at `offset`; short only at the end.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let source = self.data.lock().body.source();
        source.map_or(Ok(0), |source| source.read_at(buffer, offset))
    }

    /// Writes at `offset` through `handle`.
    pub fn write_at(&self, bytes: &[u8], offset: u64, handle: u64) -> Result<(), Errno> {
        let end = offset
            .checked_add(bytes.len() as u64)
            .filter(|end| i64::try_from(*end).is_ok())
            .ok_or(Errno::FBIG)?;
        let mut data = self.data.lock();
        data.unsettled.insert(handle);
        let (file, size) = self.local(&mut data)?;
        file.write_all_at(bytes, offset)
            .map_err(|error| errno_of_io(&error))?;
        data.body = Body::Local(file, size.max(end));
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
    pub fn truncate(&self, size: u64) -> Result<(), Errno> {
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
        file.set_len(size).map_err(|error| errno_of_io(&error))?;
        data.body = Body::Local(file, size);
        if data.hash.as_ref().is_some_and(|hash| hash.size() > size) {
            data.hash = None;
        }
        Ok(())
    }

    /// Lets the file be the first `size` bytes of `blob`, if it is shorter so far and nothing else.
    /// Returns whether it could.
    pub fn refer(&self, blob: &Arc<BlobFile>, from: u64, size: u64) -> bool {
        let mut data = self.data.lock();
        let continues = match &data.body {
            Body::Empty => from == 0,
            Body::Reference(known, so_far) => known.digest == blob.digest && *so_far == from,
            Body::Local(..) | Body::Dropped(_) => false,
        };
        if continues && size > from && size <= blob.size {
            data.body = Body::Reference(Arc::clone(blob), size);
            data.hash = None;
            data.digest = (size == blob.size).then_some(blob.digest);
            data.modified = SystemTime::now();
        }
        continues
    }

    /// The file the content is in, for reading; `None` when it is empty.
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
        // Kept only when nobody wrote meanwhile; a commit checks that anyway.
        if size == data.body.size() && data.unsettled.is_empty() {
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

    /// The local file behind the data, made or copied from the referenced blob where needed.
    fn local(&self, data: &mut Data) -> Result<(Arc<File>, u64), Errno> {
        match &data.body {
            Body::Local(file, size) => Ok((Arc::clone(file), *size)),
            Body::Dropped(_) => Err(Errno::STALE),
            Body::Empty => Ok((Arc::new(self.temporary()?), 0)),
            Body::Reference(blob, size) => {
                let file = self.temporary()?;
                let source = Source {
                    file: FileOf::Blob(Arc::clone(blob)),
                    size: *size,
                };
                io::copy(&mut source.reader(), &mut &file).map_err(|e| errno_of_io(&e))?;
                let file = Arc::new(file);
                data.body = Body::Local(Arc::clone(&file), source.size);
                Ok((file, source.size))
            }
        }
    }

    fn temporary(&self) -> Result<File, Errno> {
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
            Self::Local(_, size) | Self::Reference(_, size) | Self::Dropped(size) => *size,
        }
    }

    fn source(&self) -> Option<Source> {
        let (file, size) = match self {
            Self::Empty | Self::Dropped(_) => return None,
            Self::Local(file, size) => (FileOf::Local(Arc::clone(file)), *size),
            Self::Reference(blob, size) => (FileOf::Blob(Arc::clone(blob)), *size),
        };
        Some(Source { file, size })
    }
}

#[derive(Clone)]
enum FileOf {
    Local(Arc<File>),
    Blob(Arc<BlobFile>),
}

/// Content of a staged file as it stands, readable from any thread.
#[derive(Clone)]
pub struct Source {
    file: FileOf,
    /// Length in bytes.
    pub size: u64,
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source").field("size", &self.size).finish()
    }
}

impl Source {
    fn file(&self) -> &File {
        match &self.file {
            FileOf::Local(file) => file,
            FileOf::Blob(blob) => &blob.file,
        }
    }

    /// Path of the file that is exactly this content: the store's own for a whole blob.
    pub fn path(&self) -> Option<PathBuf> {
        match &self.file {
            FileOf::Blob(blob) => (blob.size == self.size).then(|| blob.path.clone()),
            FileOf::Local(file) => Some(format!("/proc/self/fd/{}", file.as_raw_fd()).into()),
        }
    }

    /// Reads at `offset`; short only at the end.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let left = usize::try_from(self.size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let wanted = buffer.len().min(left);
        let mut done = 0;
        while done < wanted {
            let Some(rest) = buffer.get_mut(done..wanted) else {
                break;
            };
            match self.file().read_at(rest, offset + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
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

/// How far an image folder has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Tools write it.
    Filling,
    /// The transfer into its store runs.
    Committing,
    /// It is an image, or was taken away: what is left of it can no longer be written.
    Gone,
}

/// A name inside a staged image.
#[derive(Clone, Debug)]
pub enum Item {
    /// A folder.
    Dir,
    /// A file.
    File(Arc<StagedFile>),
}

/// The part of a staged image that changes.
#[derive(Debug)]
pub struct State {
    /// Its path in the store's tree.
    pub path: String,
    /// Files and folders by path inside.
    pub items: BTreeMap<String, Item>,
    /// How far it has come.
    pub phase: Phase,
    /// The change that failed to commit, and how.
    pub failed: Option<(u64, Errno)>,
    /// Why it is not complete, as found at the last look.
    pub missing: Option<String>,
    /// Who made the folder, and who last touched it.
    pub users: (Process, Process),
    /// When it was last touched.
    pub touched: Instant,
    /// When names in it last changed.
    pub modified: SystemTime,
}

/// An image folder that is being written.
#[derive(Debug)]
pub struct Staged {
    id: u64,
    store: StoreId,
    /// Made on purpose by a program whose end says nothing (`mkdir`), so kept for a while.
    kept: bool,
    changes: AtomicU64,
    state: Mutex<State>,
}

impl Staged {
    /// Starts an empty folder at `path` of a store.
    pub fn new(store: StoreId, path: &str, maker: Process) -> Arc<Self> {
        Arc::new(Self {
            id: next_id(),
            store,
            kept: matches!(&*maker.program(), "mkdir" | "install"),
            changes: AtomicU64::new(0),
            state: Mutex::new(State {
                path: path.to_owned(),
                items: BTreeMap::new(),
                phase: Phase::Filling,
                failed: None,
                missing: None,
                users: (maker, maker),
                touched: Instant::now(),
                modified: SystemTime::now(),
            }),
        })
    }

    /// A number no other staged image has.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The store it is meant for.
    pub fn store(&self) -> StoreId {
        self.store
    }

    /// Its state, locked.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Counts a change of names or content.
    pub fn changed(&self) {
        self.changes.fetch_add(1, Ordering::Relaxed);
    }

    /// The number of changes so far.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Relaxed)
    }

    /// Fails unless the folder can be written, and notes who does.
    pub fn touch(&self, by: Option<Process>) -> Result<MutexGuard<'_, State>, Errno> {
        let mut state = self.state();
        match state.phase {
            Phase::Filling => {
                if let Some(by) = by {
                    state.users.1 = by;
                }
                state.touched = Instant::now();
                Ok(state)
            }
            Phase::Committing => Err(Errno::BUSY),
            Phase::Gone => Err(Errno::STALE),
        }
    }

    /// Whether nobody will complete the folder any more: those who made it and touched it last have
    /// ended. A folder made by `mkdir` is given ten minutes.
    pub fn is_abandoned(&self) -> bool {
        const KEPT: std::time::Duration = std::time::Duration::from_secs(600);
        let (phase, users, idle) = {
            let state = self.state();
            (state.phase, state.users, state.touched.elapsed())
        };
        phase == Phase::Filling
            && !users.0.is_alive()
            && (users.1 == users.0 || !users.1.is_alive())
            && (!self.kept || idle > KEPT)
    }
}

/// What may stand at a path inside an image that is being written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A folder of the layout.
    Folder,
    /// A file of the layout.
    Layout,
    /// A file or folder tools put there for the time being; never content.
    Temporary,
}

/// Tells what may stand at `path`; `None` for what an image layout has no place for.
pub fn role(path: &str) -> Option<Role> {
    let temporary = path.split('/').any(|name| {
        ["oci-put-blob", "."].iter().any(|s| name.starts_with(s))
            || [".tmp", ".part", ".partial"]
                .iter()
                .any(|s| name.ends_with(s))
    });
    match path {
        "oci-layout" | "index.json" => Some(Role::Layout),
        "blobs" | "blobs/sha256" => Some(Role::Folder),
        _ if temporary => Some(Role::Temporary),
        // An unpacked `docker save` archive is a layout with these beside it.
        "manifest.json" | "repositories" => Some(Role::Temporary),
        _ => match path.strip_prefix("blobs/sha256/") {
            Some(hex) if Digest::from_hex(hex).is_ok() => Some(Role::Layout),
            _ => None,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> (tempfile::TempDir, Arc<StagedFile>) {
        let folder = tempfile::tempdir().unwrap();
        let file = StagedFile::new(folder.path().into());
        (folder, file)
    }

    fn blob(folder: &Path, content: &[u8]) -> Arc<BlobFile> {
        let path = folder.join("blob");
        std::fs::write(&path, content).unwrap();
        Arc::new(BlobFile {
            file: File::open(&path).unwrap(),
            path,
            digest: Digest::of(content),
            size: content.len() as u64,
        })
    }

    #[test]
    fn digests_in_and_out_of_order_agree() {
        let cancel = Cancel::new();
        let (_keep, file) = file();
        file.write_at(b"hello ", 0, 1).unwrap();
        file.write_at(b"world", 6, 1).unwrap();
        file.settled(1);
        assert_eq!(file.digest(&cancel).unwrap(), Digest::of(b"hello world"));
        file.write_at(b"J", 0, 1).unwrap();
        file.settled(1);
        assert_eq!(file.digest(&cancel).unwrap(), Digest::of(b"Jello world"));
        file.truncate(5).unwrap();
        assert_eq!(file.digest(&cancel).unwrap(), Digest::of(b"Jello"));
        file.truncate(0).unwrap();
        assert_eq!(file.digest(&cancel).unwrap(), Digest::of(b""));
        file.write_at(b"x", 2, 1).unwrap();
        file.settled(1);
        assert_eq!(file.digest(&cancel).unwrap(), Digest::of(b"\0\0x"));
        file.truncate(0).unwrap();
        file.write_at(b"abc", 0, 1).unwrap();
        file.truncate(6).unwrap();
        file.write_at(b"def", 3, 1).unwrap();
        file.settled(1);
        assert_eq!(file.digest(&cancel).unwrap(), Digest::of(b"abcdef"));
    }

    #[test]
    fn a_reference_grows_and_is_copied_before_a_write() {
        let (keep, file) = file();
        let blob = blob(keep.path(), b"0123456789");
        assert!(file.refer(&blob, 0, 4));
        assert!(!file.refer(&blob, 6, 10));
        assert_eq!(file.size(), 4);
        assert!(file.refer(&blob, 4, 10));
        assert_eq!(file.digest(&Cancel::new()).unwrap(), blob.digest);
        assert_eq!(file.source().unwrap().path().unwrap(), blob.path);
        let mut buffer = [0; 20];
        assert_eq!(file.read_at(&mut buffer, 8).unwrap(), 2);
        file.write_at(b"X", 3, 1).unwrap();
        assert!(!file.is_reference());
        assert_eq!(file.document(100).unwrap().unwrap(), b"012X456789");
        assert_eq!(std::fs::read(&blob.path).unwrap(), b"0123456789");
        assert_eq!(file.document(5).unwrap(), None);
    }

    #[test]
    fn what_is_retired_goes_with_its_last_handle() {
        let (_keep, file) = file();
        file.attach().unwrap();
        file.write_at(b"abc", 0, 1).unwrap();
        file.retire();
        let mut buffer = [0; 3];
        assert_eq!(file.read_at(&mut buffer, 0).unwrap(), 3);
        file.detach();
        assert!(file.source().is_none());
        assert_eq!(file.size(), 3);
        assert_eq!(file.attach(), Err(Errno::STALE));
    }

    #[test]
    fn only_a_layout_has_a_place() {
        let hex = Digest::of(b"").hex();
        for (path, expected) in [
            ("index.json", Some(Role::Layout)),
            ("blobs", Some(Role::Folder)),
            (&format!("blobs/sha256/{hex}"), Some(Role::Layout)),
            (
                &format!("blobs/sha256/.{hex}.Ab12Cd"),
                Some(Role::Temporary),
            ),
            (".umoci-1/index.json", Some(Role::Temporary)),
            ("oci-put-blob123", Some(Role::Temporary)),
            ("index.json.1a2b3c4d.partial", Some(Role::Temporary)),
            ("busybox", None),
            ("blobs/sha512", None),
            ("blobs/sha256/abc", None),
            ("index.json/x", None),
        ] {
            assert_eq!(role(path), expected, "{path}");
        }
    }
}
