//! The spool's folder: its locks, its entries, and their removal.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, SystemTime};

use pcocc_core::beneath::{Found, OpenFolder, Refusal};
use pcocc_core::durable;
use rustix::fs::FlockOperation;

use super::{BLOBS, ROOTFS, TOC, is_missing};
use crate::error::{Error, Result};
use crate::ingest::Base;
use crate::layout::LayoutFolder;
use crate::oci::Layer;
use crate::transfer::{Context, Layout};
use pcocc_layers::squashfs::Toc;
use pcocc_layers::{DiffId, Digest};

const TEMP: &str = "tmp-";
const EXPORT: &str = ".export";

/// Pause between two attempts to get a turn.
const INTERVAL: Duration = Duration::from_millis(30);

/// A spool's folder.
#[derive(Debug)]
pub(super) struct Folder {
    dir: OpenFolder,
}

/// An unfinished entry, deleted when dropped.
#[derive(Debug)]
pub(super) struct Temp {
    dir: OpenFolder,
    name: OsString,
    folder: OpenFolder,
    lock: Option<File>,
}

impl Temp {
    pub(super) fn folder(&self) -> &OpenFolder {
        &self.folder
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        // Its name is another once it is published.
        if self.lock.is_some() {
            discard(&self.dir, &self.name);
        }
    }
}

/// The right to export one image, held until it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    dir: OpenFolder,
    name: OsString,
    _lock: File,
}

impl Drop for Turn {
    fn drop(&mut self) {
        // Removed while it is locked: whoever waits sees that its file is gone, and makes another.
        discard(&self.dir, &self.name);
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
    name: OsString,
    used: SystemTime,
    bytes: u64,
}

impl Folder {
    /// Opens the folder and removes the remains of killed processes.
    pub(super) fn open(dir: PathBuf) -> Result<Self> {
        let opened = durable::create_folders(&dir, 0o700).and_then(|()| OpenFolder::open(&dir));
        let folder = Self {
            dir: opened.map_err(Error::io("create", &dir))?,
        };
        folder.sweep()?;
        Ok(folder)
    }

    /// The folder itself.
    pub(super) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Opens the image's entry.
    pub(super) fn entry(&self, id: Digest) -> Result<OpenFolder> {
        let entry = self.dir.folder(id.hex());
        entry.map_err(self.failed("open", id.hex()))
    }

    /// Makes a closure for `map_err` that names what is at `name` in the folder.
    fn failed<N: AsRef<Path>>(
        &self,
        action: &'static str,
        name: N,
    ) -> impl FnOnce(io::Error) -> Error + use<N> {
        Error::io(action, self.path().join(name))
    }

    /// Locks the image's entry against removal and marks it as used; `None` when there is no entry.
    pub(super) fn lock_entry(&self, id: Digest) -> Result<Option<File>> {
        let _guard = self.guard()?;
        let name = id.hex();
        let lock = match self.dir.open_to_lock(&name) {
            Err(error) if is_missing(&error) => return Ok(None),
            opened => opened.map_err(self.failed("open", &name))?,
        };
        // An entry is locked exclusively only under the guard.
        if !try_lock(&lock, FlockOperation::NonBlockingLockShared)
            .map_err(self.failed("lock", &name))?
        {
            return Ok(None);
        }
        self.touch(id);
        Ok(Some(lock))
    }

    /// Marks the image as used now.
    pub(super) fn touch(&self, id: Digest) {
        if let Err(error) = self.dir.touch(id.hex()) {
            tracing::debug!(%error, %id, "cannot mark an image of the spool as used");
        }
    }

    /// Waits until no other process or thread exports this image.
    pub(super) fn turn(&self, id: Digest, context: &Context) -> Result<Turn> {
        let name = OsString::from(format!("{}{EXPORT}", id.hex()));
        loop {
            context.check()?;
            let lock = self.dir.open_or_create(&name, 0o600);
            let lock = lock.map_err(self.failed("create", &name))?;
            if try_lock(&lock, FlockOperation::NonBlockingLockExclusive)
                .map_err(self.failed("lock", &name))?
                && is_at(&lock, &self.dir, &name)
            {
                let dir = self.dir.clone();
                return Ok(Turn {
                    dir,
                    name,
                    _lock: lock,
                });
            }
            thread::sleep(INTERVAL);
        }
    }

