//! One repository's directory: its version, its metadata files, publishing and deleting them.
//!
//! A missing directory is made on first use, in one step: it is filled under a temporary name and renamed into
//! place.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use pcocc_core::beneath::{OpenFolder, Refusal, TempFile};
use pcocc_core::durable;
use pcocc_core::hex::hex;
use pcocc_core::repos::LayerCompression;
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

/// Directory of blobs.
pub(crate) const DATA: &str = "data";
/// Directory of metadata.
pub(crate) const META: &str = "meta";
/// Directory for work in progress.
pub(crate) const TEMP: &str = ".tmp";

/// Largest `.config` that is read, in bytes.
const MAX_CONFIG: u64 = 64 << 10;

/// A repository of images in one directory. Shared between threads; holds no state but its place.
#[derive(Debug)]
pub struct Repository {
    name: String,
    path: PathBuf,
    options: Options,
    /// The directory, as it was opened last: another may be in its place when the version is read again.
    root: Mutex<Option<OpenFolder>>,
    pub(crate) layers: Mutex<crate::repository::layer_index::LayerIndex>,
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
            root: Mutex::default(),
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

    /// Opens the directory anew.
    pub(crate) fn reopen(&self) -> io::Result<OpenFolder> {
        let root = OpenFolder::open(&self.path)?;
        *self.root.lock() = Some(root.clone());
        Ok(root)
    }

    /// The directory, below which nothing is reached through a link.
    pub(crate) fn root(&self) -> Result<OpenFolder> {
        if let Some(root) = &*self.root.lock() {
            return Ok(root.clone());
        }
        self.reopen()
            .map_err(|error| self.unusable(format!("cannot be read: {error}")))
    }

    /// The directory of metadata.
    pub(crate) fn metas(&self) -> Result<OpenFolder> {
        let metas = self.root()?.folder(META);
        metas.map_err(|error| self.unusable(format!("has no readable meta/: meta/ {error}")))
    }

    /// Makes a closure for `map_err` that names what is at `name` in the repository.
    pub(crate) fn below(
        &self,
        action: &'static str,
        name: impl AsRef<Path>,
    ) -> impl FnOnce(io::Error) -> Error {
        let path = self.path.join(name);
        move |error| refused(action, &path, error)
    }

