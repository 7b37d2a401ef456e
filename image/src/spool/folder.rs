//! The spool's folder: its locks, its entries, and their removal.

use std::collections::HashMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, SystemTime};

use pcocc_core::publish;
use rustix::fs::FlockOperation;
use tempfile::TempDir;

use super::{ROOTFS, is_missing};
use crate::error::{Error, Result};
use crate::layout::LayoutFolder;
use crate::oci::Layer;
use crate::transfer::{Context, Layout};
use pcocc_layers::{DiffId, Digest};

const TEMP: &str = "tmp-";
const EXPORT: &str = ".export";

/// Pause between two attempts to get a turn.
const INTERVAL: Duration = Duration::from_millis(30);

/// A spool's folder.
#[derive(Debug)]
pub(super) struct Folder {
    dir: PathBuf,
}

/// An unfinished entry, deleted when dropped.
#[derive(Debug)]
pub(super) struct Temp {
    folder: TempDir,
    lock: File,
}

impl Temp {
    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }
}

/// The right to export one image, held until it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    path: PathBuf,
    _lock: File,
}

impl Drop for Turn {
    fn drop(&mut self) {
        // The file is removed while it is locked: a waiting process sees that its file is gone, and makes
        // another.
        discard_file(&self.path);
    }
}

/// What [`Folder::evict`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Evicted {
    /// Bytes removed.
    pub(super) freed: u64,
    /// Bytes left.
    pub(super) left: u64,
}

/// An entry, as eviction needs it.
struct Entry {
    path: PathBuf,
    used: SystemTime,
    bytes: u64,
}

