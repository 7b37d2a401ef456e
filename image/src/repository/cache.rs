//! The cache of root filesystems, shared with pcocc 0.7.
//!
//! Disk layout: `CACHE/hh/<sha512 of a key, in hex>`, where `hh` are the first two digits; work in progress is
//! in `CACHE/.tmp`. A key is the hash of an image's metadata: another image under the same name has another
//! entry. Each file has a second name, which pcocc 0.7 does not know, made from the image ID: importing the
//! same image under a new name costs one hard link. The time of a file is the time of its last use. `CACHE/.layers`
//! (`cache_layers.rs`) says which layers the files are made of.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use pcocc_core::beneath::{Found, OpenFolder, Refusal, TempFile};
use pcocc_core::hex::hex;
use pcocc_core::progress::Reporter;
use pcocc_core::{durable, trust};
use sha2::{Digest as _, Sha256, Sha512};

use crate::error::{Error, Result};
use crate::repository::folder::{TEMP, refused};
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
    /// Whether the user knows that it is not used.
    has_warned: AtomicBool,
}

impl Cache {
    /// The cache in `path`, which is made private to the user when it is first written to.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            has_warned: AtomicBool::new(false),
        }
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file of an entry, whether there or not.
    pub fn entry_path(&self, key: &CacheKey) -> PathBuf {
        self.path.join(Self::entry_name(key))
    }

    fn entry_name(key: &CacheKey) -> PathBuf {
        let name = key.file_name();
        Path::new(name.get(..2).unwrap_or("")).join(&name)
    }

    /// Opens the directory; `None` when it is missing.
    ///
    /// Fails with [`Error::Denied`] when somebody else made it, or could have: then others choose what is in it.
    pub(super) fn folder(&self) -> Result<Option<OpenFolder>> {
        let folder = match OpenFolder::open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(Error::io("open cache", &self.path))?,
        };
        trust::check_folder(&self.path).map_err(|why| self.untrusted(&why))?;
        // What was opened before may be another folder than the one that was looked at.
        let looked_at =
            OpenFolder::open(&self.path).and_then(|folder| Found::of_file(folder.as_fd()));
        let opened = Found::of_file(folder.as_fd());
        match (looked_at, opened) {
            (Ok(looked_at), Ok(opened)) if looked_at.identity == opened.identity => {
                Ok(Some(folder))
            }
            _ => Err(Error::Denied {
                what: format!("cache {}", self.path.display()),
                why: "was replaced while it was opened".to_owned(),
            }),
        }
    }

    fn untrusted(&self, why: &trust::Untrusted) -> Error {
        Error::Denied {
            what: format!("cache {}", self.path.display()),
            why: format!(
                "is not used: {why}; set cache: path: in repos.yaml to a folder that only you can write to"
            ),
        }
    }

    /// The directory, made when it is missing.
    fn folder_or_new(&self) -> Result<OpenFolder> {
        durable::create_folders(&self.path, 0o700).map_err(|error| self.write_error(error))?;
        self.folder()?
            .ok_or_else(|| self.write_error(io::ErrorKind::NotFound.into()))
    }

    /// A folder in the directory, made when it is missing.
    pub(super) fn inner_folder(&self, name: &Path) -> Result<OpenFolder> {
        let folder = self.folder_or_new()?.folder_or_new(name, 0o700);
        let folder = folder.map_err(|error| self.write_error(error))?;
        self.check(folder.as_fd(), folder.path())?;
        Ok(folder)
    }

    /// Fails unless only the user and root can have written an open file or folder.
    fn check(&self, opened: impl std::os::fd::AsFd, path: &Path) -> Result<Found> {
        let found = Found::of_file(opened).map_err(Error::io("look at", path))?;
        trust::check(&found, path).map_err(|why| self.untrusted(&why))?;
        Ok(found)
    }

    /// Tells the user, once, that the cache or an entry is passed over.
    fn pass_over(&self, why: &Error, progress: &Reporter) {
        if !self.has_warned.swap(true, Ordering::Relaxed) {
            progress.warn(why.to_string());
        }
    }

    /// Opens an entry and notes that it was used; `None` when it is not there, or may be somebody else's: then `progress`
    /// gets a warning.
    pub fn open(&self, key: &CacheKey, progress: &Reporter) -> Result<Option<File>> {
        match self.usable(key) {
            Ok(Some(file)) => {
                if let Err(error) = file.set_modified(SystemTime::now()) {
                    let path = self.entry_path(key);
                    tracing::debug!(%error, path = %path.display(), "cannot note the use of a cache entry");
                }
                Ok(Some(file))
            }
            Err(why @ (Error::Denied { .. } | Error::Invalid { .. })) => {
                self.pass_over(&why, progress);
                Ok(None)
            }
            result => result,
        }
    }

    fn usable(&self, key: &CacheKey) -> Result<Option<File>> {
        let Some(folder) = self.folder()? else {
            return Ok(None);
        };
        self.open_in(&folder, &Self::entry_name(key))
    }

    /// Opens the file `name` in the directory `folder`; `None` when it is not there, or empty.
    pub(super) fn open_in(&self, folder: &OpenFolder, name: &Path) -> Result<Option<File>> {
        let path = self.path.join(name);
        let parent = name.parent().unwrap_or(name);
        let opened = folder.folder(parent).and_then(|parent| {
            let file = parent.open_file(name.file_name().unwrap_or_default());
            file.map(|file| (parent, file))
        });
        let (parent, file) = match opened {
            Ok(opened) => opened,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            // An unpacked image of pcocc 0.7, or nothing of ours.
            Err(error) if Refusal::of(&error) == Some(Refusal::NotRegular) => return Ok(None),
            Err(error) => return Err(refused("open", &path, error)),
        };
        self.check(parent.as_fd(), parent.path())?;
        let found = self.check(&file, &path)?;
        // pcocc 0.7 fills entries in place: an empty one was interrupted.
        Ok((found.size > 0).then_some(file))
    }

    /// Whether there is a usable entry.
    pub fn contains(&self, key: &CacheKey) -> bool {
        self.usable(key).is_ok_and(|file| file.is_some())
    }

    /// Starts a new entry; dropped unpublished, it is gone.
    pub fn temp(&self) -> Result<TempFile> {
        let temp = self
            .inner_folder(TEMP.as_ref())?
            .temp(&temp::prefix(), 0o600);
        temp.map_err(|error| self.write_error(error))
    }

    /// Flushes a finished entry and publishes it under `key`, replacing what was there.
    pub fn publish(&self, mut temp: TempFile, key: &CacheKey) -> Result<()> {
        let name = Self::entry_name(key);
        let parent = self.inner_folder(name.parent().unwrap_or(&name))?;
        temp.replace(&parent, name.file_name().unwrap_or_default())
            .map_err(|error| self.write_error(error))
    }

    /// Gives the entry `from` a second name `to`; `false` when `from` is not there.
    pub fn link(&self, from: &CacheKey, to: &CacheKey) -> Result<bool> {
        let Some(file) = self.usable(from)? else {
            return Ok(false);
        };
        if self.contains(to) {
            return Ok(true);
        }
        let (from, to) = (Self::entry_name(from), Self::entry_name(to));
        self.inner_folder(to.parent().unwrap_or(&to))?;
        self.inner_folder(TEMP.as_ref())?;
        let folder = self.folder_or_new()?;
        let linked = match folder.link(&from, &folder, &to) {
            // Interrupted by pcocc 0.7, or made by another process just now.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let draft = Path::new(TEMP).join(temp::unique());
                folder
                    .link(&from, &folder, &draft)
                    .and_then(|()| folder.rename(&draft, &folder, &to))
            }
            // No hard links on this file system: a copy takes their place.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::Unsupported | io::ErrorKind::PermissionDenied
                ) =>
            {
                let mut temp = self.temp()?;
                let copied = io::copy(&mut &file, temp.as_file_mut());
                copied.and_then(|_| temp.replace(&folder, &to))
            }
            result => result,
        };
        linked.map_err(|error| self.write_error(error))?;
        Ok(true)
    }

    /// Removes an entry's name; nothing happens when it is not there.
    pub fn remove(&self, key: &CacheKey) -> Result<()> {
        self.remove_below(&Self::entry_name(key))
    }

    /// Removes what is at `name` in the directory.
    pub(crate) fn remove_below(&self, name: &Path) -> Result<()> {
        match self.folder()? {
            Some(folder) => folder
                .remove_all(name)
                .map_err(|error| refused("remove", &self.path.join(name), error)),
            None => Ok(()),
        }
    }

    /// All entries, in no order.
    pub fn list(&self) -> Result<Vec<CacheEntry>> {
        let mut entries = Vec::new();
        let Some(cache) = self.folder()? else {
            return Ok(entries);
        };
        for folder in cache.names().map_err(Error::io("list cache", &self.path))? {
            if folder.len() != 2 {
                continue;
            }
            let Ok(files) = cache.folder(&folder) else {
                continue;
            };
            for name in files.names().unwrap_or_default() {
                let Ok(found) = files.stat(&name) else {
                    continue;
                };
                entries.push(CacheEntry {
                    path: files.path().join(&name),
                    size: found.size,
                    used: found.modified,
                    inode: found.identity.1,
                });
            }
        }
        Ok(entries)
    }

    /// Names of work in progress, with what they are.
    pub(crate) fn temporary(&self) -> Result<Vec<(String, Found)>> {
        let Some(cache) = self.folder()? else {
            return Ok(Vec::new());
        };
        let Ok(folder) = cache.folder(TEMP) else {
            return Ok(Vec::new());
        };
        let names = folder.names().unwrap_or_default();
        let found = names.into_iter().filter_map(|name| {
            let found = folder.stat(&name).ok()?;
            Some((name.into_string().ok()?, found))
        });
        Ok(found.collect())
    }

    pub(super) fn write_error(&self, error: io::Error) -> Error {
        match error.kind() {
            io::ErrorKind::PermissionDenied
            | io::ErrorKind::ReadOnlyFilesystem
            | io::ErrorKind::NotADirectory
            | io::ErrorKind::AlreadyExists
            | io::ErrorKind::InvalidData => Error::Denied {
                what: format!("cache {}", self.path.display()),
                why: format!("cannot be written: {error}; set cache: path: in repos.yaml"),
            },
            _ => Error::io("write to cache", &self.path)(error),
        }
    }
}
