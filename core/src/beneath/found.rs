//! What lstat(2) says of a name below a folder.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{FileType, Stat};

/// A file, folder, link or whatever else has a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    kind: FileType,
    /// Size in bytes.
    pub size: u64,
    /// When its content changed.
    pub modified: SystemTime,
    /// When its content, names or rights changed.
    pub changed: SystemTime,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Permission bits.
    pub mode: u32,
    /// Number of its names.
    pub links: u64,
    /// File system and number on it: equal for two names of one file.
    pub identity: (u64, u64),
}

#[expect(
    clippy::unnecessary_cast,
    reason = "the width of the fields differs between machines"
)]
impl From<Stat> for Found {
    fn from(stat: Stat) -> Self {
        Self {
            kind: FileType::from_raw_mode(stat.st_mode),
            size: u64::try_from(stat.st_size).unwrap_or(0),
            modified: time(stat.st_mtime as i64, stat.st_mtime_nsec as u64),
            changed: time(stat.st_ctime as i64, stat.st_ctime_nsec as u64),
            uid: stat.st_uid,
            gid: stat.st_gid,
            mode: stat.st_mode & 0o7777,
            links: stat.st_nlink as u64,
            identity: (stat.st_dev as u64, stat.st_ino as u64),
        }
    }
}

impl Found {
    /// Whether it is a regular file.
    pub fn is_file(&self) -> bool {
        self.kind == FileType::RegularFile
    }

    /// Whether it is a folder.
    pub fn is_folder(&self) -> bool {
        self.kind == FileType::Directory
    }

    /// Whether it is a symbolic link.
    pub fn is_link(&self) -> bool {
        self.kind == FileType::Symlink
    }

    /// Time since its content changed; zero for a time to come.
    pub fn age(&self) -> Duration {
        self.modified.elapsed().unwrap_or_default()
    }
}

fn time(seconds: i64, nanoseconds: u64) -> SystemTime {
    let since = u64::try_from(seconds).unwrap_or(0);
    UNIX_EPOCH + Duration::new(since, u32::try_from(nanoseconds).unwrap_or(0))
}