    /// Starts an entry.
    pub(super) fn temp(&self) -> Result<Temp> {
        let _guard = self.guard()?;
        let io = |error| Error::io("create a folder in", self.path())(error);
        let temp = self.dir.temp_folder(TEMP, 0o700).map_err(io)?;
        let (name, folder) = temp.keep();
        let lock = self.dir.open_to_lock(&name).map_err(io)?;
        // Nobody else looks at it without the guard.
        try_lock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(io)?;
        Ok(Temp {
            dir: self.dir.clone(),
            name,
            folder,
            lock: Some(lock),
        })
    }

    /// Makes a complete entry the image's; the lock that is returned keeps it.
    pub(super) fn publish(&self, mut temp: Temp, id: Digest) -> Result<File> {
        let _guard = self.guard()?;
        let name = id.hex();
        let renamed = self.dir.rename(&temp.name, &self.dir, &name);
        renamed.map_err(self.failed("publish", &name))?;
        let lock = temp.lock.take().ok_or(Error::Cancelled)?;
        try_lock(&lock, FlockOperation::NonBlockingLockShared)
            .map_err(self.failed("lock", &name))?;
        Ok(lock)
    }

    /// Removes a useless entry, even when other processes have it open.
    pub(super) fn remove(&self, id: Digest) -> Result<()> {
        let guard = self.guard()?;
        let name = OsString::from(id.hex());
        if self.dir.has(&name) {
            let out = self.set_aside(&name)?;
            drop(guard);
            discard(&self.dir, &out);
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
                let Some(lock) = self.lock_alone(entry.name.as_ref())? else {
                    continue;
                };
                // Its root file system may be in use without the rest; a broken one has none.
                let rootfs = Path::new(&entry.name).join(ROOTFS);
                if self.lock_alone(&rootfs)?.is_none() && self.dir.has(&rootfs) {
                    continue;
                }
                out.push((self.set_aside(&entry.name)?, lock));
                left -= entry.bytes;
                freed += entry.bytes;
            }
        }
        // Nobody finds them any more, so that others need not wait for this.
        for (name, _lock) in out {
            discard(&self.dir, &name);
        }
        Ok(Evicted { freed, left })
    }

    /// The squashfs file that begins with most of the layers `diff_ids`, lowest first, at least with one.
    pub(super) fn base(&self, diff_ids: &[DiffId]) -> Option<Base> {
        let mut best: Option<(usize, Base)> = None;
        for entry in self.entries().unwrap_or_default() {
            // One that goes right now is no base.
            let Ok(folder) = self.dir.folder(&entry.name) else {
                continue;
            };
            let toc = folder.read(TOC, Toc::MAX_BYTES).ok();
            let (Some(Ok(toc)), Ok(file)) =
                (toc.map(|toc| Toc::decode(&toc)), folder.open_file(ROOTFS))
            else {
                continue;
            };
            let same = toc.diff_ids().zip(diff_ids);
            let length = same.take_while(|(has, wanted)| has == *wanted).count();
            if length > best.as_ref().map_or(0, |(length, _)| *length) {
                let path = folder.path().join(ROOTFS);
                best = Some((length, Base { file, path, toc }));
            }
        }
        best.map(|(_, base)| base)
    }

    /// The layers of all entries and the folders of their blobs, to be linked into another entry.
    pub(super) fn layers(&self) -> HashMap<DiffId, (Layer, OpenFolder)> {
        let mut layers = HashMap::new();
        let Ok(entries) = self.entries() else {
            return layers;
        };
        for entry in entries {
            // One that is broken, or goes right now, has no layers for us.
            let opened = self.dir.folder(&entry.name).map(LayoutFolder::inside);
            let Ok(Ok(folder)) = opened else {
                continue;
            };
            let blobs = self.dir.folder(Path::new(&entry.name).join(BLOBS));
            let (Ok(image), Ok(blobs)) = (folder.image(&Context::silent()), blobs) else {
                continue;
            };
            for layer in image.layers() {
                if folder.layer_file(layer).is_some() {
                    layers.insert(layer.diff_id, (layer.clone(), blobs.clone()));
                }
            }
        }
        layers
    }

    /// Locks the spool while folders are added, removed or locked.
    fn guard(&self) -> Result<File> {
        const LOCK: &str = "lock";
        let lock = self.dir.open_or_create(LOCK, 0o600);
        let lock = lock.map_err(self.failed("open", LOCK))?;
        loop {
            match rustix::fs::flock(&lock, FlockOperation::LockExclusive) {
                Ok(()) => return Ok(lock),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(self.failed("lock", LOCK)(error.into())),
            }
        }
    }

