//! Blob files: found by digest, written under a temporary name, published by link.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, SystemTime};

use pcocc_core::publish;
use tempfile::NamedTempFile;

use crate::error::{Error, Result};
use crate::repository::folder::Repository;
use crate::repository::meta::Meta;
use crate::repository::temp;
use pcocc_layers::Digest;

/// Age below which a reused blob keeps its time.
const FRESH: Duration = Duration::from_secs(600);

/// Pause between two looks for a blob that was moved aside, and the number of looks.
const INTERVAL: Duration = Duration::from_millis(10);
const PATIENCE: u32 = 100;

impl Repository {
    /// The file of a blob, whether there or not.
    pub fn blob_path(&self, digest: Digest) -> PathBuf {
        let hex = digest.hex();
        self.data_dir().join(hex.get(..2).unwrap_or("")).join(hex)
    }

    /// Size of a blob in bytes; `None` when the repository does not have it.
    pub fn blob_size(&self, digest: Digest) -> Result<Option<u64>> {
        let path = self.blob_path(digest);
        match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_file() => Ok(Some(metadata.len())),
            Ok(_) => Err(Error::invalid(
                format!("blob {}", path.display()),
                "is not a regular file",
            )),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("look for", &path)(error)),
        }
    }

    /// Starts a new blob in the repository's folder for work in progress.
    pub fn temp_blob(&self) -> Result<NamedTempFile> {
        temp::file_in(&self.temp_dir(), 0o666).map_err(|e| self.write_error(e))
    }

    /// Flushes a blob to disk and publishes it; the caller has verified that its content is `digest`.
    ///
    /// A blob that the repository has already only gets the present time.
    pub fn publish_blob(&self, temp: NamedTempFile, digest: Digest) -> Result<()> {
        let path = self.blob_path(digest);
        let size = temp
            .as_file()
            .metadata()
            .map_err(Error::io("read", temp.path()))?;
        // A blob of another size was left by a writer that crashed; it is replaced.
        if self.blob_size(digest)? == Some(size.len()) && self.refresh_blob(digest)? {
            return Ok(());
        }
        self.place(&temp, &path).map_err(|e| self.write_error(e))
    }

    /// Links a blob of another repository into this one; `false` when file system, owner or size forbid it.
    pub(crate) fn link_blob(&self, other: &Self, digest: Digest, size: u64) -> Result<bool> {
        let (from, to) = (other.blob_path(digest), self.blob_path(digest));
        let Ok(metadata) = fs::symlink_metadata(&from) else {
            return Ok(false);
        };
        let is_trusted = [0, rustix::process::geteuid().as_raw()].contains(&metadata.uid())
            && metadata.mode() & 0o222 == 0;
        if !metadata.is_file() || metadata.len() != size || !is_trusted {
            return Ok(false);
        }
        let parent = to.parent().unwrap_or(&to);
        let linked = fs::create_dir_all(parent)
            .and_then(|()| fs::hard_link(&from, &to))
            .and_then(|()| publish::sync_parent(&to));
        match linked {
            Ok(()) => self.reuse_blob(digest, size),
            Err(error) => {
                tracing::debug!(%error, from = %from.display(), "a blob is copied, not linked");
                Ok(false)
            }
        }
    }

    fn place(&self, temp: &NamedTempFile, path: &Path) -> io::Result<()> {
        temp.as_file()
            .set_permissions(fs::Permissions::from_mode(0o444))?;
        temp.as_file().sync_all()?;
        let parent = path.parent().unwrap_or(path);
        let mut tries = 0;
        loop {
            match fs::create_dir(parent) {
                Ok(()) => publish::sync_parent(parent)?,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
            match publish::replace(temp.path(), path) {
                // Garbage collection, ours or pcocc 0.7's, has just removed the empty folder.
                Err(error) if error.kind() == io::ErrorKind::NotFound && tries < 5 => tries += 1,
                result => return result,
            }
        }
    }

    /// Gives a reused blob the present time, so that garbage collection spares it until metadata names it.
    ///
    /// Returns `false` when the blob cannot be relied on: it is gone, or it is old and of another owner.
    pub fn refresh_blob(&self, digest: Digest) -> Result<bool> {
        let path = self.blob_path(digest);
        let metadata = match fs::symlink_metadata(&path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(Error::io("look for", &path)(error)),
        };
        let age = metadata
            .modified()
            .ok()
            .and_then(|time| SystemTime::now().duration_since(time).ok());
        if age.is_some_and(|age| age < FRESH) {
            return Ok(true);
        }
        match publish::touch(&path) {
            Ok(()) => Ok(true),
            Err(error) => {
                // Publishing checks all blobs once more: at worst the caller has to try again.
                tracing::debug!(%error, path = %path.display(), "cannot refresh the time of a blob");
                Ok(false)
            }
        }
    }

    /// Whether the blob is there in this size and can be relied on; its time is refreshed.
    pub(crate) fn reuse_blob(&self, digest: Digest, size: u64) -> Result<bool> {
        if self.blob_size(digest)? != Some(size) {
            return Ok(false);
        }
        self.refresh_blob(digest)?;
        Ok(true)
    }

    /// Fails with [`Error::NotFound`] when a blob of `meta` is missing.
    pub(crate) fn check_blobs(&self, meta: &Meta) -> Result<()> {
        for digest in meta.data_blobs() {
            if self.blob_size(*digest)?.is_none() {
                return Err(Error::NotFound(format!(
                    "blob {digest} of image {}:{} (garbage collection may have removed it; try again)",
                    self.name(),
                    meta.name()
                )));
            }
        }
        Ok(())
    }

    /// As [`Self::check_blobs`], but waits for blobs that garbage collection has moved aside: it puts used
    /// blobs back.
    pub(crate) fn check_blobs_patiently(&self, meta: &Meta) -> Result<()> {
        for _ in 0..PATIENCE {
            // A blob on its way back is found in one of the two places, because they are searched in this
            // order.
            if self.check_blobs(meta).is_ok() || !self.is_any_aside(meta.data_blobs())? {
                break;
            }
            thread::sleep(INTERVAL);
        }
        self.check_blobs(meta)
    }

    /// Reads a whole small blob, such as a manifest, and verifies its digest.
    pub(crate) fn read_blob(&self, digest: Digest, limit: u64) -> Result<Vec<u8>> {
        let path = self.blob_path(digest);
        match self.blob_size(digest)? {
            None => {
                return Err(Error::NotFound(format!(
                    "blob {digest} in {}",
                    self.title()
                )));
            }
            Some(size) if size > limit => {
                return Err(Error::invalid(
                    format!("blob {digest}"),
                    format!("has {size} bytes, more than the {limit} allowed for a document"),
                ));
            }
            Some(_) => {}
        }
        let content = fs::read(&path).map_err(Error::io("read", &path))?;
        let found = Digest::of(&content);
        if found != digest {
            return Err(Error::Corrupt {
                expected: digest,
                found: format!("{found} of {} bytes, in {}", content.len(), path.display()),
            });
        }
        Ok(content)
    }
}
