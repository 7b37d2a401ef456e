//! Root file systems of images, read from their squashfs files.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pcocc_core::cancel::Cancel;
use pcocc_image::Error;
use pcocc_image::store::Store;
use pcocc_image::transfer::Context;
use pcocc_layers::squashfs::{BlockCache, InodeNo, Squashfs};

use crate::errno::{Errno, Result};
use crate::status::Status;
use crate::tree::flight::SingleFlight;
use crate::tree::image_key::ImageKey;
use crate::tree::stores::StoreView;

/// Bytes of decompressed blocks kept for all of them. The kernel keeps what was read of them besides.
const CACHE: usize = 32 << 20;

/// How long one nobody uses stays open.
const IDLE: Duration = Duration::from_secs(60);

/// An open root file system.
#[derive(Debug)]
pub struct OpenRootfs {
    /// Its number, part of its inode numbers.
    pub number: u16,
    /// The reader.
    pub squashfs: Squashfs,
    /// The folder `rootfs` of the squashfs file.
    pub top: InodeNo,
    lookups: AtomicU64,
    used: Mutex<Instant>,
}

impl OpenRootfs {
    /// The kernel was told of an inode in it.
    pub fn remember(&self) {
        self.lookups.fetch_add(1, Ordering::Relaxed);
    }
}

/// An image's place among the open ones.
#[derive(Debug, Default)]
struct Slot {
    open: Mutex<Option<Arc<OpenRootfs>>>,
    opening: SingleFlight<Arc<OpenRootfs>>,
}

#[derive(Debug, Default)]
struct Table {
    slots: HashMap<ImageKey, Arc<Slot>>,
    numbers: BTreeMap<u16, (ImageKey, Arc<OpenRootfs>)>,
    next: u16,
}

/// The open root file systems.
#[derive(Debug)]
pub struct RootFilesystems {
    table: Arc<Mutex<Table>>,
    cache: Arc<BlockCache>,
    cancel: Cancel,
}

impl RootFilesystems {
    /// Starts with none; raising `cancel` ends what is being made.
    pub fn new(cancel: Cancel) -> Self {
        Self {
            table: Arc::default(),
            cache: BlockCache::new(CACHE),
            cancel,
        }
    }

    /// The one with this number.
    pub fn get(&self, number: u16) -> Result<Arc<OpenRootfs>> {
        self.table
            .lock()
            .numbers
            .get(&number)
            .map(|(_, open)| Arc::clone(open))
            .ok_or(Errno::STALE)
    }

    /// The one of an image when it is open already. Never waits.
    pub fn peek(&self, key: &ImageKey) -> Option<Arc<OpenRootfs>> {
        let slot = Arc::clone(self.table.lock().slots.get(key)?);
        slot.open.lock().clone()
    }

    /// Opens an image's root file system, made first when it is missing.
    pub fn open(
        &self,
        key: &ImageKey,
        store: &Arc<StoreView>,
        status: &Status,
    ) -> Result<Arc<OpenRootfs>> {
        let slot = Arc::clone(self.table.lock().slots.entry(key.clone()).or_default());
        if let Some(open) = &*slot.open.lock() {
            *open.used.lock() = Instant::now();
            return Ok(Arc::clone(open));
        }
        let (key, store, status) = (key.clone(), Arc::clone(store), status.clone());
        let (opening, table) = (Arc::clone(&slot), Arc::clone(&self.table));
        let cache = Arc::clone(&self.cache);
        slot.opening.wait(&self.cancel, move |cancel| {
            if let Some(open) = &*opening.open.lock() {
                return Ok(Arc::clone(open));
            }
            let (squashfs, top) =
                store.transfer(&key.name, "rootfs", &status, cancel, |context| {
                    read(&*store.store, &key.name, cache, context)
                })?;
            let opened = table.lock().add(key, squashfs, top)?;
            *opening.open.lock() = Some(Arc::clone(&opened));
            Ok(opened)
        })
    }

    /// The kernel dropped `count` references to inodes of this one.
    pub fn forget(&self, number: u16, count: u64) {
        if let Ok(open) = self.get(number) {
            let _ = open
                .lookups
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| {
                    Some(n.saturating_sub(count))
                });
        }
    }

    /// How often the kernel was told of inodes in them, less what it forgot.
    pub fn lookups(&self) -> u64 {
        let table = self.table.lock();
        let open = table.numbers.values();
        open.map(|(_, open)| open.lookups.load(Ordering::Relaxed))
            .sum()
    }

    /// Closes those the kernel has forgotten and nobody used lately.
    pub fn collect(&self) {
        let mut table = self.table.lock();
        let idle: Vec<(u16, ImageKey)> = table
            .numbers
            .iter()
            .filter(|(_, (_, open))| {
                open.lookups.load(Ordering::Relaxed) == 0
                    && open.used.lock().elapsed() > IDLE
                    // One reference here, one in its slot.
                    && Arc::strong_count(open) <= 2
            })
            .map(|(number, (key, _))| (*number, key.clone()))
            .collect();
        for (number, key) in idle {
            table.numbers.remove(&number);
            table.slots.remove(&key);
        }
    }
}

/// Opens the squashfs of an image, and finds the folder `rootfs` in it.
fn read(
    store: &dyn Store,
    name: &str,
    cache: Arc<BlockCache>,
    context: &Context,
) -> Result<(Squashfs, InodeNo), Error> {
    let squashfs = Squashfs::open(store.root_filesystem(name, context)?, cache)?;
    let top = squashfs.lookup(squashfs.root(), b"rootfs")?;
    let top = top.ok_or_else(|| Error::invalid(name, "has no rootfs in its squashfs"))?;
    Ok((squashfs, top.inode))
}

impl Table {
    fn add(&mut self, key: ImageKey, squashfs: Squashfs, top: InodeNo) -> Result<Arc<OpenRootfs>> {
        let number = self.free_number().ok_or(Errno::NFILE)?;
        let opened = Arc::new(OpenRootfs {
            number,
            squashfs,
            top,
            lookups: AtomicU64::new(0),
            used: Mutex::new(Instant::now()),
        });
        self.numbers.insert(number, (key, Arc::clone(&opened)));
        Ok(opened)
    }

    /// A number below 2^14 (the rest of the inode number is taken) that none has.
    fn free_number(&mut self) -> Option<u16> {
        const NUMBERS: u16 = 1 << 14;
        for _ in 0..NUMBERS {
            self.next = (self.next + 1) % NUMBERS;
            if !self.numbers.contains_key(&self.next) {
                return Some(self.next);
            }
        }
        None
    }
}
