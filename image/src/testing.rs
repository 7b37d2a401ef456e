//! A store for tests: in memory but for its layers, able to fail and to be slow on request. The store verifies
//! every layer.

pub mod foreign;
pub mod memory;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use tempfile::{NamedTempFile, TempDir};

use crate::error::{Error, Result};
use crate::oci::{Image, Layer};
use crate::origin::Origin;
use crate::store::{Entry, Store};
use crate::stream;
use crate::transfer::{Context, Layout, Offer, Receiver, Sink};
use pcocc_layers::digest::Hashing;
use pcocc_layers::{Compression, DiffId, Digest};

/// Makes a new error for every call that is to fail.
pub type Fault = Box<dyn Fn() -> Error + Send + Sync>;

#[derive(Clone)]
struct Stored {
    image: Image,
    created: SystemTime,
}

#[derive(Default)]
struct Behaviour {
    commit_fault: Option<Fault>,
    list_fault: Option<Fault>,
    commit_delay: Duration,
}

struct Inner {
    folder: PathBuf,
    /// Deletes the folder with the store.
    _temporary: Option<TempDir>,
    slashes: bool,
    images: Mutex<BTreeMap<String, Stored>>,
    version: AtomicU64,
    lists: AtomicU64,
    layouts: AtomicU64,
    commits: AtomicU64,
    behaviour: Mutex<Behaviour>,
}

/// A store whose names are in memory and whose layers are files in a folder. Clones share their content.
#[derive(Clone)]
pub struct MemoryStore(Arc<Inner>);

impl std::fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryStore")
            .field("folder", &self.0.folder)
            .finish_non_exhaustive()
    }
}

impl MemoryStore {
    /// An empty store with the names of a repository; its layers go to `folder`.
    pub fn repository(folder: impl Into<PathBuf>) -> Self {
        Self::new(folder.into(), false, None)
    }

    /// As [`MemoryStore::repository`], in a temporary folder that is deleted with the store.
    pub fn temporary() -> Result<Self> {
        let folder = TempDir::new().map_err(Error::io("create", "temporary folder"))?;
        Ok(Self::new(folder.path().to_owned(), false, Some(folder)))
    }

    /// An empty store with the names of a docker daemon; its layers go to `folder`.
    pub fn docker(folder: impl Into<PathBuf>) -> Self {
        Self::new(folder.into(), true, None)
    }

    fn new(folder: PathBuf, slashes: bool, temporary: Option<TempDir>) -> Self {
        Self(Arc::new(Inner {
            folder,
            _temporary: temporary,
            slashes,
            images: Mutex::default(),
            version: AtomicU64::new(1),
            lists: AtomicU64::new(0),
            layouts: AtomicU64::new(0),
            commits: AtomicU64::new(0),
            behaviour: Mutex::default(),
        }))
    }

    /// Puts an image into the store; `layers` are the contents of its plain layers.
    pub fn put(&self, name: &str, layers: &[&[u8]]) -> Result<Image> {
        let image = image_of(layers)?;
        for content in layers {
            let path = self.blob(Digest::of(content));
            std::fs::write(&path, content).map_err(Error::io("write", &path))?;
        }
        self.publish(name, &image)?;
        Ok(image)
    }

    /// The image of this name.
    pub fn get(&self, name: &str) -> Option<Image> {
        self.0.images.lock().get(name).map(|s| s.image.clone())
    }

    /// All names in order.
    pub fn names(&self) -> Vec<String> {
        self.0.images.lock().keys().cloned().collect()
    }

    /// How often the store was listed, how often its images were opened, how often images were committed.
    pub fn counts(&self) -> (u64, u64, u64) {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (
            count(&self.0.lists),
            count(&self.0.layouts),
            count(&self.0.commits),
        )
    }

    /// Makes every commit fail, or succeed again.
    pub fn fail_commits(&self, fault: Option<Fault>) {
        self.0.behaviour.lock().commit_fault = fault;
    }

    /// Makes every listing fail, as when a daemon is gone, or succeed again.
    pub fn fail_lists(&self, fault: Option<Fault>) {
        self.0.behaviour.lock().list_fault = fault;
    }

