//! The cache of root filesystems, shared with pcocc 0.7.
//!
//! Disk layout: `CACHE/hh/<sha512 of a key, in hex>`, where `hh` are the first two digits; work in progress is
//! in `CACHE/.tmp`. A key is the hash of an image's metadata: another image under the same name has another
//! entry. Each file has a second name, which pcocc 0.7 does not know, made from the image ID: importing the
//! same image under a new name costs one hard link. The time of a file is the time of its last use.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use pcocc_core::hex::hex;
use pcocc_core::publish;
use sha2::{Digest as _, Sha256, Sha512};

use crate::error::{Error, Result};
use crate::repository::meta::Meta;
use crate::repository::temp;
use pcocc_layers::Digest;

/// Ending of entries that pcocc 0.7 was writing or deleting.
pub(crate) const DELETED: &str = ".deleted";

/// Name of a cache entry.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CacheKey(String);

impl CacheKey {
    /// The key under which pcocc 0.7 looks for the squashfs of the image with the metadata `meta` in the
    /// repository `repo`.
    pub fn of_meta(meta: &Meta, repo: &str) -> Self {
        Self::of_meta_as(meta, repo, "cached_squashfs")
    }

    /// The key of an unpacked image. pcocc 0.7 unpacks images when it is told not to use squashfs.
    pub(crate) fn of_bundle(meta: &Meta, repo: &str) -> Self {
        Self::of_meta_as(meta, repo, "cached_bundle")
    }

    fn of_meta_as(meta: &Meta, repo: &str, kind: &str) -> Self {
        Self::hash(&format!("{}\n{kind}", meta.render_within(repo)))
    }

    /// The second key of the same file, made from the image ID.
    pub fn of_image(id: Digest) -> Self {
        Self::hash(&format!("pcocc squashfs 1\n{id}"))
    }

    fn hash(text: &str) -> Self {
        Self(hex(&Sha256::digest(text)))
    }

    /// Name of the file, below its folder of two digits.
    fn file_name(&self) -> String {
        hex(&Sha512::digest(&self.0))
    }
}

/// One entry of the cache: a file, or a folder of pcocc 0.7.
#[derive(Clone, Debug)]
pub struct CacheEntry {
    /// Where it is.
    pub path: PathBuf,
    /// Its size in bytes.
    pub size: u64,
    /// When it was last used.
    pub used: SystemTime,
    /// Number of the file on its file system: entries that share it are one file.
    pub inode: u64,
}

/// The cache of root filesystems.
#[derive(Debug)]
pub struct Cache {
    path: PathBuf,
}

impl Cache {
    /// The cache in `path`, which is made private to the user when it is first written to.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file of an entry, whether there or not.
    pub fn entry_path(&self, key: &CacheKey) -> PathBuf {
        let name = key.file_name();
        self.path.join(name.get(..2).unwrap_or("")).join(name)
    }

    /// Opens an entry and notes that it was used; `None` when it is not there.
    pub fn open(&self, key: &CacheKey) -> Result<Option<File>> {
        let path = self.entry_path(key);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io("open", &path)(error)),
        };
        let metadata = file.metadata().map_err(Error::io("open", &path))?;
        // pcocc 0.7 fills entries in place: an empty entry was interrupted.
        if !metadata.is_file() || metadata.len() == 0 {
            return Ok(None);
        }
        if let Err(error) = file.set_modified(SystemTime::now()) {
            tracing::debug!(%error, path = %path.display(), "cannot note the use of a cache entry");
        }
        Ok(Some(file))
    }

    /// Whether there is a usable entry.
    pub fn contains(&self, key: &CacheKey) -> bool {
        fs::symlink_metadata(self.entry_path(key)).is_ok_and(|m| m.is_file() && m.len() > 0)
    }

    /// Starts a new entry; an entry that is dropped unpublished is deleted.
    pub fn temp(&self) -> Result<tempfile::NamedTempFile> {
        self.create_dir(&self.path)
            .and_then(|()| temp::file_in(&self.path.join(".tmp"), 0o600))
            .map_err(|error| self.write_error(error))
    }

    /// Flushes a finished entry and publishes it under `key`, replacing what was there.
    pub fn publish(&self, temp: tempfile::NamedTempFile, key: &CacheKey) -> Result<()> {
        let path = self.entry_path(key);
        self.create_parent(&path)
            .and_then(|()| temp.as_file().sync_all())
            .and_then(|()| publish::replace(temp.path(), &path))
            .map_err(|error| self.write_error(error))
    }

    /// Gives the entry `from` a second name `to`; `false` when `from` is not there.
    pub fn link(&self, from: &CacheKey, to: &CacheKey) -> Result<bool> {
        if !self.contains(from) {
            return Ok(false);
        }
        if self.contains(to) {
            return Ok(true);
        }
        let (from, to) = (self.entry_path(from), self.entry_path(to));
        self.create_parent(&to)
            .and_then(|()| match fs::hard_link(&from, &to) {
                // pcocc 0.7 was interrupted, or another process has just made the entry.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    let draft = self.path.join(".tmp");
                    self.create_dir(&draft)?;
                    let draft = tempfile::Builder::new()
                        .prefix(&temp::prefix())
                        .tempdir_in(draft)?;
                    let link = draft.path().join("link");
                    fs::hard_link(&from, &link)?;
                    fs::rename(&link, &to)
                }
                // This file system has no hard links: a copy serves as well.
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::Unsupported | io::ErrorKind::PermissionDenied
                    ) =>
                {
                    let temp = temp::file_in(&self.path.join(".tmp"), 0o600)?;
                    fs::copy(&from, temp.path())?;
                    publish::replace(temp.path(), &to)
                }
                result => result,
            })
            .map_err(|error| self.write_error(error))?;
        Ok(true)
    }

    /// Removes an entry's name; nothing happens when it is not there.
    pub fn remove(&self, key: &CacheKey) -> Result<()> {
        remove(&self.entry_path(key)).map_err(|error| self.write_error(error))
    }

    /// All entries, in no order.
    pub fn list(&self) -> Result<Vec<CacheEntry>> {
        let mut entries = Vec::new();
        let folders = match fs::read_dir(&self.path) {
            Ok(folders) => folders,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(entries),
            Err(error) => return Err(Error::io("list cache", &self.path)(error)),
        };
        for folder in folders {
            let folder = folder.map_err(Error::io("list cache", &self.path))?;
            if folder.file_name().len() != 2 {
                continue;
            }
            let Ok(files) = fs::read_dir(folder.path()) else {
                continue;
            };
            for file in files.flatten() {
                let Ok(metadata) = file.metadata() else {
                    continue;
                };
                entries.push(CacheEntry {
                    path: file.path(),
                    size: metadata.len(),
                    used: metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH),
                    inode: metadata.ino(),
                });
            }
        }
        Ok(entries)
    }

    fn create_parent(&self, path: &Path) -> io::Result<()> {
        self.create_dir(path.parent().unwrap_or(path))
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
    }

    fn write_error(&self, error: io::Error) -> Error {
        match error.kind() {
            io::ErrorKind::PermissionDenied
            | io::ErrorKind::ReadOnlyFilesystem
            | io::ErrorKind::NotADirectory => Error::Denied {
                what: format!("cache {}", self.path.display()),
                why: format!("cannot be written: {error}; set cache: path: in repos.yaml"),
            },
            _ => Error::io("write to cache", &self.path)(error),
        }
    }
}

/// Removes a file, or a folder with all it holds.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    let result = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}
