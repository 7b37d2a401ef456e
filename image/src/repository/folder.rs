//! One repository's directory: its version, its metadata files, publishing and deleting them.
//!
//! A missing directory is made on first use, in one step: it is filled under a temporary name and renamed into
//! place.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use pcocc_core::hex::hex;
use pcocc_core::publish;
use pcocc_core::repos::LayerCompression;
use rustix::fs::OFlags;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use crate::error::{Error, Result};
use crate::ingest::Options;
use crate::oci::MAX_DOCUMENT;
use crate::reference::check_name;
use crate::repository::meta::Meta;
use crate::repository::temp;
use pcocc_layers::Compression;

/// Version of the repositories pcocc writes.
const VERSION: u32 = 2;

/// A repository of images in one directory. Shared between threads; its only state is the path.
#[derive(Debug)]
pub struct Repository {
    name: String,
    path: PathBuf,
    options: Options,
    pub(crate) layers: parking_lot::Mutex<crate::repository::layer_index::LayerIndex>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    version: f64,
}

impl Repository {
    /// The repository `name` at `path`; nothing is read or made yet.
    pub fn new(name: impl Into<String>, path: impl Into<PathBuf>) -> Self {
        Self {
            name: name.into(),
            path: path.into(),
            options: Options::default(),
            layers: Default::default(),
        }
    }

    /// The same repository with other options for received images.
    #[must_use]
    pub fn with_layers(mut self, compression: LayerCompression) -> Self {
        (self.options.compression, self.options.recompress) = match compression {
            LayerCompression::Keep => (Compression::Gzip, false),
            LayerCompression::Gzip => (Compression::Gzip, true),
            LayerCompression::None => (Compression::None, true),
        };
        self
    }

    /// How images are received.
    pub fn options(&self) -> Options {
        self.options
    }

    /// Its name in URIs.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The format version, 1 or 2; makes the repository when its directory is missing.
    ///
    /// Fails with [`Error::Invalid`] when what is there is not a repository pcocc can use.
    pub fn version(&self) -> Result<u32> {
        match self.existing_version()? {
            Some(version) => Ok(version),
            None => {
                self.create()?;
                self.existing_version()?
                    .ok_or_else(|| Error::NotFound(self.title()))
            }
        }
    }

    /// The format version for reading; `None` when the repository is missing and cannot be made.
    pub(crate) fn version_to_read(&self) -> Result<Option<u32>> {
        match self.existing_version()? {
            Some(version) => Ok(Some(version)),
            None => match self.create() {
                Ok(()) => self.existing_version(),
                Err(Error::Denied { .. } | Error::Io { .. }) => Ok(None),
                Err(error) => Err(error),
            },
        }
    }

