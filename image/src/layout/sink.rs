//! Writing an OCI image layout folder.
//!
//! Phases: blobs go to a staging folder on the same file system, each verified and flushed. The staging folder
//! of a new layout is beside the layout, and is renamed into place as a whole. The staging folder of an
//! existing layout is inside the layout: its blobs are renamed into `blobs/sha256`, and last a new `index.json`
//! is renamed over the old one. The new index has one image more, or another image under the name. A failure
//! before the last step removes the staging folder and leaves the destination as it was.

use std::collections::HashSet;
use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use pcocc_core::beneath::{Found, OpenFolder};
use pcocc_core::durable;
use pcocc_core::progress::BlobKind;
use serde_json::Value;
use tempfile::TempDir;

use super::{MARKER, MARKER_NAME, Root, read_document, read_marker};
use crate::error::{Error, Result};
use crate::meter;
use crate::new_file::folder_of;
use crate::oci::{Image, Layer, REF_NAME};
use crate::stream;
use crate::transfer::{Context, Offer, Receiver, Sink};
use pcocc_layers::Compression;
use pcocc_layers::{DiffId, Digest};

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
        let staging = tempfile::Builder::new()
            .prefix(".pcocc-layout-")
            .permissions(Permissions::from_mode(0o777))
            .tempdir_in(folder)
            .map_err(Error::io("create a folder in", folder))?;
        let blobs = staging.path().join("blobs/sha256");
        fs::create_dir_all(&blobs).map_err(Error::io("create", &blobs))?;
        Ok(Box::new(LayoutReceiver {
            sink: self,
            staging,
            exists,
            staged: Vec::new(),
            intact: HashSet::new(),
        }))
    }
}

/// One image on its way into a layout folder.
struct LayoutReceiver<'a> {
    sink: &'a LayoutSink,
    staging: TempDir,
    exists: bool,
    staged: Vec<Layer>,
    /// Blobs of the destination that were read and found to be what the image says.
    intact: HashSet<Digest>,
}

impl LayoutReceiver<'_> {
    /// The path of the staged blob.
    fn staged_path(&self, digest: Digest) -> PathBuf {
        self.staging.path().join("blobs/sha256").join(digest.hex())
    }

    /// Whether the destination already has the layer, as it should be. A damaged one is replaced.
    fn has_layer_blob(&mut self, layer: &Layer, context: &Context) -> Result<bool> {
        if !self.exists || self.intact.contains(&layer.digest) {
            return Ok(self.exists);
        }
        let root = fs::canonicalize(&self.sink.path).map_err(Error::io("open", &self.sink.path))?;
        let file = Root::Resolved(root).open(&format!("blobs/sha256/{}", layer.digest.hex()));
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
        write_new(&self.staged_path(Digest::of(bytes)), bytes)
    }

    /// Adds the image to the layout that is there.
    fn merge(&self, image: &Image) -> Result<()> {
        let path = &self.sink.path;
        let blobs = path.join("blobs/sha256");
        let move_blobs = || {
            durable::create_folders(&blobs, 0o777)?;
            let to = OpenFolder::open(&blobs)?;
            let staged = OpenFolder::open(self.staging.path().join("blobs/sha256"))?;
            for name in staged.names()? {
                staged.rename(&name, &to, &name)?;
            }
            to.sync()
        };
        move_blobs().map_err(Error::io("write", &blobs))?;
        let marker = path.join(MARKER_NAME);
        if !marker.exists() {
            write_new(&marker, MARKER)?;
        }
        // Read as late as possible: another process may have added an image.
        let index = merged_index(path, image, self.sink.tag.as_deref())?;
        let write_index = || {
            let staging = OpenFolder::open(self.staging.path())?;
            let mut temp = staging.temp("index-", 0o666)?;
            temp.write_all(&index)?;
            temp.replace(&OpenFolder::open(path)?, "index.json")
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
        let temp = self.staging.path().join("incoming");
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&temp)
            .map_err(Error::io("create", &temp))?;
        let mut reader = (offer.open)()?;
        let (digest, size) = stream::copy(&mut reader, &mut file, &name, expected, context)?;
        let layer = Layer {
            digest,
            size,
            compression: offer.compression,
            diff_id: diff_id(digest)?,
        };
        check_diff_id(&file, &layer, context)?;
        file.sync_all().map_err(Error::io("write", &temp))?;
        let target = self.staged_path(digest);
        fs::rename(&temp, &target).map_err(Error::io("create", &target))?;
        self.staged.push(layer.clone());
        Ok(layer)
    }

    fn commit(self: Box<Self>, image: &Image, context: &Context) -> Result<()> {
        for layer in image.layers() {
            let staged = fs::metadata(self.staged_path(layer.digest));
            if !self.intact.contains(&layer.digest) && !staged.is_ok_and(|m| m.len() == layer.size)
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
        let root = self.staging.path();
        write_new(
            &root.join("index.json"),
            &image.index(self.sink.tag.as_deref())?,
        )?;
        write_new(&root.join(MARKER_NAME), MARKER)?;
        for folder in ["blobs/sha256/x", "blobs/x", "x"] {
            durable::sync_parent(&root.join(folder)).map_err(Error::io("write", root))?;
        }
        let path = &self.sink.path;
        let identity = |path: &Path| {
            let opened = OpenFolder::open(path).and_then(|folder| Found::of_file(folder.as_fd()));
            opened.ok().map(|found| found.identity)
        };
        let own = identity(root);
        rustix::fs::renameat_with(
            rustix::fs::CWD,
            root,
            rustix::fs::CWD,
            path,
            rustix::fs::RenameFlags::NOREPLACE,
        )
        .or_else(|error| match error {
            // Network file systems do not know NOREPLACE. Without it, rename replaces an empty folder only.
            rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS => rustix::fs::rename(root, path),
            other => Err(other),
        })
        .or_else(|error| match error {
            // An NFS server whose reply was lost has renamed it.
            rustix::io::Errno::NOENT | rustix::io::Errno::EXIST
                if own.is_some() && identity(path) == own =>
            {
                Ok(())
            }
            other => Err(other),
        })
        .map_err(|error| match error {
            rustix::io::Errno::EXIST | rustix::io::Errno::NOTEMPTY => {
                Error::Exists(path.display().to_string())
            }
            other => Error::io("create", path)(other.into()),
        })?;
        // The staging folder is the layout now.
        let _ = self.staging.keep();
        let path = path.as_path();
        durable::sync_parent(&std::path::absolute(path).unwrap_or_else(|_| path.to_owned()))
            .map_err(Error::io("write", path))
    }
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

/// Writes a small file and flushes it to disk.
fn write_new(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = File::create(path).map_err(Error::io("create", path))?;
    file.write_all(bytes)
        .and_then(|()| file.sync_all())
        .map_err(Error::io("write", path))
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
