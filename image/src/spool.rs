//! Exports of a daemon's images on disk, by image ID and bounded in bytes.
//!
//! Disk layout, in a folder on a local file system that only its user can enter:
//!
//! ```text
//! <image ID, hex>/       an OCI image layout with the one image, rootfs.squashfs and its table of contents
//! <image ID, hex>.export locked by the process that exports this image now
//! tmp-…/                 an image in the making or on its way out, locked meanwhile
//! boot                   the boot the spool was filled in: after another it starts empty
//! lock                   held for moments, while folders come, go or get locked
//! ```
//!
//! Data path: [`Spool::get`] → the image if it is there → otherwise this process waits for its turn to export
//! it → [`transfer::copy`] into a `tmp-` folder → rename → the least recently used images are removed. Layers of other
//! images are linked, and what they are in a squashfs file is copied from there.
//!
//! A user of an image holds a shared flock on its folder, or on the squashfs in it, so that no process removes
//! the image. Locks end with their process, so the remains of a killed process are recognised. Nothing is
//! flushed to disk: the spool is emptied after the next boot, because a power failure may have spoiled it.

mod folder;
mod receive;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use folder::Folder;
use parking_lot::Mutex;
use pcocc_core::beneath::{OpenFolder, Refusal};
use receive::SpoolSink;

use crate::error::{Error, Result};
use crate::ingest::Options;
use crate::layout::LayoutFolder;
use crate::oci::{Image, Layer};
use crate::transfer::{self, Context, Layout, Source};
use pcocc_layers::Digest;

/// The squashfs file of an entry.
const ROOTFS: &str = "rootfs.squashfs";

/// The table of contents of this file.
const TOC: &str = "rootfs.toc";

/// The folder of an entry's blobs.
const BLOBS: &str = "blobs/sha256";

/// A folder of exported images, shared by any number of processes of one machine.
#[derive(Debug)]
pub struct Spool {
    bounded: Arc<Bounded>,
    options: Options,
    open: Mutex<HashMap<Digest, Weak<SpoolImage>>>,
}

/// The spool's folder with its bound.
#[derive(Debug)]
struct Bounded {
    folder: Folder,
    max_bytes: u64,
    /// More bytes than allowed are kept, because images are in use.
    is_over: AtomicBool,
}

impl Bounded {
    fn evict(&self) -> Result<()> {
        let left = self.folder.evict(self.max_bytes)?.left;
        self.is_over.store(left > self.max_bytes, Ordering::Release);
        Ok(())
    }
}

impl Spool {
    /// Opens the spool in `dir`, made if missing. If more than `max_bytes` are kept, unused images are removed,
    /// the least recently used first.
    pub fn open(dir: PathBuf, max_bytes: u64) -> Result<Self> {
        let bounded = Bounded {
            folder: Folder::open(dir)?,
            max_bytes,
            is_over: AtomicBool::new(false),
        };
        bounded.evict()?;
        Ok(Self {
            bounded: Arc::new(bounded),
            options: Options::default(),
            open: Mutex::default(),
        })
    }

    /// The image with this ID. An image that the spool lacks is copied from `source` first, once, however many
    /// callers ask for it at the same time.
    pub fn get(
        &self,
        id: Digest,
        source: &dyn Source,
        context: &Context,
    ) -> Result<Arc<SpoolImage>> {
        if let Some(image) = self.present(id)? {
            return Ok(image);
        }
        let folder = &self.bounded.folder;
        let _turn = folder
            .turn(id, context)
            .map_err(|error| self.explain(error))?;
        // The previous holder of the turn may have exported the image.
        if let Some(image) = self.present(id)? {
            return Ok(image);
        }
        context.progress.stage("Exporting from the docker daemon");
        let image = match self.export(id, source, context) {
            // A full disk: remove the unused images and try once more.
            Err(error) if is_full(&error) && folder.evict(0)?.freed > 0 => {
                context
                    .progress
                    .stage("Trying again with more room in the spool");
                self.export(id, source, context)
            }
            result => result,
        };
        let image = image.map_err(|error| self.explain(error))?;
        self.bounded.evict()?;
        Ok(image)
    }

    /// Turns the error of a full disk into an error that names the spool.
    fn explain(&self, error: Error) -> Error {
        match error {
            Error::Io { source, .. } if is_full_disk(&source) => Error::SpoolFull {
                folder: self.bounded.folder.path().to_owned(),
                source,
            },
            error => error,
        }
    }