    pub(super) fn existing_version(&self) -> Result<Option<u32>> {
        let file = self.path.join(".config");
        let text = match fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                return Err(self.unusable("is a file, not a directory"));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return self.missing_config();
            }
            Err(error) => return Err(self.unusable(format!("cannot be read: {error}"))),
        };
        let config: Config = pcocc_core::yaml::parse(&text, &file)
            .map_err(|error| self.unusable(format!("has a bad config file: {error}")))?;
        if config.version == 1.0 {
            Ok(Some(1))
        } else if config.version == 2.0 {
            Ok(Some(2))
        } else {
            Err(self.unusable(format!(
                "is of version {}; this pcocc knows versions 1 and 2: use a newer pcocc",
                config.version
            )))
        }
    }

    /// Tells a directory that may be made from a directory of something else.
    fn missing_config(&self) -> Result<Option<u32>> {
        match fs::read_dir(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                Err(self.unusable("is a file, not a directory"))
            }
            Err(error) => Err(self.unusable(format!("cannot be read: {error}"))),
            Ok(mut entries) => match entries.next() {
                None => Ok(None),
                Some(_) => Err(self.unusable(
                    "is a directory with other content and no .config file: not a repository; name an empty or missing one",
                )),
            },
        }
    }

    fn create(&self) -> Result<()> {
        let parent = self.path.parent().unwrap_or(Path::new("/"));
        let denied = |error: io::Error| Error::Denied {
            what: self.title(),
            why: format!("cannot be created: {error}"),
        };
        fs::create_dir_all(parent).map_err(denied)?;
        let draft = tempfile::Builder::new()
            .prefix(&format!(".{}", temp::prefix()))
            // The umask decides, as for any directory.
            .permissions(fs::Permissions::from_mode(0o777))
            .tempdir_in(parent)
            .map_err(denied)?;
        for dir in ["data", "meta", ".tmp"] {
            fs::create_dir(draft.path().join(dir)).map_err(denied)?;
        }
        let mut config = fs::File::create(draft.path().join(".config")).map_err(denied)?;
        config
            .write_all(format!("version: {VERSION}\n").as_bytes())
            .and_then(|()| config.sync_all())
            .map_err(denied)?;
        match fs::rename(draft.path(), &self.path) {
            Ok(()) => publish::sync_parent(&self.path).map_err(denied),
            // Another process was faster.
            Err(_) if self.path.join(".config").exists() => Ok(()),
            Err(error) => Err(denied(error)),
        }
    }

    pub(crate) fn title(&self) -> String {
        format!("repository {} at {}", self.name, self.path.display())
    }

    pub(crate) fn unusable(&self, why: impl Into<String>) -> Error {
        Error::invalid(self.title(), why)
    }

    /// Makes the repository if it is missing; fails with [`Error::Denied`] unless new images can be written.
    pub fn check_writable(&self) -> Result<()> {
        self.version()?;
        temp::file_in(&self.temp_dir(), 0o666)
            .map(drop)
            .map_err(|error| self.write_error(error))
    }

    /// Turns a failed write into an error that says what kind of failure it is.
    pub(crate) fn write_error(&self, error: io::Error) -> Error {
        match error.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Error::Denied {
                what: self.title(),
                why: format!("cannot be written: {error}; choose another with REPO:IMAGE"),
            },
            _ => Error::io("write to repository", &self.path)(error),
        }
    }

    pub(crate) fn temp_dir(&self) -> PathBuf {
        self.path.join(".tmp")
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.path.join("data")
    }

    pub(crate) fn meta_dir(&self) -> PathBuf {
        self.path.join("meta")
    }

    /// The file that holds the metadata of a revision.
    pub(crate) fn meta_path(&self, version: u32, name: &str, revision: u64) -> PathBuf {
        if version >= 2 {
            return self.meta_dir().join(format!("{name}@{revision}"));
        }
        let hash = Sha256::digest(format!("{name}\n{revision}"));
        let hex = hex(&hash);
        self.meta_dir().join(hex.get(..2).unwrap_or("")).join(hex)
    }

    /// The metadata of the revision, or of the image's highest revision.
    ///
    /// Fails with [`Error::NotFound`] when there is none, and with [`Error::Invalid`] when the file is not
    /// metadata of pcocc.
    pub fn meta(&self, name: &str, revision: Option<u64>) -> Result<Meta> {
        check_name(name)?;
        let not_found = |revision: Option<u64>| {
            Error::NotFound(match revision {
                Some(revision) => format!("image {}:{name}@{revision}", self.name),
                None => format!("image {}:{name}", self.name),
            })
        };
        let Some(version) = self.version_to_read()? else {
            return Err(not_found(revision));
        };
        let revision = match revision {
            Some(revision) => revision,
            None => self
                .revisions(name)?
                .last()
                .copied()
                .ok_or_else(|| not_found(None))?,
        };
        let path = self.meta_path(version, name, revision);
        let meta = match self.read_meta(version, &path) {
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Err(not_found(Some(revision)));
            }
            result => result?,
        };
        if (meta.name(), meta.revision()) != (name, revision) {
            return Err(Error::invalid(
                format!("metadata {}", path.display()),
                format!("is of {}@{}", meta.name(), meta.revision()),
            ));
        }
        Ok(meta)
    }

    pub(crate) fn read_meta(&self, version: u32, path: &Path) -> Result<Meta> {
        // Opening must not block: a pipe in place of the file would hold everything up.
        let file = fs::OpenOptions::new()
            .read(true)
            .custom_flags(OFlags::NONBLOCK.bits() as i32)
            .open(path)
            .map_err(Error::io("read", path))?;
        let metadata = file.metadata().map_err(Error::io("read", path))?;
        let named = |error| match error {
            Error::Invalid { what, why } if what == "metadata" => {
                Error::invalid(format!("metadata {}", path.display()), why)
            }
            Error::Invalid { what, why } => Error::invalid(
                format!("metadata {}", path.display()),
                format!("is bad: {what} {why}"),
            ),
            other => other,
        };
        if !metadata.is_file() {
            return Err(Error::invalid(
                format!("metadata {}", path.display()),
                "is not a regular file",
            ));
        }
        if metadata.len() > MAX_DOCUMENT {
            return Err(Error::invalid(
                format!("metadata {}", path.display()),
                format!("is larger than {MAX_DOCUMENT} bytes"),
            ));
        }
        let mut content = Vec::with_capacity(metadata.len() as usize + 1);
        file.take(MAX_DOCUMENT + 1)
            .read_to_end(&mut content)
            .map_err(Error::io("read", path))?;
        let text = String::from_utf8(content)
            .map_err(|_| named(Error::invalid("metadata", "is not UTF-8")))?;
        if version >= 2 {
            Meta::parse(&text).map_err(named)
        } else {
            Meta::parse_yaml(&text, path).map_err(named)
        }
    }

    /// The revisions of an image in ascending order; empty when there is no such image.
    pub fn revisions(&self, name: &str) -> Result<Vec<u64>> {
        let Some(version) = self.version_to_read()? else {
            return Ok(Vec::new());
        };
        let mut revisions = Vec::new();
        if version >= 2 {
            // Nearly every image has only revision 0; the others need a listing, of perhaps ten thousand names.
            for file in self.meta_files()? {
                if let Some((image, revision)) = split_meta_name(&file)
                    && image == name
                {
                    revisions.push(revision);
                }
            }
        } else {
            for meta in self.list()?.metas {
                if meta.name() == name {
                    revisions.push(meta.revision());
                }
            }
        }
        revisions.sort_unstable();
        Ok(revisions)
    }

    /// Names of the files in `meta/` of a version 2 repository, dot files left out as pcocc 0.7 does.
    pub(crate) fn meta_files(&self) -> Result<Vec<String>> {
        let dir = self.meta_dir();
        let mut files = Vec::new();
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(error) => return Err(self.unusable(format!("has no readable meta/: {error}"))),
        };
        for entry in entries {
            let entry = entry.map_err(Error::io("list", &dir))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if !name.starts_with('.') {
                files.push(name);
            }
        }
        Ok(files)
    }

    /// Publishes the metadata of a new revision, atomically; its blobs must be there.
    ///
    /// Never overwrites. Fails with [`Error::Exists`] when the revision exists, whoever made it, and with
    /// [`Error::NotFound`] when a blob is missing.
    pub fn publish(&self, meta: &Meta) -> Result<()> {
        let version = self.version()?;
        self.check_blobs_patiently(meta)?;
        let path = self.meta_path(version, meta.name(), meta.revision());
        let mut temp = temp::file_in(&self.temp_dir(), 0o666).map_err(|e| self.write_error(e))?;
        temp.write_all(meta.render().as_bytes())
            .and_then(|()| temp.as_file().sync_all())
            .map_err(|e| self.write_error(e))?;
        if version < 2
            && let Some(parent) = path.parent()
        {
            fs::create_dir_all(parent).map_err(|e| self.write_error(e))?;
        }
        publish::create_new(temp.path(), &path).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => {
                Error::Exists(format!("image {}:{}", self.name, meta.name()))
            }
            _ => self.write_error(error),
        })?;
        // Garbage collection may have taken a blob between the check and the publishing. It reads the metadata
        // once more before it deletes for good, so either the writer or the collector notices.
        if let Err(error) = self.check_blobs_patiently(meta) {
            if let Err(error) = fs::remove_file(&path) {
                tracing::warn!(%error, path = %path.display(), "metadata without blobs stays");
            }
            return Err(error);
        }
        Ok(())
    }

    /// Deletes one revision of an image, or all; returns the deleted revisions. Blobs stay until garbage
    /// collection.
    ///
    /// Fails with [`Error::NotFound`] when there is none.
    pub fn delete(&self, name: &str, revision: Option<u64>) -> Result<Vec<u64>> {
        check_name(name)?;
        let version = self.version()?;
        let revisions = match revision {
            Some(revision) => vec![revision],
            None => self.revisions(name)?,
        };
        let mut deleted = Vec::new();
        // The highest revision goes last: until then the image's name means the same image.
        for revision in revisions {
            let path = self.meta_path(version, name, revision);
            match fs::remove_file(&path) {
                Ok(()) => deleted.push(revision),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(self.write_error(error)),
            }
            if version < 2
                && let Some(parent) = path.parent()
            {
                // The folder stays if other files are in it.
                let _ = fs::remove_dir(parent);
            }
        }
        if deleted.is_empty() {
            let suffix = revision.map(|r| format!("@{r}")).unwrap_or_default();
            return Err(Error::NotFound(format!(
                "image {}:{name}{suffix}",
                self.name
            )));
        }
        publish::sync_parent(&self.meta_path(version, name, 0))
            .map_err(|e| self.write_error(e))
            .or_else(|error| if version < 2 { Ok(()) } else { Err(error) })?;
        Ok(deleted)
    }
}

/// Splits `NAME@REV`, the name of a metadata file.
pub(crate) fn split_meta_name(file: &str) -> Option<(&str, u64)> {
    let (name, revision) = file.rsplit_once('@')?;
    check_name(name).ok()?;
    // "07" is refused: revision 7 is looked for in `NAME@7`.
    let number: u64 = revision.parse().ok()?;
    (number.to_string() == revision).then_some((name, number))
}
