//! The default size of the spool.

use std::io;
use std::path::Path;

/// Upper limit of the default.
const MOST: u64 = 10 << 30;

/// Part of the disk: one tenth.
const PART: u64 = 10;

/// The default size of a spool in `folder`.
pub(super) fn default_for(folder: &Path) -> io::Result<u64> {
    let disk = rustix::fs::statvfs(folder)?;
    let bytes = disk.f_blocks.saturating_mul(disk.f_frsize);
    Ok(MOST.min(bytes / PART))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_bounded_twice() {
        let bound = default_for(Path::new("/")).unwrap();
        assert!(bound > 0 && bound <= MOST);
        // A file system without blocks is the smallest possible.
        assert_eq!(default_for(Path::new("/proc")).unwrap(), 0);
    }
}
