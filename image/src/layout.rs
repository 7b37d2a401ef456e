//! OCI image layouts in a folder (`oci:PATH[:TAG]`; OCI image spec, "Image Layout").
//!
//! Disk layout: `oci-layout` (version), `index.json` (the images, by name), `blobs/sha256/HEX`. Reading:
//! version → index → the named image, through nested indexes to the machine's platform → manifest and config,
//! verified → layers as files of the folder. Files outside of the folder are never read, whatever the links in
//! it say. [`LayoutSink`] writes.

mod marker;
pub(crate) mod sink;

pub use marker::{MARKER, MARKER_NAME, check_marker};
pub use sink::LayoutSink;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use pcocc_core::beneath::{self, OpenFolder, Refusal};

use crate::error::{Error, Result};
use crate::oci::{self, Documents, Image, Layer, MAX_DOCUMENT, ManifestDescriptor, Platform};
use crate::stream;
use crate::transfer::{Context, Layout};
use pcocc_layers::Digest;

/// Most names that a message lists.
const MAX_SHOWN: usize = 20;

/// One image of an OCI image layout in a folder.
#[derive(Debug)]
pub struct LayoutFolder {
    root: Root,
    machine: Platform,
    manifest: ManifestDescriptor,
}

/// Where a layout's files are.
#[derive(Clone, Debug)]
pub(super) enum Root {
    /// In a folder of the user's choice, with every link in its path resolved. Links in it are followed, but must not
    /// lead out.
    Resolved(PathBuf),
    /// In an opened folder, in which no link is followed.
    Opened(OpenFolder),
}

impl LayoutFolder {
    /// Opens the layout in the folder `path`: its image `tag`, or its only image, for `machine`.
    pub fn open(path: &Path, tag: Option<&str>, machine: Platform) -> Result<Self> {
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
        Self::choose(Root::Resolved(root), tag, machine, path)
    }

    /// Opens the layout with the one image that `folder` holds; links in it are not followed.
    pub fn inside(folder: OpenFolder) -> Result<Self> {
        let path = folder.path().to_owned();
        Self::choose(Root::Opened(folder), None, Platform::host(), &path)
    }

    fn choose(root: Root, tag: Option<&str>, machine: Platform, path: &Path) -> Result<Self> {
        read_marker(&root, path)?;
        let manifests = oci::parse_index(&read_document(&root, "index.json")?)?;
        let manifest = choose(&manifests, tag, &machine, path)?.clone();
        Ok(Self {
            root,
            machine,
            manifest,
        })
    }

    /// Opens a blob.
    fn blob(&self, digest: Digest) -> Result<File> {
        self.root.open(&format!("blobs/sha256/{}", digest.hex()))
    }
}

impl Documents for LayoutFolder {
    type Error = Error;

    fn machine(&self) -> Platform {
        self.machine.clone()
    }

    fn root(&self) -> Result<Vec<u8>> {
        self.document(self.manifest.digest, self.manifest.size)
    }

    fn document(&self, digest: Digest, size: u64) -> Result<Vec<u8>> {
        stream::document(self.blob(digest)?, digest, size)
    }
}

impl Layout for LayoutFolder {
    fn image(&self, context: &Context) -> Result<Image> {
        context.check()?;
        Documents::image(self)
    }

    fn open_layer<'a>(&'a self, layer: &Layer) -> Result<Box<dyn Read + Send + 'a>> {
        let file = self.blob(layer.digest)?;
        let metadata = file.metadata();
        let found = metadata
            .map_err(Error::io("read", layer.digest.hex()))?
            .len();
        if found != layer.size {
            return Err(Error::Corrupt {
                expected: layer.digest,
                found: format!("{found} bytes instead of {}", layer.size),
            });
        }
        Ok(Box::new(file))
    }

    fn layer_file(&self, layer: &Layer) -> Option<File> {
        let file = self.blob(layer.digest).ok()?;
        let size = file.metadata().ok()?.len();
        (size == layer.size).then_some(file)
    }
}

/// Picks the image `tag`, or the only image, out of an `index.json`.
fn choose<'a>(
    manifests: &'a [ManifestDescriptor],
    tag: Option<&str>,
    machine: &Platform,
    path: &Path,
) -> Result<&'a ManifestDescriptor> {
    let names = || {
        let mut names: Vec<_> = manifests.iter().filter_map(|m| m.name.as_deref()).collect();
        names.dedup();
        names
    };
    let Some(tag) = tag else {
        let named = || manifests.iter().filter(|manifest| manifest.name.is_some());
        let digests: BTreeSet<Digest> = named().map(|manifest| manifest.digest).collect();
        // One image may have several names.
        if names().len() > 1 && digests.len() > 1 {
            return Err(Error::invalid(
                path.display().to_string(),
                format!(
                    "holds several images: {}; choose one with oci:{}:TAG",
                    list(&names()),
                    path.display()
                ),
            ));
        }
        return oci::select_manifest(manifests, machine);
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
    let digest = oci::select_manifest(&called, machine)?.digest;
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

impl Root {
    fn path(&self) -> &Path {
        match self {
            Self::Resolved(path) => path,
            Self::Opened(folder) => folder.path(),
        }
    }

    /// Opens a regular file of the layout.
    fn open(&self, relative: &str) -> Result<File> {
        let path = self.path().join(relative);
        let failed = |error: std::io::Error| match (error.kind(), Refusal::of(&error)) {
            (_, Some(refusal)) => Error::invalid(path.display().to_string(), refusal.to_string()),
            (std::io::ErrorKind::NotFound, _) => Error::NotFound(format!(
                "{relative} of the OCI image layout {}",
                self.path().display()
            )),
            _ => Error::io("open", &path)(error),
        };
        let root = match self {
            Self::Opened(folder) => return folder.open_file(relative).map_err(failed),
            Self::Resolved(root) => root,
        };
        let resolved = fs::canonicalize(&path).map_err(failed)?;
        let Ok(inside) = resolved.strip_prefix(root) else {
            return Err(Error::invalid(
                path.display().to_string(),
                format!(
                    "leads out of the image layout, to {}; copy the file into place",
                    resolved.display()
                ),
            ));
        };
        // Without links now: none can be put in the way meanwhile.
        OpenFolder::open(root)
            .and_then(|root| root.open_file(inside))
            .map_err(failed)
    }
}

/// Checks the marker of the layout in `root`, which the user calls `path`.
fn read_marker(root: &Root, path: &Path) -> Result<()> {
    let content = read_document(root, MARKER_NAME)?;
    check_marker(&content, &path.join(MARKER_NAME).display().to_string())
}

/// Reads a small file of the layout.
fn read_document(root: &Root, name: &str) -> Result<Vec<u8>> {
    let path = root.path().join(name);
    beneath::read(root.open(name)?, MAX_DOCUMENT).map_err(|error| match Refusal::of(&error) {
        Some(refusal) => Error::invalid(path.display().to_string(), refusal.to_string()),
        None => Error::io("read", &path)(error),
    })
}

#[cfg(test)]
mod tests;