    pub(super) fn existing_version(&self) -> Result<Option<u32>> {
        const CONFIG: &str = ".config";
        let root = match self.reopen() {
            Ok(root) => root,
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                return Err(self.unusable("is a file, not a directory"));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.unusable(format!("cannot be read: {error}"))),
        };
        let bad = |why: String| self.unusable(format!("has a bad config file: {why}"));
        let text = match root.read(CONFIG, MAX_CONFIG) {
            Ok(text) => String::from_utf8(text).map_err(|_| bad(".config is not UTF-8".into()))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return self.missing_config(&root);
            }
            Err(error) if Refusal::of(&error).is_some() => {
                return Err(bad(format!(".config {error}")));
            }
            Err(error) => return Err(self.unusable(format!("cannot be read: {error}"))),
        };
        let config: Config = pcocc_core::yaml::parse(&text, &self.path.join(CONFIG))
            .map_err(|error| bad(error.to_string()))?;
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

    /// Tells a directory that may be made from one that is something else.
    fn missing_config(&self, root: &OpenFolder) -> Result<Option<u32>> {
        match root.names() {
            Err(error) => Err(self.unusable(format!("cannot be read: {error}"))),
            Ok(names) if names.is_empty() => Ok(None),
            Ok(_) => Err(self.unusable(
                "is a directory with other content and no .config file: not a repository; name an empty or missing one",
            )),
        }
    }

    fn create(&self) -> Result<()> {
        let parent = self.path.parent().unwrap_or(Path::new("/"));
        let denied = |error: io::Error| Error::Denied {
            what: self.title(),
            why: format!("cannot be created: {error}"),
        };
        let create = || {
            durable::create_folders(parent, 0o777)?;
            let parent = OpenFolder::open(parent)?;
            // The umask decides, as for any directory.
            let mut draft = parent.temp_folder(&format!(".{}", temp::prefix()), 0o777)?;
            let root = draft.folder();
            let mut config = root.create_file(".config", 0o666)?;
            config.write_all(format!("version: {VERSION}\n").as_bytes())?;
            config.sync_all()?;
            // The last one flushes all names.
            for dir in [DATA, META, TEMP] {
                root.folder_or_new(dir, 0o777)?;
            }
            draft.replace_empty(&parent, self.path.file_name().unwrap_or_default())
        };
        match create() {
            // Another process was faster.
            Err(_) if self.path.join(".config").exists() => Ok(()),
            created => created.map_err(denied),
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
        self.temp(0o666).map(drop)
    }

    /// The directory for work in progress; made when it is missing.
    pub(crate) fn temp_folder(&self) -> Result<OpenFolder> {
        let folder = self.root()?.folder_or_new(TEMP, 0o777);
        folder.map_err(|error| self.write_error(TEMP, error))
    }

    /// Makes a temporary file with the permission bits `mode` as the umask allows.
    pub(crate) fn temp(&self, mode: u32) -> Result<TempFile> {
        let temp = self.temp_folder()?.temp(&temp::prefix(), mode);
        temp.map_err(|error| self.write_error(TEMP, error))
    }

    /// Turns a failed write of what is at `name` into an error that says what kind of failure it is.
    pub(crate) fn write_error(&self, name: impl AsRef<Path>, error: io::Error) -> Error {
        match error.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Error::Denied {
                what: self.title(),
                why: format!("cannot be written: {error}; choose another with REPO:IMAGE"),
            },
            _ if Refusal::of(&error).is_some() => self.below("write", name)(error),
            _ => Error::io("write to repository", &self.path)(error),
        }
    }

    /// The name in `meta/` of the file that holds the metadata of a revision.
    pub(crate) fn meta_name(version: u32, name: &str, revision: u64) -> PathBuf {
        if version >= 2 {
            return format!("{name}@{revision}").into();
        }
        let hash = Sha256::digest(format!("{name}\n{revision}"));
        let hex = hex(&hash);
        Path::new(hex.get(..2).unwrap_or("")).join(&hex)
    }

    /// Where that file is, for messages.
    pub(crate) fn meta_path(&self, version: u32, name: &str, revision: u64) -> PathBuf {
        self.path
            .join(META)
            .join(Self::meta_name(version, name, revision))
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
        let file = Self::meta_name(version, name, revision);
        let path = self.meta_path(version, name, revision);
        let meta = match self.read_meta(version, &self.metas()?, &file) {
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

    /// Reads the file `name` of the directory `metas`.
    pub(crate) fn read_meta(&self, version: u32, metas: &OpenFolder, name: &Path) -> Result<Meta> {
        let path = || metas.path().join(name);
        let what = || format!("metadata {}", path().display());
        let named = |error| match error {
            Error::Invalid { what: bad, why } if bad == "metadata" => Error::invalid(what(), why),
            Error::Invalid { what: bad, why } => {
                Error::invalid(what(), format!("is bad: {bad} {why}"))
            }
            other => other,
        };
        let content =
            metas
                .read(name, MAX_DOCUMENT)
                .map_err(|error| match Refusal::of(&error) {
                    Some(refusal) => Error::invalid(what(), refusal.to_string()),
                    None => Error::io("read", path())(error),
                })?;
        let text = String::from_utf8(content)
            .map_err(|_| named(Error::invalid("metadata", "is not UTF-8")))?;
        if version >= 2 {
            Meta::parse(&text).map_err(named)
        } else {
            Meta::parse_yaml(&text, &path()).map_err(named)
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
        let names = self
            .metas()?
            .names()
            .map_err(|error| self.unusable(format!("has no readable meta/: {error}")))?;
        let mut files: Vec<String> = names
            .into_iter()
            .map(|name| name.to_string_lossy().into_owned())
            .collect();
        files.retain(|name| !name.starts_with('.'));
        Ok(files)
    }

    /// Publishes the metadata of a new revision, atomically; its blobs must be there.
    ///
    /// Never overwrites. Fails with [`Error::Exists`] when the revision exists, whoever made it, and with
    /// [`Error::NotFound`] when a blob is missing.
    pub fn publish(&self, meta: &Meta) -> Result<()> {
        let version = self.version()?;
        self.check_blobs_patiently(meta)?;
        let metas = self.metas()?;
        let file = Self::meta_name(version, meta.name(), meta.revision());
        let failed = |error| self.write_error(Path::new(META).join(&file), error);
        // Others of the user's group could change what is theirs to write, and it would be believed as the user's.
        let mut temp = self.temp(0o644)?;
        temp.write_all(meta.render().as_bytes()).map_err(failed)?;
        if version < 2
            && let Some(parent) = file.parent()
        {
            metas.folder_or_new(parent, 0o777).map_err(failed)?;
        }
        temp.create_new(&metas, &file)
            .map_err(|error| match error.kind() {
                io::ErrorKind::AlreadyExists => {
                    Error::Exists(format!("image {}:{}", self.name, meta.name()))
                }
                _ => failed(error),
            })?;
        // Garbage collection may have taken a blob between the check and the publishing. It looks at
        // the metadata once more before it deletes for good, so one of the two sees the other.
        if let Err(error) = self.check_blobs_patiently(meta) {
            if let Err(error) = metas.remove_file(&file) {
                tracing::warn!(%error, path = %file.display(), "metadata without blobs stays");
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
        let metas = self.metas()?;
        // The highest revision goes last: the image stays what it is until it is gone.
        for revision in revisions {
            let file = Self::meta_name(version, name, revision);
            match metas.remove_file(&file) {
                Ok(()) => deleted.push(revision),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(self.write_error(Path::new(META).join(file), error)),
            }
            if version < 2
                && let Some(parent) = file.parent()
            {
                // Fails when others are in it.
                let _ = metas.remove_folder(parent);
            }
        }
        if deleted.is_empty() {
            let suffix = revision.map(|r| format!("@{r}")).unwrap_or_default();
            return Err(Error::NotFound(format!(
                "image {}:{name}{suffix}",
                self.name
            )));
        }
        metas
            .sync()
            .map_err(|error| self.write_error(META, error))?;
        Ok(deleted)
    }
}

/// What went wrong with the file `path` in a repository or cache; what is refused there is invalid, not a failed call.
pub(crate) fn refused(action: &'static str, path: &Path, error: io::Error) -> Error {
    match Refusal::of(&error) {
        Some(refusal) => Error::invalid(path.display().to_string(), refusal.to_string()),
        None => Error::io(action, path)(error),
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