    /// Makes every commit take this long; cancelling it still works.
    pub fn delay_commits(&self, delay: Duration) {
        self.0.behaviour.lock().commit_delay = delay;
    }

    fn blob(&self, digest: Digest) -> PathBuf {
        self.0.folder.join(digest.hex())
    }

    fn publish(&self, name: &str, image: &Image) -> Result<()> {
        let mut images = self.0.images.lock();
        if images.contains_key(name) {
            return Err(Error::Exists(name.to_owned()));
        }
        images.insert(
            name.to_owned(),
            Stored {
                image: image.clone(),
                created: SystemTime::now(),
            },
        );
        self.0.version.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn find(&self, name: &str) -> Result<Stored> {
        self.0
            .images
            .lock()
            .get(name)
            .cloned()
            .ok_or_else(|| Error::NotFound(format!("image {name}")))
    }
}

/// Makes an image of plain layers.
pub fn image_of(layers: &[&[u8]]) -> Result<Image> {
    let layers: Vec<Layer> = layers
        .iter()
        .map(|content| Layer {
            digest: Digest::of(content),
            size: content.len() as u64,
            compression: Compression::None,
            diff_id: DiffId(Digest::of(content)),
        })
        .collect();
    Image::assemble(memory::config(&layers), layers)
}

struct StoredLayout {
    image: Image,
    folder: PathBuf,
}

impl Layout for StoredLayout {
    fn image(&self, _: &Context) -> Result<Image> {
        Ok(self.image.clone())
    }

    fn open_layer<'a>(&'a self, layer: &Layer) -> Result<Box<dyn Read + Send + 'a>> {
        let path = self.folder.join(layer.digest.hex());
        Ok(Box::new(
            File::open(&path).map_err(Error::io("open", &path))?,
        ))
    }

    fn layer_file(&self, layer: &Layer) -> Option<File> {
        File::open(self.folder.join(layer.digest.hex())).ok()
    }
}

impl Store for MemoryStore {
    fn list(&self) -> Result<Vec<Entry>> {
        self.0.lists.fetch_add(1, Ordering::Relaxed);
        if let Some(fault) = &self.0.behaviour.lock().list_fault {
            return Err(fault());
        }
        Ok(self
            .0
            .images
            .lock()
            .iter()
            .map(|(name, stored)| Entry {
                name: name.clone(),
                id: Some(stored.image.id()),
                size: stored.image.blobs().iter().map(|(_, size)| size).sum(),
                created: stored.created,
            })
            .collect())
    }

    fn version(&self) -> Result<u64> {
        if let Some(fault) = &self.0.behaviour.lock().list_fault {
            return Err(fault());
        }
        Ok(self.0.version.load(Ordering::Relaxed))
    }

    fn check_name(&self, name: &str) -> Result<()> {
        let legal = |c: char| {
            c.is_ascii_alphanumeric()
                || "_.-".contains(c)
                || (self.0.slashes && (c == ':' || c == '/'))
        };
        if name.is_empty() || !name.chars().all(legal) {
            return Err(Error::invalid(
                format!("image name {name:?}"),
                "has characters other than letters, digits, '_', '.' and '-'",
            ));
        }
        Ok(())
    }

    fn layout(&self, name: &str, context: &Context) -> Result<Arc<dyn Layout>> {
        context.check()?;
        self.0.layouts.fetch_add(1, Ordering::Relaxed);
        Ok(Arc::new(StoredLayout {
            image: self.find(name)?.image,
            folder: self.0.folder.clone(),
        }))
    }

    fn root_filesystem(&self, name: &str, _: &Context) -> Result<Arc<File>> {
        Err(Error::NotFound(format!("root file system of {name}")))
    }

    fn sink(&self, name: &str, _: Option<Origin>) -> Result<Box<dyn Sink>> {
        self.check_name(name)?;
        Ok(Box::new(MemorySink {
            store: self.clone(),
            name: name.to_owned(),
        }))
    }