impl Folder {
    /// Opens the folder and removes the remains of killed processes.
    pub(super) fn open(dir: PathBuf) -> Result<Self> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&dir)
            .map_err(Error::io("create", &dir))?;
        let folder = Self { dir };
        folder.sweep()?;
        Ok(folder)
    }

    /// The folder itself.
    pub(super) fn path(&self) -> &Path {
        &self.dir
    }

    /// The path of the image's entry, whether there or not.
    pub(super) fn entry(&self, id: Digest) -> PathBuf {
        self.dir.join(id.hex())
    }

    /// Locks the image's entry against removal and marks it as used; `None` when there is no entry.
    pub(super) fn lock_entry(&self, id: Digest) -> Result<Option<File>> {
        let _guard = self.guard()?;
        let path = self.entry(id);
        let lock = match File::open(&path) {
            Err(error) if is_missing(&error) => return Ok(None),
            opened => opened.map_err(Error::io("open", &path))?,
        };
        // An entry is locked exclusively only under the guard.
        if !try_lock(&lock, FlockOperation::NonBlockingLockShared)
            .map_err(Error::io("lock", &path))?
        {
            return Ok(None);
        }
        self.touch(id);
        Ok(Some(lock))
    }

    /// Marks the image as used now.
    pub(super) fn touch(&self, id: Digest) {
        if let Err(error) = publish::touch(&self.entry(id)) {
            tracing::debug!(%error, %id, "cannot mark an image of the spool as used");
        }
    }

    /// Waits until no other process or thread exports this image.
    pub(super) fn turn(&self, id: Digest, context: &Context) -> Result<Turn> {
        let path = self.dir.join(format!("{}{EXPORT}", id.hex()));
        loop {
            context.check()?;
            let lock = OpenOptions::new()
                .create(true)
                .truncate(false)
                .write(true)
                .open(&path)
                .map_err(Error::io("create", &path))?;
            if try_lock(&lock, FlockOperation::NonBlockingLockExclusive)
                .map_err(Error::io("lock", &path))?
                && is_at(&lock, &path)
            {
                return Ok(Turn { path, _lock: lock });
            }
            thread::sleep(INTERVAL);
        }
    }

    /// Starts an entry.
    pub(super) fn temp(&self) -> Result<Temp> {
        let _guard = self.guard()?;
        let io = |error| Error::io("create a folder in", &self.dir)(error);
        let folder = tempfile::Builder::new()
            .prefix(TEMP)
            .tempdir_in(&self.dir)
            .map_err(io)?;
        let lock = File::open(folder.path()).map_err(io)?;
        // Other processes look at the folder only under the guard.
        try_lock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(io)?;
        Ok(Temp { folder, lock })
    }

    /// Publishes a complete entry under the image's ID; the returned lock keeps the entry.
    pub(super) fn publish(&self, temp: Temp, id: Digest) -> Result<File> {
        let _guard = self.guard()?;
        let path = self.entry(id);
        fs::rename(temp.path(), &path).map_err(Error::io("publish", &path))?;
        let Temp { folder, lock } = temp;
        // The folder has another name now.
        let _ = folder.keep();
        try_lock(&lock, FlockOperation::NonBlockingLockShared).map_err(Error::io("lock", &path))?;
        Ok(lock)
    }

    /// Removes a useless entry, even when other processes have it open.
    pub(super) fn remove(&self, id: Digest) -> Result<()> {
        let guard = self.guard()?;
        let path = self.entry(id);
        match File::open(&path) {
            Err(error) if is_missing(&error) => return Ok(()),
            Err(error) => return Err(Error::io("open", &path)(error)),
            Ok(lock) => {
                let out = self.set_aside(&path)?;
                drop(guard);
                discard(&out);
                drop(lock);
            }
        }
        Ok(())
    }

    /// Removes unused entries, the least recently used first, until at most `max_bytes` are left.
    pub(super) fn evict(&self, max_bytes: u64) -> Result<Evicted> {
        let mut out = Vec::new();
        let (mut left, mut freed) = (0, 0);
        {
            let _guard = self.guard()?;
            let mut entries = self.entries()?;
            entries.sort_by_key(|entry| entry.used);
            left += entries.iter().map(|entry| entry.bytes).sum::<u64>();
            for entry in entries {
                if left <= max_bytes {
                    break;
                }
                let Some(lock) = lock_alone(&entry.path)? else {
                    continue;
                };
                // A process may use the root file system alone. A broken entry has none.
                let rootfs = entry.path.join(ROOTFS);
                if lock_alone(&rootfs)?.is_none() && rootfs.exists() {
                    continue;
                }
                out.push((self.set_aside(&entry.path)?, lock));
                left -= entry.bytes;
                freed += entry.bytes;
            }
        }
        // The entries have lost their names: other processes need not wait for the removal.
        for (path, _lock) in out {
            discard(&path);
        }
        Ok(Evicted { freed, left })
    }

    /// The layers of all entries with their files, for links in another entry.
    pub(super) fn layers(&self) -> HashMap<DiffId, (Layer, PathBuf)> {
        let mut layers = HashMap::new();
        let Ok(entries) = self.entries() else {
            return layers;
        };
        for entry in entries {
            // An entry that is broken, or is being removed, has no usable layers.
            let Ok(folder) = LayoutFolder::open(&entry.path, None) else {
                continue;
            };
            let Ok(image) = folder.image(&Context::silent()) else {
                continue;
            };
            for layer in image.layers() {
                if let Some(file) = folder.layer_file(layer) {
                    layers.insert(layer.diff_id, (layer.clone(), file));
                }
            }
        }
        layers
    }

    /// Locks the spool while folders are added, removed or locked.
    fn guard(&self) -> Result<File> {
        let path = self.dir.join("lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(Error::io("open", &path))?;
        loop {
            match rustix::fs::flock(&lock, FlockOperation::LockExclusive) {
                Ok(()) => return Ok(lock),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(Error::io("lock", &path)(error.into())),
            }
        }
    }

    fn sweep(&self) -> Result<()> {
        let mut out = Vec::new();
        {
            let _guard = self.guard()?;
            for path in self.children()? {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                let is_export = name.ends_with(EXPORT);
                if (is_export || name.starts_with(TEMP))
                    && let Some(lock) = lock_alone(&path)?
                {
                    if is_export {
                        discard_file(&path);
                    } else {
                        out.push((path, lock));
                    }
                }
            }
            if !self.is_of_this_boot()? {
                for entry in self.entries()? {
                    if let Some(lock) = lock_alone(&entry.path)? {
                        out.push((self.set_aside(&entry.path)?, lock));
                    }
                }
            }
        }
        for (path, _lock) in out {
            discard(&path);
        }
        Ok(())
    }

    /// Whether the spool was filled since the machine booted; notes the present boot.
    fn is_of_this_boot(&self) -> Result<bool> {
        let now = match fs::read("/proc/sys/kernel/random/boot_id") {
            Ok(id) => id,
            Err(error) => {
                tracing::debug!(%error, "cannot tell one boot from another");
                return Ok(true);
            }
        };
        let path = self.dir.join("boot");
        match fs::read(&path) {
            Ok(then) if then == now => return Ok(true),
            Ok(_) => {}
            Err(error) if is_missing(&error) => {}
            Err(error) => return Err(Error::io("read", &path)(error)),
        }
        fs::write(&path, now).map_err(Error::io("write", &path))?;
        Ok(false)
    }

    fn children(&self) -> Result<Vec<PathBuf>> {
        let io = |error| Error::io("list", &self.dir)(error);
        fs::read_dir(&self.dir)
            .map_err(io)?
            .map(|child| child.map(|child| child.path()).map_err(io))
            .collect()
    }

    fn entries(&self) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for path in self.children()? {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if Digest::from_hex(&name).is_err() {
                continue;
            }
            match fs::metadata(&path).and_then(|metadata| metadata.modified()) {
                Ok(used) => entries.push(Entry {
                    bytes: bytes_in(&path),
                    used,
                    path,
                }),
                Err(error) if is_missing(&error) => {}
                Err(error) => return Err(Error::io("read", &path)(error)),
            }
        }
        Ok(entries)
    }

    /// Takes an entry's name away; the caller or [`Self::sweep`] removes the folder later.
    fn set_aside(&self, path: &Path) -> Result<PathBuf> {
        let io = |error| Error::io("remove", path)(error);
        let out = tempfile::Builder::new()
            .prefix(TEMP)
            .tempdir_in(&self.dir)
            .map_err(io)?
            .keep();
        // Rename replaces an empty folder.
        fs::rename(path, &out).map_err(io)?;
        Ok(out)
    }
}

