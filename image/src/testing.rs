//! A store for tests: in memory but for its layers, and able to fail and to be slow on request.

pub mod memory;
pub mod parsers;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use parking_lot::{Mutex, MutexGuard};

use crate::error::{Error, Result};
use crate::oci::{Image, Layer};
use crate::origin::Origin;
use crate::store::{Entry, Store};
use crate::transfer::{Context, Layout, Offer, Receiver, Sink};
use pcocc_layers::Compression;
use pcocc_layers::digest::Hashing;
use pcocc_layers::{DiffId, Digest};

/// Makes an error anew for every call that shall fail.
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
    slashes: bool,
    images: Mutex<BTreeMap<String, Stored>>,
    version: AtomicU64,
    lists: AtomicU64,
    layouts: AtomicU64,
    commits: AtomicU64,
    behaviour: Mutex<Behaviour>,
}

/// A store whose names are in memory and whose layers are files in a folder; clones share it.
#[derive(Clone)]
pub struct MemoryStore(Arc<Inner>);

impl std::fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryStore")
            .field("folder", &self.0.folder)
            .finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock()
}

impl MemoryStore {
    /// An empty store with names as a repository has them; its layers go to `folder`.
    pub fn repository(folder: impl Into<PathBuf>) -> Self {
        Self::new(folder.into(), false)
    }

    /// An empty store with names as a docker daemon has them; its layers go to `folder`.
    pub fn docker(folder: impl Into<PathBuf>) -> Self {
        Self::new(folder.into(), true)
    }

    fn new(folder: PathBuf, slashes: bool) -> Self {
        Self(Arc::new(Inner {
            folder,
            slashes,
            images: Mutex::default(),
            version: AtomicU64::new(1),
            lists: AtomicU64::new(0),
            layouts: AtomicU64::new(0),
            commits: AtomicU64::new(0),
            behaviour: Mutex::default(),
        }))
    }

    /// Puts an image of plain layers into the store, their content given.
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
        lock(&self.0.images).get(name).map(|s| s.image.clone())
    }

    /// All names in order.
    pub fn names(&self) -> Vec<String> {
        lock(&self.0.images).keys().cloned().collect()
    }

    /// How often the store was listed, its images were opened, and images were committed to it.
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
        lock(&self.0.behaviour).commit_fault = fault;
    }

    /// Makes every listing fail, as when a daemon is gone, or succeed again.
    pub fn fail_lists(&self, fault: Option<Fault>) {
        lock(&self.0.behaviour).list_fault = fault;
    }

    /// Makes every commit take this long; cancelling it still works.
    pub fn delay_commits(&self, delay: Duration) {
        lock(&self.0.behaviour).commit_delay = delay;
    }

    fn blob(&self, digest: Digest) -> PathBuf {
        self.0.folder.join(digest.hex())
    }

    fn publish(&self, name: &str, image: &Image) -> Result<()> {
        let mut images = lock(&self.0.images);
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
        lock(&self.0.images)
            .get(name)
            .cloned()
            .ok_or_else(|| Error::NotFound(format!("image {name}")))
    }
}

/// Makes an image of plain layers.
pub fn image_of(layers: &[&[u8]]) -> Result<Image> {
    let diff_ids: Vec<String> = layers
        .iter()
        .map(|content| Digest::of(content).to_string())
        .collect();
    let config = serde_json::json!({
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    let layers = layers
        .iter()
        .map(|content| Layer {
            digest: Digest::of(content),
            size: content.len() as u64,
            compression: Compression::None,
            diff_id: DiffId(Digest::of(content)),
        })
        .collect();
    Image::assemble(config.to_string().into_bytes(), layers)
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

    fn layer_file(&self, layer: &Layer) -> Option<PathBuf> {
        Some(self.folder.join(layer.digest.hex()))
    }
}

impl Store for MemoryStore {
    fn list(&self) -> Result<Vec<Entry>> {
        self.0.lists.fetch_add(1, Ordering::Relaxed);
        if let Some(fault) = &lock(&self.0.behaviour).list_fault {
            return Err(fault());
        }
        Ok(lock(&self.0.images)
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
        if let Some(fault) = &lock(&self.0.behaviour).list_fault {
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
        match lock(&self.0.images).remove(name) {
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
        let images = lock(&self.store.0.images);
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
        let (Some((digest, size)), Some(diff_id)) = (offer.blob, offer.diff_id) else {
            return Err(Error::invalid("layer", "comes without its digest"));
        };
        let path = self.store.blob(digest);
        if !path.exists() {
            let temp = tempfile::NamedTempFile::new_in(&self.store.0.folder)
                .map_err(Error::io("create a file in", &self.store.0.folder))?;
            let mut hashing = Hashing::new((offer.open)()?);
            io::copy(&mut hashing, &mut temp.as_file()).map_err(Error::io("write", &path))?;
            let (found, length, _) = hashing.finish();
            if (found, length) != (digest, size) {
                return Err(Error::Corrupt {
                    expected: digest,
                    found: format!("{found} of {length} bytes"),
                });
            }
            temp.persist(&path)
                .map_err(|error| Error::io("rename to", Path::new(&path))(error.error))?;
            self.new.push(path);
        }
        Ok(Layer {
            digest,
            size,
            compression: offer.compression,
            diff_id,
        })
    }

    fn commit(mut self: Box<Self>, image: &Image, context: &Context) -> Result<()> {
        let delay = lock(&self.store.0.behaviour).commit_delay;
        let until = Instant::now() + delay;
        while Instant::now() < until {
            context.check()?;
            std::thread::sleep(Duration::from_millis(5));
        }
        if let Some(fault) = &lock(&self.store.0.behaviour).commit_fault {
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
