//! Garbage collection: blobs without metadata, temporary files of ended processes, the upgrade of old versions.
//!
//! Safe beside any number of writers, without locks. Phases: read all metadata, and refuse if a file cannot be
//! read → pick the unnamed blobs that are older than the grace time → for each batch: move the blobs aside,
//! read the metadata again, put back the blobs that are now named or refreshed, delete the rest. A writer that
//! relies on an old blob refreshes its time first, and looks for all its blobs after publishing its metadata.
//! So either the collector sees the metadata, or the writer sees the loss.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pcocc_core::publish;

use crate::error::{Error, Result};
use crate::repository::cache::remove;
use crate::repository::folder::Repository;
use crate::repository::temp;
use crate::transfer::Context;
use pcocc_layers::Digest;

/// Marks a blob that was moved aside, within its temporary name.
const TRASH: &str = "trash-";

/// Blobs deleted between two readings of the metadata.
const BATCH: usize = 512;

/// How garbage is told from blobs that are about to be used.
#[derive(Clone, Copy, Debug)]
pub struct GcOptions {
    /// Blobs and temporary files younger than this are spared.
    pub grace: Duration,
}

impl Default for GcOptions {
    /// A day, longer than any import takes.
    fn default() -> Self {
        Self {
            grace: Duration::from_secs(24 * 3600),
        }
    }
}

/// The result of garbage collection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Blobs deleted.
    pub blobs: u64,
    /// Their size in bytes.
    pub bytes: u64,
    /// Unused blobs spared because they are young.
    pub spared: u64,
    /// Temporary files and folders deleted.
    pub temporary: u64,
    /// Whether the repository was upgraded to version 2.
    pub upgraded: bool,
}

impl Repository {
    /// Deletes what no image needs, and upgrades a version 1 repository as pcocc 0.7 does.
    ///
    /// Fails with [`Error::Invalid`], and deletes nothing, when a metadata file cannot be read: its blobs are
    /// unknown.
    pub fn collect(&self, options: GcOptions, context: &Context) -> Result<Collected> {
        let version = self.version()?;
        self.check_writable()?;
        let mut collected = Collected::default();
        context.progress.stage(format!(
            "Looking for unused blobs in repository {}",
            self.name()
        ));
        let used = self.used_blobs()?;
        collected.temporary = self.collect_temporary(&used, options)?;
        let (candidates, spared) = self.unused_blobs(&used, options)?;
        collected.spared = spared;
        let mut looked_at = 0;
        for batch in candidates.chunks(BATCH) {
            context.check()?;
            context.progress.stage(format!(
                "Deleting unused blobs {} to {} of {}",
                looked_at + 1,
                looked_at + batch.len(),
                candidates.len()
            ));
            self.delete_batch(batch, options, &mut collected)?;
            looked_at += batch.len();
        }
        if version == 1 {
            self.upgrade()?;
            collected.upgraded = true;
        } else {
            self.finish_upgrade()?;
        }
        Ok(collected)
    }

    /// The blobs that any metadata names.
    fn used_blobs(&self) -> Result<HashSet<Digest>> {
        let listing = self.list()?;
        if let Some(bad) = listing.bad.first() {
            let others = match listing.bad.len() {
                1 => String::new(),
                n => format!(" (and {} more)", n - 1),
            };
            return Err(self.unusable(format!(
                "is not collected: {}{others}; repair or delete {} first",
                bad.error,
                bad.path.display()
            )));
        }
        Ok(listing
            .metas
            .iter()
            .flat_map(|meta| meta.data_blobs().iter().copied())
            .collect())
    }

    /// The blobs that may be deleted, and the number of blobs that are too young for deletion.
    fn unused_blobs(
        &self,
        used: &HashSet<Digest>,
        options: GcOptions,
    ) -> Result<(Vec<Digest>, u64)> {
        let mut candidates = Vec::new();
        let mut spared = 0;
        for (digest, path) in self.blob_files()? {
            if used.contains(&digest) {
                continue;
            }
            if is_young(&path, options.grace) {
                spared += 1;
            } else {
                candidates.push(digest);
            }
        }
        Ok((candidates, spared))
    }