/// Takes the exclusive lock of a folder or file; `None` when it is in use or gone.
fn lock_alone(path: &Path) -> Result<Option<File>> {
    let file = match File::open(path) {
        Err(error) if is_missing(&error) => return Ok(None),
        opened => opened.map_err(Error::io("open", path))?,
    };
    let locked = try_lock(&file, FlockOperation::NonBlockingLockExclusive);
    Ok(locked.map_err(Error::io("lock", path))?.then_some(file))
}

/// Locks an entry's root file system while the file is open; the caller holds the lock of the entry.
pub(super) fn keep(file: &File) -> io::Result<()> {
    try_lock(file, FlockOperation::NonBlockingLockShared).map(|_| ())
}

fn try_lock(file: &File, how: FlockOperation) -> io::Result<bool> {
    match rustix::fs::flock(file, how) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Whether `path` names `file` now.
fn is_at(file: &File, path: &Path) -> bool {
    let (Ok(file), Ok(named)) = (file.metadata(), fs::metadata(path)) else {
        return false;
    };
    (file.dev(), file.ino()) == (named.dev(), named.ino())
}

fn bytes_in(path: &Path) -> u64 {
    let Ok(children) = fs::read_dir(path) else {
        return 0;
    };
    let children = children.flatten();
    children
        .map(|child| match child.metadata() {
            Ok(metadata) if metadata.is_dir() => bytes_in(&child.path()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        })
        .sum()
}

fn discard(path: &Path) {
    if let Err(error) = fs::remove_dir_all(path) {
        // The next process that opens the spool tries again.
        tracing::debug!(%error, path = %path.display(), "cannot remove a folder of the spool");
    }
}

fn discard_file(path: &Path) {
    if let Err(error) = fs::remove_file(path) {
        tracing::debug!(%error, path = %path.display(), "cannot remove a lock of the spool");
    }
}