    fn sweep(&self) -> Result<()> {
        let mut out = Vec::new();
        {
            let _guard = self.guard()?;
            for name in self.children()? {
                let text = name.to_string_lossy();
                let is_export = text.ends_with(EXPORT);
                if (is_export || text.starts_with(TEMP))
                    && let Some(lock) = self.lock_alone(name.as_ref())?
                {
                    if is_export {
                        discard(&self.dir, &name);
                    } else {
                        out.push((name, lock));
                    }
                }
            }
            if !self.is_of_this_boot()? {
                for entry in self.entries()? {
                    if let Some(lock) = self.lock_alone(entry.name.as_ref())? {
                        out.push((self.set_aside(&entry.name)?, lock));
                    }
                }
            }
        }
        for (name, _lock) in out {
            discard(&self.dir, &name);
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
        const BOOT: &str = "boot";
        match self.dir.read(BOOT, 4096) {
            Ok(then) if then == now => return Ok(true),
            Ok(_) => {}
            Err(error) if is_missing(&error) => {}
            Err(error) => return Err(self.failed("read", BOOT)(error)),
        }
        let written = self.dir.temp(TEMP, 0o600).and_then(|mut temp| {
            temp.write_all(&now)?;
            temp.replace(&self.dir, BOOT)
        });
        written.map_err(self.failed("write", BOOT))?;
        Ok(false)
    }

    fn children(&self) -> Result<Vec<OsString>> {
        self.dir.names().map_err(Error::io("list", self.path()))
    }

    fn entries(&self) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for name in self.children()? {
            if Digest::from_hex(&name.to_string_lossy()).is_err() {
                continue;
            }
            match self.dir.stat(&name) {
                Ok(found) => entries.push(Entry {
                    bytes: bytes_in(&self.dir, &name),
                    used: found.modified,
                    name,
                }),
                Err(error) if is_missing(&error) => {}
                Err(error) => return Err(self.failed("read", &name)(error)),
            }
        }
        Ok(entries)
    }

    /// Takes an entry's name away; it is removed later, or by [`Self::sweep`].
    fn set_aside(&self, name: &OsString) -> Result<OsString> {
        let io = |error| Error::io("remove", self.path().join(name))(error);
        let (out, _) = self.dir.temp_folder(TEMP, 0o700).map_err(io)?.keep();
        // Nothing but a folder takes an empty folder's place.
        self.dir.remove_folder(&out).map_err(io)?;
        self.dir.rename(name, &self.dir, &out).map_err(io)?;
        Ok(out)
    }

    /// Takes the lock of a folder or file; `None` when somebody uses it or it is gone.
    fn lock_alone(&self, name: &Path) -> Result<Option<File>> {
        let file = match self.dir.open_to_lock(name) {
            // What is neither file nor folder is left alone.
            Err(error) if is_missing(&error) || Refusal::of(&error).is_some() => return Ok(None),
            opened => opened.map_err(self.failed("open", name))?,
        };
        let locked = try_lock(&file, FlockOperation::NonBlockingLockExclusive);
        Ok(locked.map_err(self.failed("lock", name))?.then_some(file))
    }
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

/// Whether `file` is what `name` names now.
fn is_at(file: &File, folder: &OpenFolder, name: &OsString) -> bool {
    let (Ok(file), Ok(named)) = (Found::of_file(file), folder.stat(name)) else {
        return false;
    };
    file.identity == named.identity
}

fn bytes_in(folder: &OpenFolder, name: &OsString) -> u64 {
    let Ok(opened) = folder.folder(name) else {
        return 0;
    };
    let names = opened.names().unwrap_or_default();
    let sizes = names.iter().map(|name| match opened.stat(name) {
        Ok(found) if found.is_folder() => bytes_in(&opened, name),
        Ok(found) => found.size,
        Err(_) => 0,
    });
    sizes.sum()
}

fn discard(folder: &OpenFolder, name: &OsString) {
    if let Err(error) = folder.remove_all(name) {
        // The next process that opens the spool tries again.
        let path = folder.path().join(name);
        tracing::debug!(%error, path = %path.display(), "cannot remove what is no use in the spool");
    }
}
