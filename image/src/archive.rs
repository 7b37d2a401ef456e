//! Archives as `docker save` writes them (`docker-archive:PATH`).

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::oci::Image;
use crate::transfer::{Context, Receiver, Sink, Source};

/// One image of a docker archive file, as a [`Source`].
#[derive(Debug)]
pub struct ArchiveFile {
    path: PathBuf,
}

impl ArchiveFile {
    /// Reads the archive's index and picks the image called `reference`, or the only one.
    pub fn open(path: &Path, reference: Option<&str>) -> Result<Self> {
        let _ = reference;
        Ok(Self {
            path: path.to_owned(),
        })
    }
}

impl Source for ArchiveFile {
    fn send(&self, _: &mut dyn Receiver, _: &Context) -> Result<Image> {
        Err(Error::invalid(
            self.path.display().to_string(),
            "cannot be read yet",
        ))
    }
}

/// A [`Sink`] that creates a docker archive file.
#[derive(Debug)]
pub struct ArchiveSink {
    path: PathBuf,
    reference: Option<String>,
}

impl ArchiveSink {
    /// Makes a sink for the new file `path`; the image is called `reference` in it.
    pub fn new(path: &Path, reference: Option<&str>) -> Self {
        Self {
            path: path.to_owned(),
            reference: reference.map(str::to_owned),
        }
    }
}

impl Sink for ArchiveSink {
    fn open(&self, _: &Context) -> Result<Box<dyn Receiver + '_>> {
        Err(Error::invalid(
            format!("{} {:?}", self.path.display(), self.reference),
            "cannot be written yet",
        ))
    }
}

/// Tells whether a file is a tar archive, plain or compressed.
pub fn looks_like(path: &Path) -> Result<bool> {
    use std::io::Read;
    let mut start = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(512).read_to_end(&mut start))
        .map_err(Error::io("read", path))?;
    Ok(start.get(257..262) == Some(b"ustar")
        || start.starts_with(&[0x1f, 0x8b])
        || start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]))
}

/// Gives a complete temporary file its name, which must be free, with the mode the umask asks for.
pub(crate) fn publish_file(temp: tempfile::NamedTempFile, path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    temp.as_file()
        .set_permissions(std::fs::Permissions::from_mode(0o644))
        .and_then(|()| temp.as_file().sync_all())
        .map_err(Error::io("write", path))?;
    match temp.persist_noclobber(path) {
        Ok(_) => {}
        Err(error) if error.error.kind() == std::io::ErrorKind::AlreadyExists => {
            return Err(Error::Exists(path.display().to_string()));
        }
        Err(error) => return Err(Error::io("create", path)(error.error)),
    }
    pcocc_core::publish::sync_parent(path).map_err(Error::io("write", path))
}