    fn rename(&self, from: &str, to: &str) -> Result<()> {
        let stored = self.find(from)?;
        self.publish(to, &stored.image)?;
        self.remove(from)
    }

    fn remove(&self, name: &str) -> Result<()> {
        match self.0.images.lock().remove(name) {
            Some(_) => {
                self.0.version.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
            None => Err(Error::NotFound(format!("image {name}"))),
        }
    }
}

struct MemorySink {
    store: MemoryStore,
    name: String,
}

impl Sink for MemorySink {
    fn open(&self, context: &Context) -> Result<Box<dyn Receiver + '_>> {
        context.check()?;
        if self.store.get(&self.name).is_some() {
            return Err(Error::Exists(self.name.clone()));
        }
        Ok(Box::new(MemoryReceiver {
            store: self.store.clone(),
            name: self.name.clone(),
            new: Vec::new(),
        }))
    }
}

struct MemoryReceiver {
    store: MemoryStore,
    name: String,
    new: Vec<PathBuf>,
}

impl MemoryReceiver {
    fn has(&self, digest: Digest) -> bool {
        self.store.blob(digest).exists()
    }
}

impl Receiver for MemoryReceiver {
    fn recall(&mut self, id: Digest) -> Result<Option<Image>> {
        let images = self.store.0.images.lock();
        Ok(images
            .values()
            .find(|stored| stored.image.id() == id)
            .map(|stored| stored.image.clone()))
    }

    fn holds(&mut self, image: &Image) -> Result<bool> {
        Ok(image.layers().iter().all(|layer| self.has(layer.digest)))
    }

    fn has_layer(&mut self, diff_id: DiffId) -> Result<bool> {
        Ok(self.has(diff_id.0))
    }

    fn layer(&mut self, offer: &Offer<'_>, context: &Context) -> Result<Layer> {
        context.check()?;
        let layer = |digest, size, diff_id| Layer {
            digest,
            size,
            compression: offer.compression,
            diff_id,
        };
        if let (Some((digest, size)), Some(diff_id)) = (offer.blob, offer.diff_id)
            && self.has(digest)
        {
            return Ok(layer(digest, size, diff_id));
        }
        let folder = &self.store.0.folder;
        let mut temp =
            NamedTempFile::new_in(folder).map_err(Error::io("create a file in", folder))?;
        let (digest, size) = stream::copy(
            &mut (offer.open)()?,
            &mut temp,
            "blob",
            offer.expected(),
            context,
        )?;
        let diff_id = diff_id_of(temp.path(), offer.compression)?;
        if offer.diff_id.is_some_and(|expected| expected != diff_id) {
            return Err(Error::Corrupt {
                expected: digest,
                found: diff_id.to_string(),
            });
        }
        let path = self.store.blob(digest);
        temp.persist(&path)
            .map_err(|error| Error::io("rename to", &path)(error.error))?;
        self.new.push(path);
        Ok(layer(digest, size, diff_id))
    }

    fn commit(mut self: Box<Self>, image: &Image, context: &Context) -> Result<()> {
        let delay = self.store.0.behaviour.lock().commit_delay;
        let until = Instant::now() + delay;
        while Instant::now() < until {
            context.check()?;
            std::thread::sleep(Duration::from_millis(5));
        }
        if let Some(fault) = &self.store.0.behaviour.lock().commit_fault {
            return Err(fault());
        }
        self.store.publish(&self.name, image)?;
        self.store.0.commits.fetch_add(1, Ordering::Relaxed);
        self.new.clear();
        Ok(())
    }
}

impl Drop for MemoryReceiver {
    fn drop(&mut self) {
        for path in &self.new {
            // A leftover layer in a test's folder harms nobody.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Digest of the plain tar in the blob at `path`.
fn diff_id_of(path: &Path, compression: Compression) -> Result<DiffId> {
    let blob = File::open(path).map_err(Error::io("open", path))?;
    let mut plain = Hashing::new(stream::inflate(Box::new(blob), compression)?);
    io::copy(&mut plain, &mut io::sink()).map_err(Error::io("inflate", path))?;
    Ok(DiffId(plain.finish().0))
}
