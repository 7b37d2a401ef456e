//! How much of the disk exported images may take.

use std::io;
use std::path::Path;

/// Most bytes unless told otherwise.
const MOST: u64 = 10 << 30;

/// Which part of the disk unless told otherwise: one tenth.
const PART: u64 = 10;

/// The bound for a spool in `folder` when none was chosen.
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
        // A file system without blocks, as small as can be.
        assert_eq!(default_for(Path::new("/proc")).unwrap(), 0);
    }
}
