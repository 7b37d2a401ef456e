//! OCI image layouts in a folder (`oci:PATH[:TAG]`; OCI image spec, "Image Layout").
//!
//! Disk layout: `oci-layout` (version), `index.json` (the images, by name), `blobs/sha256/HEX`. Reading:
//! version → index → the named image, through nested indexes to this machine's platform → manifest and config,
//! verified → layers as files of the folder. Files outside of the folder are never read, whatever the links in
//! it say. [`LayoutSink`] writes.

mod marker;
mod sink;

pub use marker::{MARKER, MARKER_NAME, check_marker};
pub use sink::LayoutSink;

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::oci::{self, Documents, Image, Layer, MAX_DOCUMENT, ManifestDescriptor};
use crate::stream;
use crate::transfer::{Context, Layout};
use pcocc_layers::Digest;

/// Most names that a message lists.
const MAX_SHOWN: usize = 20;

/// One image of an OCI image layout in a folder.
#[derive(Debug)]
pub struct LayoutFolder {
    /// The folder, every link resolved.
    root: PathBuf,
    manifest: ManifestDescriptor,
}

impl LayoutFolder {
    /// Opens the layout in the folder `path`: its image `tag`, or its only image.
    pub fn open(path: &Path, tag: Option<&str>) -> Result<Self> {
        let root = fs::canonicalize(path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                Error::NotFound(format!("OCI image layout {}", path.display()))
            }
            _ => Error::io("open", path)(error),
        })?;
        if !root.is_dir() {
            return Err(Error::invalid(
                path.display().to_string(),
                "is not a folder, so it is no OCI image layout",
            ));
        }
        read_marker(&root, path)?;
        let manifests = oci::parse_index(&read_document(&root, "index.json")?)?;
        let manifest = choose(&manifests, tag, path)?.clone();
        Ok(Self { root, manifest })
    }

    /// The file of a blob: regular, and inside the folder.
    fn blob_path(&self, digest: Digest) -> Result<PathBuf> {
        inside(&self.root, &format!("blobs/sha256/{}", digest.hex()))
    }
}

impl Documents for LayoutFolder {
    type Error = Error;

    fn root(&self) -> Result<Vec<u8>> {
        self.document(self.manifest.digest, self.manifest.size)
    }

    fn document(&self, digest: Digest, size: u64) -> Result<Vec<u8>> {
        let path = self.blob_path(digest)?;
        let file = File::open(&path).map_err(Error::io("open", &path))?;
        stream::document(file, digest, size)
    }
}

impl Layout for LayoutFolder {
    fn image(&self, context: &Context) -> Result<Image> {
        context.check()?;
        Documents::image(self)
    }

    fn open_layer<'a>(&'a self, layer: &Layer) -> Result<Box<dyn Read + Send + 'a>> {
        let path = self.blob_path(layer.digest)?;
        let file = File::open(&path).map_err(Error::io("open", &path))?;
        let found = file.metadata().map_err(Error::io("read", &path))?.len();
        if found != layer.size {
            return Err(Error::Corrupt {
                expected: layer.digest,
                found: format!("{found} bytes instead of {}", layer.size),
            });
        }
        Ok(Box::new(file))
    }

    fn layer_file(&self, layer: &Layer) -> Option<PathBuf> {
        let path = self.blob_path(layer.digest).ok()?;
        let size = fs::metadata(&path).ok()?.len();
        (size == layer.size).then_some(path)
    }
}

/// Picks the image `tag`, or the only image, out of an `index.json`.
fn choose<'a>(
    manifests: &'a [ManifestDescriptor],
    tag: Option<&str>,
    path: &Path,
) -> Result<&'a ManifestDescriptor> {
    let names = || {
        let mut names: Vec<_> = manifests.iter().filter_map(|m| m.name.as_deref()).collect();
        names.dedup();
        names
    };
    let Some(tag) = tag else {
        if names().len() > 1 {
            return Err(Error::invalid(
                path.display().to_string(),
                format!(
                    "holds several images: {}; choose one with oci:{}:TAG",
                    list(&names()),
                    path.display()
                ),
            ));
        }
        return oci::select_manifest(manifests);
    };
    let called: Vec<ManifestDescriptor> = manifests
        .iter()
        .filter(|manifest| manifest.name.as_deref() == Some(tag))
        .cloned()
        .collect();
    if called.is_empty() {
        return Err(Error::NotFound(format!(
            "tag {:?} in the OCI image layout {} (it holds {})",
            tag.chars().take(100).collect::<String>(),
            path.display(),
            list(&names())
        )));
    }
    let digest = oci::select_manifest(&called)?.digest;
    manifests
        .iter()
        .find(|manifest| manifest.name.as_deref() == Some(tag) && manifest.digest == digest)
        .ok_or_else(|| Error::NotFound(format!("image {digest}")))
}

/// The first names of several, for a message.
pub(crate) fn list(names: &[&str]) -> String {
    if names.is_empty() {
        return "only images without a name".to_owned();
    }
    let mut shown: Vec<String> = names
        .iter()
        .take(MAX_SHOWN)
        .map(|name| name.chars().take(100).collect())
        .collect();
    if names.len() > MAX_SHOWN {
        shown.push(format!("and {} more", names.len() - MAX_SHOWN));
    }
    shown.join(", ")
}

/// Resolves a path of the layout to a regular file that does not lie outside of it.
fn inside(root: &Path, relative: &str) -> Result<PathBuf> {
    let path = root.join(relative);
    let resolved = fs::canonicalize(&path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Error::NotFound(format!(
            "{relative} of the OCI image layout {}",
            root.display()
        )),
        _ => Error::io("open", &path)(error),
    })?;
    if !resolved.starts_with(root) {
        return Err(Error::invalid(
            path.display().to_string(),
            format!(
                "leads out of the image layout, to {}; copy the file into place",
                resolved.display()
            ),
        ));
    }
    let metadata = fs::metadata(&resolved).map_err(Error::io("open", &path))?;
    if metadata.is_file() {
        Ok(resolved)
    } else {
        Err(Error::invalid(
            path.display().to_string(),
            "is not a regular file",
        ))
    }
}

/// Checks the marker of the layout in the folder `root`, which the user calls `path`.
fn read_marker(root: &Path, path: &Path) -> Result<()> {
    let content = read_document(root, MARKER_NAME)?;
    check_marker(&content, &path.join(MARKER_NAME).display().to_string())
}

/// Reads a small file of the layout.
fn read_document(root: &Path, name: &str) -> Result<Vec<u8>> {
    let path = inside(root, name)?;
    let mut bytes = Vec::new();
    File::open(&path)
        .map_err(Error::io("open", &path))?
        .take(MAX_DOCUMENT + 1)
        .read_to_end(&mut bytes)
        .map_err(Error::io("read", &path))?;
    if bytes.len() as u64 > MAX_DOCUMENT {
        return Err(Error::invalid(
            path.display().to_string(),
            format!("is larger than {MAX_DOCUMENT} bytes"),
        ));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests;
