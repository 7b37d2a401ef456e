//! When a staged folder is complete.
//!
//! A folder is complete when it has `oci-layout`, an `index.json` that parses and names a manifest, and every
//! blob reached from the index, with the right size and content. Nothing else counts: neither temporary names
//! nor times, and never the end of the tool.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::sync::Arc;

use pcocc_core::cancel::Cancel;
use pcocc_image::layout::{MARKER_NAME, check_marker};
use pcocc_image::oci::{self, Documents, Image, Layer, MAX_DOCUMENT};
use pcocc_image::origin::Origin;
use pcocc_image::transfer::{Context, Layout};
use pcocc_image::{Error, Result};
use pcocc_layers::Digest;

use super::file::StagedFile;
use super::folder::Item;

/// Most documents that an index may reach.
const MAX_DOCUMENTS: usize = 1000;

/// Most bytes of these documents, which are all in memory.
const MAX_REACHED: u64 = 8 * MAX_DOCUMENT;

/// The result of an examination.
#[derive(Debug)]
pub enum Verdict {
    /// A part is missing; it may still come.
    Incomplete(String),
    /// The folder is an image.
    Complete(StagedImage),
}

/// A complete staged image, read through the files of its examination.
#[derive(Debug)]
pub struct StagedImage {
    image: Image,
    origin: Option<Box<Origin>>,
    blobs: BTreeMap<Digest, Arc<StagedFile>>,
}

impl StagedImage {
    /// The image's origin, if its index has one.
    pub fn origin(&self) -> Option<&Origin> {
        self.origin.as_deref()
    }
}

impl Layout for StagedImage {
    fn image(&self, _: &Context) -> Result<Image> {
        Ok(self.image.clone())
    }

    fn open_layer<'a>(&'a self, layer: &Layer) -> Result<Box<dyn Read + Send + 'a>> {
        match self.blobs.get(&layer.digest) {
            None => Err(Error::NotFound(format!("blob {}", layer.digest))),
            Some(file) => Ok(match file.source() {
                None => Box::new(std::io::empty()),
                Some(source) => Box::new(source.reader()),
            }),
        }
    }

    fn layer_file(&self, layer: &Layer) -> Option<File> {
        self.blobs.get(&layer.digest)?.source()?.whole_file()
    }
}

/// Why a folder is not an image.
enum Obstacle {
    /// The missing part may still come.
    Missing(String),
    /// The folder will never be an image.
    Error(Error),
}

impl From<Error> for Obstacle {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

/// Examines the files of a staged folder; all write handles have been flushed.
///
/// Fails when the folder can never become an image unchanged: a blob's content differs from its name or size,
/// or documents contradict each other.
pub fn examine(items: &BTreeMap<String, Item>, cancel: &Cancel) -> Result<Verdict> {
    let mut blobs = BTreeMap::new();
    for (path, item) in items {
        if let Item::File(file) = item
            && let Some(hex) = path.strip_prefix("blobs/sha256/")
            && let Ok(digest) = Digest::from_hex(hex)
        {
            blobs.insert(digest, Arc::clone(file));
        }
    }
    let examination = Examination {
        items,
        blobs,
        cancel,
    };
    match examination.image_with_origin() {
        Ok((image, origin)) => Ok(Verdict::Complete(StagedImage {
            image,
            origin,
            blobs: examination.blobs,
        })),
        Err(Obstacle::Missing(what)) => Ok(Verdict::Incomplete(what)),
        Err(Obstacle::Error(error)) => Err(error),
    }
}

struct Examination<'a> {
    items: &'a BTreeMap<String, Item>,
    blobs: BTreeMap<Digest, Arc<StagedFile>>,
    cancel: &'a Cancel,
}

