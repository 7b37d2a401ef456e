//! Writing an OCI image layout folder.
//!
//! Phases: blobs go to a staging folder on the same file system, each verified and flushed. The staging folder
//! of a new layout is beside the layout, and is renamed into place as a whole. The staging folder of an
//! existing layout is inside the layout: its blobs are renamed into `blobs/sha256`, and last a new `index.json`
//! is renamed over the old one. The new index has one image more, or another image under the name. A failure
//! before the last step removes the staging folder and leaves the destination as it was. Nothing is written through a link
//! below either folder.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use pcocc_core::beneath::{OpenFolder, TempFolder};
use pcocc_core::progress::BlobKind;
use serde_json::Value;

use super::{MARKER, MARKER_NAME, Root, read_document, read_marker};
use crate::error::{Error, Result};
use crate::meter;
use crate::new_file::folder_of;
use crate::oci::{Image, Layer, REF_NAME};
use crate::stream;
use crate::transfer::{Context, Offer, Receiver, Sink};
use pcocc_layers::Compression;
use pcocc_layers::{DiffId, Digest};

/// The folder of the blobs in a layout.
const BLOBS: &str = "blobs/sha256";

/// Longest image name that is written, in bytes.
const MAX_NAME: usize = 255;

/// A [`Sink`] that creates an OCI image layout folder, or adds an image to one.
#[derive(Debug)]
pub struct LayoutSink {
    path: PathBuf,
    tag: Option<String>,
}

impl LayoutSink {
    /// Makes a sink for the image `tag` of the folder `path`.
    ///
    /// An image that has the name loses it, as with skopeo.
    pub fn new(path: &Path, tag: Option<&str>) -> Self {
        Self {
            path: path.to_owned(),
            tag: tag.map(str::to_owned),
        }
    }
}

impl Sink for LayoutSink {
    fn open(&self, _context: &Context) -> Result<Box<dyn Receiver + '_>> {
        if let Some(tag) = &self.tag {
            check_name(tag)?;
        }
        let exists = match fs::symlink_metadata(&self.path) {
            Ok(_) => {
                check_destination(&self.path)?;
                true
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => false,
            Err(error) => return Err(Error::io("open", &self.path)(error)),
        };
        let folder = if exists {
            &self.path
        } else {
            folder_of(&self.path)
        };
        let make = || {
            let staging = OpenFolder::open(folder)?.temp_folder(".pcocc-layout-", 0o777)?;
            let blobs = blob_folder(staging.folder())?;
            Ok((staging, blobs))
        };
        let (staging, blobs) = make().map_err(Error::io("create a folder in", folder))?;
        Ok(Box::new(LayoutReceiver {
            sink: self,
            staging,
            blobs,
            exists,
            staged: Vec::new(),
            intact: HashSet::new(),
        }))
    }
}

/// One image on its way into a layout folder.
struct LayoutReceiver<'a> {
    sink: &'a LayoutSink,
    staging: TempFolder,
    /// The folder of the staged blobs.
    blobs: OpenFolder,
    exists: bool,
    staged: Vec<Layer>,
    /// Blobs of the destination that were read and found to be what the image says.
    intact: HashSet<Digest>,
}

impl LayoutReceiver<'_> {
    /// Whether the destination already has the layer, as it should be. A damaged one is replaced.
    fn has_layer_blob(&mut self, layer: &Layer, context: &Context) -> Result<bool> {
        if !self.exists || self.intact.contains(&layer.digest) {
            return Ok(self.exists);
        }
        let root = fs::canonicalize(&self.sink.path).map_err(Error::io("open", &self.sink.path))?;
        let file = Root::Resolved(root).open(&format!("{BLOBS}/{}", layer.digest.hex()));
        let Ok(file) = file else {
            return Ok(false);
        };
        let has_size = file.metadata().is_ok_and(|found| found.len() == layer.size);
        if !has_size || stream::digest(&file, context)? != layer.digest {
            return Ok(false);
        }
        check_diff_id(&file, layer, context)?;
        self.intact.insert(layer.digest);
        Ok(true)
    }

    fn put(&self, bytes: &[u8]) -> Result<()> {
        write_new(&self.blobs, &Digest::of(bytes).hex(), bytes)
    }

    /// Adds the image to the layout that is there.
    fn merge(&self, image: &Image) -> Result<()> {
        let path = &self.sink.path;
        let root = OpenFolder::open(path).map_err(Error::io("open", path))?;
        let move_blobs = || {
            let to = blob_folder(&root)?;
            for name in self.blobs.names()? {
                self.blobs.rename(&name, &to, &name)?;
            }
            to.sync()
        };
        move_blobs().map_err(Error::io("write", path.join(BLOBS)))?;
        if !root.has(MARKER_NAME) {
            write_new(&root, MARKER_NAME, MARKER)?;
        }
        // Read as late as possible: another process may have added an image.
        let index = merged_index(path, image, self.sink.tag.as_deref())?;
        let write_index = || {
            let mut temp = self.staging.folder().temp("index-", 0o666)?;
            temp.write_all(&index)?;
            temp.replace(&root, "index.json")
        };
        write_index().map_err(Error::io("write", path.join("index.json")))
    }
}

