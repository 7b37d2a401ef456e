//! The names of folders that are being read.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use lru::LruCache;
use parking_lot::Mutex;

use crate::errno::Result;
use crate::tree::Tree;
use crate::tree::nodes::{Named, Node};

/// The names of a folder at its opening, or at the first read. `.` and `..` come first.
#[derive(Debug)]
pub struct Listing {
    /// Inode number of the folder.
    pub(super) number: u64,
    pub(super) node: Node,
    names: OnceLock<Vec<Named>>,
}

impl Listing {
    pub(super) fn new(number: u64, node: Node) -> Arc<Self> {
        Arc::new(Self {
            number,
            node,
            names: OnceLock::new(),
        })
    }

    /// The names, listed now unless they are known.
    pub(super) fn names(&self, tree: &Tree) -> Result<&[Named]> {
        if let Some(names) = self.known() {
            return Ok(names);
        }
        let names = self.node.operations().list(tree)?;
        Ok(self.names.get_or_init(|| names))
    }

    pub(super) fn known(&self) -> Option<&[Named]> {
        self.names.get().map(Vec::as_slice)
    }

    /// Number of names, the two dots included.
    pub(super) fn len(&self) -> usize {
        self.known().map_or(0, |names| names.len() + 2)
    }
}

/// Most names kept for folders that the kernel opens without asking.
const KEPT_NAMES: usize = 1 << 17;

/// Number of a folder and of its listing.
type ListingKey = (u64, u64);

/// The listings of folders that the kernel opens without asking; the last used ones are kept.
#[derive(Debug)]
pub(super) struct Listings {
    recent: Mutex<(LruCache<ListingKey, Arc<Listing>>, usize)>,
    last: AtomicU64,
}

impl Default for Listings {
    fn default() -> Self {
        Self {
            recent: Mutex::new((LruCache::unbounded(), 0)),
            last: AtomicU64::new(0),
        }
    }
}

impl Listings {
    /// A number for a new listing.
    pub(super) fn next(&self) -> u64 {
        // Offsets must not be negative for the kernel.
        const MOST: u64 = (1 << 30) - 1;
        self.last.fetch_add(1, Ordering::Relaxed) % MOST + 1
    }

    pub(super) fn get(&self, key: ListingKey) -> Option<Arc<Listing>> {
        self.recent.lock().0.get(&key).cloned()
    }

    pub(super) fn put(&self, key: ListingKey, listing: &Arc<Listing>) {
        let mut recent = self.recent.lock();
        let (listings, names) = &mut *recent;
        *names += listing.len();
        if let Some((_, before)) = listings.push(key, Arc::clone(listing)) {
            *names -= before.len();
        }
        while *names > KEPT_NAMES && listings.len() > 1 {
            if let Some((_, oldest)) = listings.pop_lru() {
                *names -= oldest.len();
            }
        }
    }

    pub(super) fn drop_listing(&self, key: ListingKey) {
        let mut recent = self.recent.lock();
        if let Some(listing) = recent.0.pop(&key) {
            recent.1 -= listing.len();
        }
    }
}