impl Examination<'_> {
    fn image_with_origin(&self) -> Result<(Image, Option<Box<Origin>>), Obstacle> {
        let marker = self.file(MARKER_NAME)?;
        let index = self.file("index.json")?;
        check_marker(&marker, MARKER_NAME)?;
        // All platforms must be complete; only this machine's is kept.
        let images = self.reach(&index)?;
        let image = self.image()?;
        for (digest, size) in images.iter().flat_map(layers) {
            self.verify(digest, size)?;
        }
        let origin = Origin::of_index(&String::from_utf8_lossy(&index));
        Ok((image, origin.map(Box::new)))
    }

    fn file(&self, path: &str) -> Result<Vec<u8>, Obstacle> {
        let missing = || Obstacle::Missing(format!("{path} is missing"));
        let Some(Item::File(file)) = self.items.get(path) else {
            return Err(missing());
        };
        let bytes = document(file, path)?;
        if bytes.is_empty() {
            return Err(missing());
        }
        Ok(bytes)
    }

    /// The images that an index names, nested indexes included.
    fn reach(&self, index: &[u8]) -> Result<Vec<Image>, Obstacle> {
        let mut found = Vec::new();
        let mut indexes = vec![index.to_vec()];
        let mut known = BTreeSet::new();
        let mut bytes = 0_u64;
        let mut hold = |size: usize| {
            bytes += size as u64;
            match bytes > MAX_REACHED {
                true => Err(Error::invalid(
                    "image index",
                    format!("reaches documents of more than {MAX_REACHED} bytes"),
                )),
                false => Ok(()),
            }
        };
        while let Some(index) = indexes.pop() {
            for descriptor in oci::parse_index(&index)? {
                // One image may have several names.
                if !known.insert((descriptor.digest, descriptor.is_index)) {
                    continue;
                }
                if known.len() > MAX_DOCUMENTS {
                    return Err(Error::invalid("image index", "names too many manifests").into());
                }
                let manifest = self.document(descriptor.digest, descriptor.size)?;
                hold(manifest.len())?;
                descriptor.check_kind(&manifest)?;
                if descriptor.is_index {
                    indexes.push(manifest);
                    continue;
                }
                let (config, size) = oci::config_of(&manifest)?;
                let config = self.document(config, size)?;
                hold(config.len())?;
                found.push(Image::parse(&manifest, &config)?);
            }
        }
        if found.is_empty() {
            return Err(Obstacle::Missing("index.json names no image yet".into()));
        }
        // Layers may be large: sizes are checked before any content.
        for (digest, size) in found.iter().flat_map(layers) {
            self.check_size(digest, size)?;
        }
        Ok(found)
    }

    fn check_size(&self, digest: Digest, size: u64) -> Result<&Arc<StagedFile>, Obstacle> {
        let Some(file) = self.blobs.get(&digest) else {
            return Err(Obstacle::Missing(format!("blob {digest} is missing")));
        };
        match file.size() {
            have if have == size => Ok(file),
            0 => Err(Obstacle::Missing(format!("blob {digest} is empty so far"))),
            have => Err(Obstacle::Error(Error::Corrupt {
                expected: digest,
                found: format!("{have} bytes long instead of {size}"),
            })),
        }
    }

    fn verify(&self, digest: Digest, size: u64) -> Result<&Arc<StagedFile>, Obstacle> {
        let file = self.check_size(digest, size)?;
        let found = file
            .digest(self.cancel)
            .map_err(Error::io("read the copy of", digest.to_string()))?;
        if found == digest {
            Ok(file)
        } else {
            Err(Obstacle::Error(Error::Corrupt {
                expected: digest,
                found: found.to_string(),
            }))
        }
    }
}

impl Documents for Examination<'_> {
    type Error = Obstacle;

    fn root(&self) -> Result<Vec<u8>, Obstacle> {
        self.select(&self.file("index.json")?)
    }

    fn document(&self, digest: Digest, size: u64) -> Result<Vec<u8>, Obstacle> {
        let file = self.verify(digest, size)?;
        Ok(document(file, &digest.to_string())?)
    }
}

fn layers(image: &Image) -> Vec<(Digest, u64)> {
    image.layers().iter().map(|l| (l.digest, l.size)).collect()
}

fn document(file: &StagedFile, name: &str) -> Result<Vec<u8>> {
    file.document(MAX_DOCUMENT)
        .map_err(Error::io("read the copy of", name))?
        .ok_or_else(|| Error::invalid(name, format!("is larger than {MAX_DOCUMENT} bytes")))
}
