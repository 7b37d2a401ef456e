//! Blob files: found by digest, written under a temporary name, published by rename.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, SystemTime};

use pcocc_core::beneath::{self, Found, OpenFolder, Refusal, TempFile};
use pcocc_core::trust;

use crate::error::{Error, Result};
use crate::repository::folder::{DATA, Repository};
use crate::repository::meta::Meta;
use pcocc_layers::Digest;
use pcocc_layers::digest::Hashing;

/// Age below which a reused blob keeps its time.
const FRESH: Duration = Duration::from_secs(600);

/// Pause between two looks for a blob that was moved aside, and the number of looks.
const INTERVAL: Duration = Duration::from_millis(10);
const PATIENCE: u32 = 100;

/// The name of a blob's file in the repository.
pub(crate) fn blob_name(digest: Digest) -> PathBuf {
    let hex = digest.hex();
    let mut name = PathBuf::with_capacity(DATA.len() + 4 + hex.len());
    name.push(DATA);
    name.push(hex.get(..2).unwrap_or(""));
    name.push(hex);
    name
}

impl Repository {
    /// The place of a blob, whether there or not, for messages.
    pub fn blob_path(&self, digest: Digest) -> PathBuf {
        self.path().join(blob_name(digest))
    }

    /// Makes a closure for `map_err` that names a blob.
    pub(crate) fn on_blob(
        &self,
        action: &'static str,
        digest: Digest,
    ) -> impl FnOnce(io::Error) -> Error {
        let path = self.blob_path(digest);
        move |error| match Refusal::of(&error) {
            Some(refusal) => {
                Error::invalid(format!("blob {}", path.display()), refusal.to_string())
            }
            None => Error::io(action, path)(error),
        }
    }

    /// Size of a blob in bytes; `None` when the repository does not have it.
    pub fn blob_size(&self, digest: Digest) -> Result<Option<u64>> {
        match self.root()?.stat(blob_name(digest)) {
            Ok(found) if found.is_file() => Ok(Some(found.size)),
            Ok(_) => Err(self.on_blob("look for", digest)(Refusal::NotRegular.into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.on_blob("look for", digest)(error)),
        }
    }

    /// Opens a blob.
    ///
    /// Fails with [`Error::NotFound`] when the repository does not have it.
    pub fn open_blob(&self, digest: Digest) -> Result<File> {
        match self.root()?.open_file(blob_name(digest)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Error::NotFound(format!(
                "blob {digest} in {}",
                self.title()
            ))),
            opened => opened.map_err(self.on_blob("open", digest)),
        }
    }

    /// Starts a new blob in the repository's folder for work in progress.
    pub fn temp_blob(&self) -> Result<TempFile> {
        self.temp(0o666)
    }

    /// Flushes a blob to disk and gives it its place. The content must have been verified to be
    /// `digest`. What has the place already is replaced: nobody knows whether it is still as good.
    pub fn publish_blob(&self, mut temp: TempFile, digest: Digest) -> Result<()> {
        match self.place(&mut temp, digest) {
            // The directory may be one in which only its owner can replace a blob.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                if self.is_intact(digest)? && self.refresh_blob(digest)? {
                    return Ok(());
                }
                Err(self.write_error(blob_name(digest), error))
            }
            result => result.map_err(|error| self.write_error(blob_name(digest), error)),
        }
    }

    /// Whether the blob is there and its content has its digest.
    pub(crate) fn is_intact(&self, digest: Digest) -> Result<bool> {
        let mut content = match self.root()?.open_file(blob_name(digest)) {
            Ok(file) => Hashing::new(file),
            Err(error)
                if error.kind() == io::ErrorKind::NotFound || Refusal::of(&error).is_some() =>
            {
                return Ok(false);
            }
            Err(error) => return Err(self.on_blob("open", digest)(error)),
        };
        io::copy(&mut content, &mut io::sink()).map_err(self.on_blob("read", digest))?;
        Ok(content.finish().0 == digest)
    }

    /// Links a blob of another repository into this one; `false` when file system, owner or size forbid it.
    pub(crate) fn link_blob(&self, other: &Self, digest: Digest, size: u64) -> Result<bool> {
        let name = blob_name(digest);
        let (from, to) = (other.root()?, self.root()?);
        let Ok(found) = from.stat(&name) else {
            return Ok(false);
        };
        let is_read_only = found.mode & 0o222 == 0;
        if !found.is_file() || found.size != size || !trust::is_trusted(&found) || !is_read_only {
            return Ok(false);
        }
        let linked = create_parent(&to, &name)
            .and_then(|()| from.link(&name, &to, &name))
            .and_then(|()| to.sync_folder_of(&name));
        match linked {
            Ok(()) => self.reuse_blob(digest, size),
            Err(error) => {
                tracing::debug!(%error, %digest, "a blob is copied, not linked");
                Ok(false)
            }
        }
    }

    /// Whether `file` is the blob.
    pub(crate) fn has_as_blob(&self, digest: Digest, file: &Found) -> bool {
        let found = self.root().map(|root| root.stat(blob_name(digest)));
        matches!(found, Ok(Ok(found)) if found.identity == file.identity)
    }

    fn place(&self, temp: &mut TempFile, digest: Digest) -> io::Result<()> {
        let root = self.root()?;
        let name = blob_name(digest);
        temp.as_file()
            .set_permissions(fs::Permissions::from_mode(0o444))?;
        let mut tries = 0;
        loop {
            create_parent(&root, &name)?;
            match temp.replace(&root, &name) {
                // Garbage collection, ours or pcocc 0.7's, removed the empty folder just now.
                Err(error) if error.kind() == io::ErrorKind::NotFound && tries < 5 => tries += 1,
                result => return result,
            }
        }
    }

    /// Gives a reused blob the present time, so that garbage collection spares it until metadata names it.
    ///
    /// Returns `false` when the blob cannot be relied on: it is gone, or it is old and of another owner.
    pub fn refresh_blob(&self, digest: Digest) -> Result<bool> {
        let (root, name) = (self.root()?, blob_name(digest));
        let found = match root.stat(&name) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(self.on_blob("look for", digest)(error)),
        };
        let age = SystemTime::now().duration_since(found.modified).ok();
        if age.is_some_and(|age| age < FRESH) {
            return Ok(true);
        }
        match root.touch(&name) {
            Ok(()) => Ok(true),
            Err(error) => {
                // Publishing checks its blobs once more, so this costs nothing but a retry.
                tracing::debug!(%error, %digest, "cannot refresh the time of a blob");
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
        let file = self.open_blob(digest)?;
        let content = beneath::read(file, limit).map_err(|error| match Refusal::of(&error) {
            Some(_) => Error::invalid(
                format!("blob {digest}"),
                format!("has more than the {limit} bytes allowed for a document"),
            ),
            None => self.on_blob("read", digest)(error),
        })?;
        let found = Digest::of(&content);
        if found != digest {
            let path = self.blob_path(digest);
            return Err(Error::Corrupt {
                expected: digest,
                found: format!("{found} of {} bytes, in {}", content.len(), path.display()),
            });
        }
        Ok(content)
    }
}

/// Makes the folder of a blob when it is missing.
pub(crate) fn create_parent(root: &OpenFolder, name: &Path) -> io::Result<()> {
    let parent = name.parent().unwrap_or(name);
    root.folder_or_new(parent, 0o777).map(drop)
}