impl Receiver for LayoutReceiver<'_> {
    fn has_layer(&mut self, diff_id: DiffId) -> Result<bool> {
        Ok(self.staged.iter().any(|layer| layer.diff_id == diff_id))
    }

    fn layer(&mut self, offer: &Offer<'_>, context: &Context) -> Result<Layer> {
        // The image has the same layer twice.
        if let Some(diff_id) = offer.diff_id
            && let Some(layer) = self.staged.iter().find(|layer| layer.diff_id == diff_id)
        {
            return Ok(layer.clone());
        }
        let diff_id = |digest| match (offer.diff_id, offer.compression) {
            (Some(diff_id), _) => Ok(diff_id),
            (None, Compression::None) => Ok(DiffId(digest)),
            (None, _) => Err(Error::invalid(
                format!("layer {digest}"),
                "comes compressed without the digest of its content",
            )),
        };
        if let Some((digest, size)) = offer.blob {
            let layer = Layer {
                digest,
                size,
                compression: offer.compression,
                diff_id: diff_id(digest)?,
            };
            if self.has_layer_blob(&layer, context)? {
                meter::skipped(&context.progress, BlobKind::Layer, &digest.to_string());
                return Ok(layer);
            }
        }
        let expected = offer.expected();
        let name = offer
            .digest()
            .map_or_else(|| "layer".to_owned(), |digest| digest.to_string());
        let temp = self.staging.folder().temp("incoming-", 0o666);
        let mut temp = temp.map_err(Error::io("create a file in", self.blobs.path()))?;
        let path = temp.path();
        let mut reader = (offer.open)()?;
        let file = temp.as_file_mut();
        let (digest, size) = stream::copy(&mut reader, file, &name, expected, context)?;
        let layer = Layer {
            digest,
            size,
            compression: offer.compression,
            diff_id: diff_id(digest)?,
        };
        check_diff_id(file, &layer, context)?;
        temp.replace(&self.blobs, digest.hex())
            .map_err(Error::io("write", &path))?;
        self.staged.push(layer.clone());
        Ok(layer)
    }

    fn commit(mut self: Box<Self>, image: &Image, context: &Context) -> Result<()> {
        for layer in image.layers() {
            let staged = self.blobs.stat(layer.digest.hex());
            if !self.intact.contains(&layer.digest)
                && !staged.is_ok_and(|found| found.size == layer.size)
            {
                return Err(Error::NotFound(format!("layer {}", layer.digest)));
            }
        }
        self.put(image.config())?;
        meter::config_moved(&context.progress, image);
        context
            .progress
            .stage("Writing manifest to image destination");
        self.put(image.manifest())?;
        context.check()?;
        if self.exists {
            return self.merge(image);
        }
        let index = image.index(self.sink.tag.as_deref())?;
        write_new(self.staging.folder(), "index.json", &index)?;
        write_new(self.staging.folder(), MARKER_NAME, MARKER)?;
        let path = &self.sink.path;
        let mut publish = || {
            let folder = OpenFolder::open(folder_of(path))?;
            let name = path.file_name().unwrap_or_default();
            self.staging.create_new(&folder, name)
        };
        publish().map_err(|error| match error.kind() {
            std::io::ErrorKind::AlreadyExists | std::io::ErrorKind::DirectoryNotEmpty => {
                Error::Exists(path.display().to_string())
            }
            _ => Error::io("create", path)(error),
        })
    }
}