    /// The image, if the spool has it.
    fn present(&self, id: Digest) -> Result<Option<Arc<SpoolImage>>> {
        let mut open = self.open.lock();
        if let Some(image) = open.get(&id).and_then(Weak::upgrade) {
            self.bounded.folder.touch(id);
            return Ok(Some(image));
        }
        let folder = &self.bounded.folder;
        let lock = match folder.lock_entry(id) {
            Ok(Some(lock)) => lock,
            Ok(None) => return Ok(None),
            // A link, or whatever else is no folder.
            Err(Error::Io { source, .. }) if Refusal::of(&source).is_some() => {
                folder.remove(id)?;
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let loaded = folder
            .entry(id)
            .and_then(|entry| SpoolImage::load(entry, lock, &self.bounded));
        match loaded {
            Ok(image) => {
                let image = Arc::new(image);
                open.retain(|_, image| image.strong_count() > 0);
                open.insert(id, Arc::downgrade(&image));
                Ok(Some(image))
            }
            Err(error) => {
                tracing::debug!(%error, %id, "an image of the spool is broken and goes");
                folder.remove(id)?;
                Ok(None)
            }
        }
    }

    fn export(
        &self,
        id: Digest,
        source: &dyn Source,
        context: &Context,
    ) -> Result<Arc<SpoolImage>> {
        let folder = &self.bounded.folder;
        let temp = folder.temp()?;
        let sink = SpoolSink::new(temp.folder().clone(), folder, self.options)?;
        transfer::copy(source, &sink, context)?;
        context.check()?;
        drop(sink);
        // The lock keeps the entry until the image is opened.
        let _lock = folder.publish(temp, id)?;
        self.present(id)?
            .ok_or_else(|| Error::NotFound(format!("image {id}, just exported into the spool,")))
    }
}

fn is_full(error: &Error) -> bool {
    matches!(error, Error::Io { source, .. } if is_full_disk(source))
}

fn is_full_disk(error: &io::Error) -> bool {
    let full = [rustix::io::Errno::NOSPC, rustix::io::Errno::DQUOT];
    full.iter()
        .any(|full| error.raw_os_error() == Some(full.raw_os_error()))
}

/// An image of the spool, on disk at least until this value is dropped. Every layer is a local file.
#[derive(Debug)]
pub struct SpoolImage {
    folder: LayoutFolder,
    image: Image,
    rootfs: Arc<File>,
    _lock: File,
    // Fields are dropped in order: this one acts when the locks are released.
    _shrink: ShrinkOnDrop,
}

/// Removes the excess when an image is not in use any more.
#[derive(Debug)]
struct ShrinkOnDrop(Arc<Bounded>);

impl Drop for ShrinkOnDrop {
    fn drop(&mut self) {
        if !self.0.is_over.load(Ordering::Acquire) {
            return;
        }
        // The removal takes time that the user of an image need not wait for.
        let spool = Arc::clone(&self.0);
        let spawned = std::thread::Builder::new().spawn(move || {
            if let Err(error) = spool.evict() {
                tracing::debug!(%error, "cannot make the spool smaller");
            }
        });
        if let Err(error) = spawned {
            tracing::debug!(%error, "the spool stays larger until the next export");
        }
    }
}

impl SpoolImage {
    fn load(entry: OpenFolder, lock: File, spool: &Arc<Bounded>) -> Result<Self> {
        let folder = LayoutFolder::inside(entry.clone())?;
        let image = folder.image(&Context::silent())?;
        for layer in image.layers() {
            if folder.layer_file(layer).is_none() {
                return Err(Error::NotFound(format!("blob {}", layer.digest)));
            }
        }
        let path = entry.path().join(ROOTFS);
        let rootfs = entry.open_file(ROOTFS).map_err(Error::io("open", &path))?;
        folder::keep(&rootfs).map_err(Error::io("lock", &path))?;
        Ok(Self {
            rootfs: Arc::new(rootfs),
            folder,
            image,
            _lock: lock,
            _shrink: ShrinkOnDrop(Arc::clone(spool)),
        })
    }

    /// The image's root filesystem as squashfs, `config.json` and `rootfs/` inside.
    pub fn root_filesystem(&self) -> Arc<File> {
        Arc::clone(&self.rootfs)
    }
}

impl Layout for SpoolImage {
    fn image(&self, _context: &Context) -> Result<Image> {
        Ok(self.image.clone())
    }

    fn open_layer<'a>(&'a self, layer: &Layer) -> Result<Box<dyn Read + Send + 'a>> {
        self.folder.open_layer(layer)
    }

    fn layer_file(&self, layer: &Layer) -> Option<File> {
        self.folder.layer_file(layer)
    }
}

/// Whether the file or folder is simply not there.
fn is_missing(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}
