//! Decompressed blocks of all open squashfs files, kept while they are in use.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lru::LruCache;

/// What a block costs beside its content.
const OVERHEAD: usize = 128;

/// A block as it was before compression.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) data: Vec<u8>,
    /// Where the stored block ends in the file.
    pub(super) next: u64,
}

/// A squashfs file's number and a block's position in it.
type Key = (u64, u64);

/// Decompressed blocks of all open squashfs files, bounded in bytes.
#[derive(Debug)]
pub struct BlockCache {
    limit: usize,
    files: AtomicU64,
    blocks: Mutex<Blocks>,
}

#[derive(Debug)]
struct Blocks {
    recent: LruCache<Key, Arc<Block>>,
    bytes: usize,
}

impl BlockCache {
    /// Makes a cache that keeps at most `limit` bytes; 64 MiB serves a busy tree well.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            limit,
            files: AtomicU64::new(0),
            blocks: Mutex::new(Blocks {
                recent: LruCache::unbounded(),
                bytes: 0,
            }),
        })
    }

    /// The limit in bytes.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// A number for one more file.
    pub(super) fn register(&self) -> u64 {
        self.files.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn get(&self, key: Key) -> Option<Arc<Block>> {
        self.lock().recent.get(&key).cloned()
    }

    pub(super) fn put(&self, key: Key, block: &Arc<Block>) {
        let mut blocks = self.lock();
        blocks.bytes += cost(block);
        if let Some((_, previous)) = blocks.recent.push(key, Arc::clone(block)) {
            blocks.bytes -= cost(&previous);
        }
        while blocks.bytes > self.limit {
            match blocks.recent.pop_lru() {
                Some((_, oldest)) => blocks.bytes -= cost(&oldest),
                None => break,
            }
        }
    }

    /// Forgets the blocks of a file that was closed.
    pub(super) fn forget(&self, file: u64) {
        let mut blocks = self.lock();
        let keys: Vec<Key> = blocks
            .recent
            .iter()
            .map(|(key, _)| *key)
            .filter(|key| key.0 == file)
            .collect();
        for key in keys {
            if let Some(block) = blocks.recent.pop(&key) {
                blocks.bytes -= cost(&block);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Blocks> {
        // A panic elsewhere leaves the map whole: every change is made in one go.
        self.blocks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn cost(block: &Block) -> usize {
    block.data.capacity() + OVERHEAD
}
