//! Decompressed blocks of all open squashfs files, kept while they are in use.
//!
//! A block that several threads request is decompressed by the first; the others wait. This happens in every
//! large file: the pieces of the kernel's read-ahead are not the blocks of the file.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use lru::LruCache;
use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::error::Result;

/// Memory of a block beside its content.
const OVERHEAD: usize = 128;

/// A block before compression.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) data: Vec<u8>,
    /// End of the stored block in the file.
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
    made: Condvar,
}

#[derive(Debug)]
struct Blocks {
    recent: LruCache<Key, Arc<Block>>,
    bytes: usize,
    /// The blocks that a thread is decompressing.
    making: HashSet<Key>,
}

impl BlockCache {
    /// Makes a cache of at most `limit` bytes; 64 MiB is enough for a busy tree.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            limit,
            files: AtomicU64::new(0),
            blocks: Mutex::new(Blocks {
                recent: LruCache::unbounded(),
                bytes: 0,
                making: HashSet::new(),
            }),
            made: Condvar::new(),
        })
    }

    /// The limit in bytes.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// A number for a new file.
    pub(super) fn register(&self) -> u64 {
        self.files.fetch_add(1, Ordering::Relaxed)
    }

    /// The block if it is kept; does not wait for other threads.
    pub(super) fn get(&self, key: Key) -> Option<Arc<Block>> {
        self.lock().recent.get(&key).cloned()
    }

    /// The block: the kept one, another thread's, or the result of `make`.
    pub(super) fn get_or_make(
        &self,
        key: Key,
        make: impl FnOnce() -> Result<Block>,
    ) -> Result<Arc<Block>> {
        let mut blocks = self.lock();
        loop {
            if let Some(block) = blocks.recent.get(&key) {
                return Ok(Arc::clone(block));
            }
            if blocks.making.insert(key) {
                break;
            }
            // The other thread may fail, or its block may be evicted again: then the next thread makes the
            // block.
            self.made.wait(&mut blocks);
        }
        drop(blocks);
        let _making = Making { cache: self, key };
        let block = Arc::new(make()?);
        self.put(key, &block);
        Ok(block)
    }

    fn put(&self, key: Key, block: &Arc<Block>) {
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

    /// Forgets the blocks of a closed file.
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
        // Every change of the map is one step, so a panic elsewhere leaves the map consistent.
        self.blocks.lock()
    }
}

fn cost(block: &Block) -> usize {
    block.data.capacity() + OVERHEAD
}

/// Takes a block off the list of blocks that are being made, also after a failure.
struct Making<'c> {
    cache: &'c BlockCache,
    key: Key,
}

impl Drop for Making<'_> {
    fn drop(&mut self) {
        self.cache.lock().making.remove(&self.key);
        self.cache.made.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::sync::mpsc;
    use std::thread;

    use super::*;
    use crate::error::Error;

    fn block() -> Block {
        Block {
            data: vec![7; 100],
            next: 0,
        }
    }

    #[test]
    fn a_block_is_made_once_for_all_who_wait_and_again_after_a_failure() {
        let cache = BlockCache::new(1 << 20);
        let made = AtomicUsize::new(0);
        let (fail, failing) = mpsc::channel::<()>();
        thread::scope(|scope| {
            let (begun, begins) = mpsc::channel();
            let cache = &cache;
            let first = scope.spawn(move || {
                cache.get_or_make((0, 0), || {
                    begun.send(()).unwrap();
                    failing.recv().unwrap();
                    Err(Error::invalid("block", "is broken"))
                })
            });
            begins.recv().unwrap();
            assert!(cache.get((0, 0)).is_none());
            // Another block is not waited for.
            cache.get_or_make((0, 1), || Ok(block())).unwrap();
            let others: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        cache.get_or_make((0, 0), || {
                            made.fetch_add(1, Ordering::Relaxed);
                            Ok(block())
                        })
                    })
                })
                .collect();
            fail.send(()).unwrap();
            assert!(first.join().unwrap().is_err());
            for other in others {
                assert_eq!(other.join().unwrap().unwrap().data, [7; 100]);
            }
        });
        assert_eq!(made.into_inner(), 1);
        assert!(cache.lock().making.is_empty());
    }

    #[test]
    fn what_was_used_least_recently_goes_first() {
        let cache = BlockCache::new(3 * (100 + OVERHEAD));
        for place in [0, 1, 2, 0, 3] {
            cache.get_or_make((0, place), || Ok(block())).unwrap();
        }
        let kept = [0, 1, 2, 3].map(|place| cache.get((0, place)).is_some());
        assert_eq!(kept, [true, false, true, true]);
        cache.forget(0);
        assert_eq!(cache.lock().bytes, 0);
    }
}
