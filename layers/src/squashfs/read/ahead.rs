//! Reads ahead in a squashfs file that is read in random order.
//!
//! Compressed blocks are small and requested one by one, by random reads and by walks over a tree: the files
//! lie in the order of the layers' archives. The kernel recognises only sequential reads, so it would go to the
//! disk for each block. Therefore the second read in a region of the file requests the whole region. A few
//! scattered reads waste little; many soon find everything in memory.

use std::fs::File;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU8, Ordering};

use rustix::fs::{Advice, fadvise};

/// Length of a region, in bytes, as a power of two.
const REGION_BITS: u32 = 22;

/// Length of one request to the kernel: longer ones are cut to the read-ahead of the disk.
const STEP: u64 = 128 << 10;

/// Most regions that are tracked: the first 256 GB.
const MOST: u64 = 1 << 16;

/// How often each region of a file was read, up to two.
#[derive(Debug)]
pub(super) struct ReadAhead {
    end: u64,
    reads: Box<[AtomicU8]>,
}

impl ReadAhead {
    /// State for a file of `end` bytes.
    pub(super) fn new(end: u64) -> Self {
        let regions = end.div_ceil(1 << REGION_BITS).min(MOST);
        Self {
            end,
            reads: (0..regions).map(|_| AtomicU8::new(0)).collect(),
        }
    }

    /// Notes a read at `position`.
    pub(super) fn touch(&self, file: &File, position: u64) {
        let Some(start) = self.due(position) else {
            return;
        };
        let end = self.end.min(start.saturating_add(1 << REGION_BITS));
        for place in (start..end).step_by(STEP as usize) {
            let length = NonZeroU64::new(STEP.min(end - place));
            if let Err(error) = fadvise(file, place, length, Advice::WillNeed) {
                tracing::debug!(%error, "no read-ahead");
                return;
            }
        }
    }

    /// The start of the region, if the region is to be read now.
    fn due(&self, position: u64) -> Option<u64> {
        let region = position >> REGION_BITS;
        let reads = self.reads.get(usize::try_from(region).ok()?)?;
        // Most reads come later and need not write.
        if reads.load(Ordering::Relaxed) >= 2 {
            return None;
        }
        (reads.fetch_add(1, Ordering::Relaxed) == 1).then_some(region << REGION_BITS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_read_in_a_region_asks_for_it_once() {
        let region = 1 << REGION_BITS;
        let ahead = ReadAhead::new(3 * region + 5);
        let due: Vec<_> = [0, 2 * region, region - 1, 1, 3 * region, 3 * region + 4, 0]
            .map(|position| ahead.due(position))
            .into();
        let last = Some(3 * region);
        assert_eq!(due, [None, None, Some(0), None, None, last, None]);
        assert_eq!(ahead.due(4 * region), None);
        assert_eq!(ReadAhead::new(u64::MAX).reads.len() as u64, MOST);
    }
}