/// Opens the folder of a layout's blobs, after making it when it is missing.
fn blob_folder(root: &OpenFolder) -> std::io::Result<OpenFolder> {
    root.folder_or_new("blobs", 0o777)?;
    root.folder_or_new(BLOBS, 0o777)
}

/// Checks that an existing destination is an OCI image layout, or an empty folder.
fn check_destination(path: &Path) -> Result<()> {
    let refuse = |why: &str| Err(Error::invalid(path.display().to_string(), why));
    let root = fs::canonicalize(path).map_err(Error::io("open", path))?;
    if !root.is_dir() {
        return Err(Error::Exists(format!(
            "{}, which is not a folder,",
            path.display()
        )));
    }
    let mut entries = fs::read_dir(&root).map_err(Error::io("read", path))?;
    if entries.next().is_none() {
        return Ok(());
    }
    match read_marker(&Root::Resolved(root), path) {
        Err(Error::NotFound(_)) => refuse(
            "is a folder with other content, not an OCI image layout; choose another destination",
        ),
        checked => checked,
    }
}

/// The destination's index, with the image added under its name.
fn merged_index(path: &Path, image: &Image, tag: Option<&str>) -> Result<Vec<u8>> {
    let fresh = image.index(tag)?;
    let root = fs::canonicalize(path).map_err(Error::io("open", path))?;
    let old = match read_document(&Root::Resolved(root), "index.json") {
        Ok(old) => old,
        Err(Error::NotFound(_)) => return Ok(fresh),
        Err(error) => return Err(error),
    };
    merged(&path.join("index.json"), &old, &fresh, tag)
}

/// The index `old` of the file `path`, with the image of the index `fresh` in the place of the one called `tag`.
pub(crate) fn merged(path: &Path, old: &[u8], fresh: &[u8], tag: Option<&str>) -> Result<Vec<u8>> {
    let what = || path.display().to_string();
    let parse = |bytes: &[u8]| {
        serde_json::from_slice::<Value>(bytes)
            .map_err(|error| Error::invalid(what(), format!("does not parse: {error}")))
    };
    let added = parse(fresh)?
        .pointer_mut("/manifests/0")
        .map(Value::take)
        .ok_or_else(|| Error::invalid("image index", "names no image"))?;
    let mut index = parse(old)?;
    let manifests = index
        .get_mut("manifests")
        .and_then(Value::as_array_mut)
        .ok_or_else(|| Error::invalid(what(), "has no list of manifests"))?;
    let name = |manifest: &Value| {
        manifest
            .get("annotations")
            .and_then(|annotations| annotations.get(REF_NAME))
            .and_then(Value::as_str)
            .map(str::to_owned)
    };
    manifests.retain(|manifest| {
        name(manifest).as_deref() != tag
            || (tag.is_none() && manifest.get("digest") != added.get("digest"))
    });
    manifests.push(added);
    serde_json::to_vec(&index).map_err(|error| Error::invalid(what(), error.to_string()))
}

/// Fails unless the blob `file` holds what the image says that the layer holds.
fn check_diff_id(file: &File, layer: &Layer, context: &Context) -> Result<()> {
    stream::check_diff_id(
        file,
        layer.digest,
        layer.compression,
        layer.diff_id,
        context,
    )
}

/// Writes a new small file, and flushes it and its name to disk.
fn write_new(folder: &OpenFolder, name: &str, bytes: &[u8]) -> Result<()> {
    let write = || {
        let mut temp = folder.temp(".new-", 0o666)?;
        temp.write_all(bytes)?;
        temp.replace(folder, name)
    };
    write().map_err(Error::io("write", folder.path().join(name)))
}

/// Checks an image's name in an index (OCI image spec, "Pre-Defined Annotation Keys").
fn check_name(name: &str) -> Result<()> {
    let shown: String = name.chars().take(100).collect();
    let is_part = |part: &str| part.bytes().any(|b| b.is_ascii_alphanumeric());
    let legal = |b: u8| b.is_ascii_alphanumeric() || b"-._:@/+".contains(&b);
    if name.len() > MAX_NAME {
        return Err(Error::invalid(
            format!("image name {shown:?}…"),
            format!("is longer than {MAX_NAME} bytes"),
        ));
    }
    if !name.bytes().all(legal) || !name.split('/').all(is_part) {
        return Err(Error::invalid(
            format!("image name {shown:?}"),
            "may hold letters, digits and - . _ : @ / + only",
        ));
    }
    Ok(())
}
