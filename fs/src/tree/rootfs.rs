//! Root file systems of images, read from their squashfs files.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pcocc_core::cancel::Cancel;
use pcocc_image::Error;
use pcocc_image::store::Store;
use pcocc_image::transfer::Context;
use pcocc_layers::squashfs::{BlockCache, InodeNo, Squashfs};

use crate::errno::{Errno, errno_of};
use crate::status::Status;
use crate::tree::flight::SingleFlight;
use crate::tree::node::ImageKey;
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
    numbers: HashMap<u16, (ImageKey, Arc<OpenRootfs>)>,
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
    pub fn get(&self, number: u16) -> Result<Arc<OpenRootfs>, Errno> {
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
        store: &StoreView,
        status: &Status,
    ) -> Result<Arc<OpenRootfs>, Errno> {
        let slot = Arc::clone(self.table.lock().slots.entry(key.clone()).or_default());
        if let Some(open) = &*slot.open.lock() {
            *open.used.lock() = Instant::now();
            return Ok(Arc::clone(open));
        }
        let opening = Opening {
            key: key.clone(),
            label: store.label.clone(),
            store: Arc::clone(&store.store),
            status: status.clone(),
            slot: Arc::clone(&slot),
            table: Arc::clone(&self.table),
            cache: Arc::clone(&self.cache),
        };
        slot.opening
            .wait(&self.cancel, move |cancel| opening.run(cancel))
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

/// What opening a root file system takes.
struct Opening {
    key: ImageKey,
    label: String,
    store: Arc<dyn Store>,
    status: Status,
    slot: Arc<Slot>,
    table: Arc<Mutex<Table>>,
    cache: Arc<BlockCache>,
}

impl Opening {
    fn run(self, cancel: &Cancel) -> Result<Arc<OpenRootfs>, Errno> {
        if let Some(open) = &*self.slot.open.lock() {
            return Ok(Arc::clone(open));
        }
        let name = &self.key.name;
        let begun = self.status.when_moving(&self.label, name, "rootfs");
        let context = Context {
            progress: begun.reporter(),
            cancel: cancel.clone(),
        };
        let result = self.read(&context);
        begun.end(&result);
        let (squashfs, top) = result.map_err(|error| {
            tracing::warn!(store = %self.label, image = %name, %error, "no root file system");
            errno_of(&error)
        })?;
        let mut table = self.table.lock();
        let number = table.free_number().ok_or(Errno::NFILE)?;
        let opened = Arc::new(OpenRootfs {
            number,
            squashfs,
            top,
            lookups: AtomicU64::new(0),
            used: Mutex::new(Instant::now()),
        });
        table
            .numbers
            .insert(number, (self.key.clone(), Arc::clone(&opened)));
        *self.slot.open.lock() = Some(Arc::clone(&opened));
        Ok(opened)
    }

    fn read(&self, context: &Context) -> Result<(Squashfs, InodeNo), Error> {
        let file = self.store.root_filesystem(&self.key.name, context)?;
        let squashfs = Squashfs::open(file, Arc::clone(&self.cache))?;
        let top = squashfs
            .lookup(squashfs.root(), b"rootfs")?
            .ok_or_else(|| {
                Error::invalid(self.key.name.to_string(), "has no rootfs in its squashfs")
            })?;
        Ok((squashfs, top.inode))
    }
}

impl Table {
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
