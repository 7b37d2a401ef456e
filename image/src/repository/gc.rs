//! Garbage collection: blobs without metadata, temporary files of ended processes, the upgrade of old versions.
//!
//! Safe beside any number of writers, without locks. Phases: read all metadata, and refuse if a file cannot be
//! read → pick the unnamed blobs that are older than the grace time → for each batch: move the blobs aside,
//! read the metadata again, put back the blobs that are now named or refreshed, delete the rest. A writer that
//! relies on an old blob refreshes its time first, and looks for all its blobs after publishing its metadata.
//! So either the collector sees the metadata, or the writer sees the loss.

use std::collections::HashSet;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use pcocc_core::beneath::{OpenFolder, Refusal};

use crate::error::{Error, Result};
use crate::repository::blobs::{blob_name, create_parent};
use crate::repository::folder::{DATA, Repository, TEMP};
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

/// What is in `data/`.
#[derive(Debug, Default)]
pub(crate) struct BlobFiles {
    /// Digests of the blobs.
    pub(crate) blobs: Vec<Digest>,
    /// Why some of it is not looked at.
    pub(crate) refused: Vec<Error>,
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
        let (candidates, spared) = self.unused_blobs(&used, options, context)?;
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
        context: &Context,
    ) -> Result<(Vec<Digest>, u64)> {
        let root = self.root()?;
        let mut candidates = Vec::new();
        let mut spared = 0;
        let files = self.blob_files()?;
        for refused in files.refused {
            context.progress.warn(format!("left alone: {refused}"));
        }
        for digest in files.blobs {
            if used.contains(&digest) {
                continue;
            }
            if is_young(&root, &blob_name(digest), options.grace) {
                spared += 1;
            } else {
                candidates.push(digest);
            }
        }
        Ok((candidates, spared))
    }

    /// Finds all files in `data/` that are named as blobs are.
    pub(crate) fn blob_files(&self) -> Result<BlobFiles> {
        let data = self.root()?.folder(DATA);
        let data = data.map_err(self.below("list", DATA))?;
        let (mut blobs, mut refused) = (Vec::new(), Vec::new());
        for folder in data.names().map_err(self.below("list", DATA))? {
            let path = Path::new(DATA).join(&folder);
            let files = match data.folder(&folder).and_then(|folder| folder.names()) {
                Ok(files) => files,
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::NotADirectory | io::ErrorKind::NotFound
                    ) =>
                {
                    continue;
                }
                Err(error) if Refusal::of(&error).is_some() => {
                    refused.push(self.below("list", path)(error));
                    continue;
                }
                Err(error) => return Err(self.below("list", path)(error)),
            };
            for file in files {
                let path = path.join(&file);
                match file.to_str().map(Digest::from_hex) {
                    Some(Ok(digest)) if blob_name(digest) == path => blobs.push(digest),
                    _ => {
                        let path = self.path().join(path);
                        tracing::warn!(path = %path.display(), "not a blob; left alone");
                    }
                }
            }
        }
        Ok(BlobFiles { blobs, refused })
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
        let (root, temp) = (self.root()?, self.temp_folder()?);
        for digest in batch {
            let trash = format!("{}{nonce}{TRASH}{}", temp::prefix(), digest.hex());
            match root.rename(blob_name(*digest), &temp, &trash) {
                Ok(()) => aside.push((*digest, trash)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    failure = Some(self.write_error(blob_name(*digest), error));
                    break;
                }
            }
        }
        let used = match self.used_blobs() {
            Ok(used) => used,
            Err(error) => {
                for (digest, trash) in &aside {
                    self.put_back(*digest, &temp, trash)?;
                }
                return Err(error);
            }
        };
        for (digest, trash) in aside {
            if used.contains(&digest) || is_young(&temp, Path::new(&trash), options.grace) {
                self.put_back(digest, &temp, &trash)?;
                collected.spared += 1;
                continue;
            }
            // Another collection may have seen it used and put it back.
            let Ok(found) = temp.stat(&trash) else {
                continue;
            };
            temp.remove_all(&trash)
                .map_err(|error| self.write_error(TEMP, error))?;
            collected.blobs += 1;
            collected.bytes += found.size;
        }
        failure.map_or(Ok(()), Err)
    }

    /// Whether one of the blobs was moved aside, to be deleted or put back.
    pub(crate) fn is_any_aside(&self, blobs: &[Digest]) -> Result<bool> {
        let names = self.temp_folder()?.names();
        let names = names.map_err(self.below("list", TEMP))?;
        let mut moved = names.iter().filter_map(|name| trash_of(name.to_str()?));
        Ok(moved.any(|digest| blobs.contains(&digest)))
    }

    fn put_back(&self, digest: Digest, temp: &OpenFolder, trash: &str) -> Result<()> {
        let (root, name) = (self.root()?, blob_name(digest));
        let put_back = create_parent(&root, &name)
            .and_then(|()| temp.link(trash, &root, &name))
            .and_then(|()| root.sync_folder_of(&name))
            .and_then(|()| temp.remove_file(trash));
        match put_back {
            Ok(()) => Ok(()),
            // A writer has made the blob anew.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                match temp.remove_file(trash) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        Err(self.write_error(TEMP, error))
                    }
                    _ => Ok(()),
                }
            }
            // Another collection was faster.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            // No hard links here. Nobody but a writer of the very same bytes can be replaced.
            Err(_) => match temp.rename(trash, &root, &name) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    Err(self.write_error(name, error))
                }
                _ => Ok(()),
            },
        }
    }

    /// Deletes the temporary files of dead writers. Puts back blobs that a dead collection moved aside, and
    /// blobs that a live collection moved aside although they are in use.
    fn collect_temporary(&self, used: &HashSet<Digest>, options: GcOptions) -> Result<u64> {
        let temp = self.temp_folder()?;
        let mut deleted = 0;
        for entry in temp.names().map_err(self.below("list", TEMP))? {
            let name = entry.to_string_lossy();
            let Ok(found) = temp.stat(&entry) else {
                continue;
            };
            if found.is_file()
                && let Some(digest) = trash_of(&name)
            {
                // A blob keeps its old time; when it was moved, its status changed. What a dead
                // collection moved is an unused blob like others again, looked at once more below.
                if used.contains(&digest) || temp::is_abandoned(&name, found.changed, options.grace)
                {
                    self.put_back(digest, &temp, &name)?;
                }
                continue;
            }
            if !temp::is_abandoned(&name, found.modified, options.grace) {
                continue;
            }
            temp.remove_all(&entry)
                .map_err(|error| self.write_error(Path::new(TEMP).join(&entry), error))?;
            deleted += 1;
        }
        Ok(deleted)
    }
}

/// The digest of the moved blob with this temporary name.
fn trash_of(name: &str) -> Option<Digest> {
    Digest::from_hex(name.rsplit_once(TRASH)?.1).ok()
}

/// Whether the file was changed within the grace time; one that cannot be looked at is spared.
fn is_young(folder: &OpenFolder, name: &Path, grace: Duration) -> bool {
    folder.stat(name).map_or(true, |found| found.age() < grace)
}