    /// All files in `data/` that have the name of a blob.
    pub(crate) fn blob_files(&self) -> Result<Vec<(Digest, PathBuf)>> {
        let data = self.data_dir();
        let mut blobs = Vec::new();
        for folder in fs::read_dir(&data).map_err(Error::io("list", &data))? {
            let folder = folder.map_err(Error::io("list", &data))?.path();
            let files = match fs::read_dir(&folder) {
                Ok(files) => files,
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::NotADirectory | io::ErrorKind::NotFound
                    ) =>
                {
                    continue;
                }
                Err(error) => return Err(Error::io("list", &folder)(error)),
            };
            for file in files {
                let file = file.map_err(Error::io("list", &folder))?;
                let digest = file.file_name().to_str().map(Digest::from_hex);
                match digest {
                    Some(Ok(digest)) if self.blob_path(digest) == file.path() => {
                        blobs.push((digest, file.path()));
                    }
                    _ => tracing::warn!(path = %file.path().display(), "not a blob; left alone"),
                }
            }
        }
        Ok(blobs)
    }

    fn delete_batch(
        &self,
        batch: &[Digest],
        options: GcOptions,
        collected: &mut Collected,
    ) -> Result<()> {
        static COLLECTIONS: AtomicU64 = AtomicU64::new(0);
        // Two collections in one process must not take each other's files.
        let nonce = COLLECTIONS.fetch_add(1, Ordering::Relaxed);
        let mut aside = Vec::new();
        let mut failure = None;
        for digest in batch {
            let trash =
                self.temp_dir()
                    .join(format!("{}{nonce}{TRASH}{}", temp::prefix(), digest.hex()));
            match fs::rename(self.blob_path(*digest), &trash) {
                Ok(()) => aside.push((*digest, trash)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    failure = Some(self.write_error(error));
                    break;
                }
            }
        }
        let used = match self.used_blobs() {
            Ok(used) => used,
            Err(error) => {
                for (digest, trash) in &aside {
                    self.put_back(*digest, trash)?;
                }
                return Err(error);
            }
        };
        for (digest, trash) in aside {
            if used.contains(&digest) || is_young(&trash, options.grace) {
                self.put_back(digest, &trash)?;
                collected.spared += 1;
                continue;
            }
            let size = fs::metadata(&trash).map_or(0, |metadata| metadata.len());
            match fs::remove_file(&trash) {
                Ok(()) => {
                    collected.blobs += 1;
                    collected.bytes += size;
                }
                // Another collection found the blob in use and put it back.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(self.write_error(error)),
            }
        }
        failure.map_or(Ok(()), Err)
    }

    /// Whether one of the blobs was moved aside, to be deleted or put back.
    pub(crate) fn is_any_aside(&self, blobs: &[Digest]) -> Result<bool> {
        let dir = self.temp_dir();
        for entry in fs::read_dir(&dir).map_err(Error::io("list", &dir))? {
            let entry = entry.map_err(Error::io("list", &dir))?;
            if trash_of(&entry.file_name().to_string_lossy()).is_some_and(|d| blobs.contains(&d)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn put_back(&self, digest: Digest, trash: &Path) -> Result<()> {
        let path = self.blob_path(digest);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(|e| self.write_error(e))?;
        }
        match publish::create_new(trash, &path) {
            Ok(()) => Ok(()),
            // Another collection was faster, or a writer has stored the blob again.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::AlreadyExists
                ) =>
            {
                Ok(())
            }
            Err(error) => Err(self.write_error(error)),
        }
    }

    /// Deletes the temporary files of dead writers. Puts back blobs that a dead collection moved aside, and
    /// blobs that a live collection moved aside although they are in use.
    fn collect_temporary(&self, used: &HashSet<Digest>, options: GcOptions) -> Result<u64> {
        let dir = self.temp_dir();
        let mut deleted = 0;
        for entry in fs::read_dir(&dir).map_err(Error::io("list", &dir))? {
            let entry = entry.map_err(Error::io("list", &dir))?;
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            let Ok(metadata) = fs::symlink_metadata(&path) else {
                continue;
            };
            if let Some(digest) = trash_of(&name) {
                // Moving a blob aside keeps its time and changes the time of its status. A blob moved by a dead
                // collection is an unused blob like any other: the caller looks at it again.
                let moved = UNIX_EPOCH + Duration::from_secs(metadata.ctime().max(0) as u64);
                if used.contains(&digest) || temp::is_abandoned(&name, moved, options.grace) {
                    self.put_back(digest, &path)?;
                }
                continue;
            }
            let modified = metadata.modified().unwrap_or_else(|_| SystemTime::now());
            if !temp::is_abandoned(&name, modified, options.grace) {
                continue;
            }
            remove(&path).map_err(|e| self.write_error(e))?;
            deleted += 1;
        }
        Ok(deleted)
    }
}

/// The digest of the moved blob with this temporary name.
fn trash_of(name: &str) -> Option<Digest> {
    Digest::from_hex(name.rsplit_once(TRASH)?.1).ok()
}

/// Whether the file was changed within the grace time; an unreadable file counts as young.
fn is_young(path: &Path, grace: Duration) -> bool {
    match fs::symlink_metadata(path).and_then(|metadata| metadata.modified()) {
        Ok(modified) => modified.elapsed().unwrap_or_default() < grace,
        Err(_) => true,
    }
}
