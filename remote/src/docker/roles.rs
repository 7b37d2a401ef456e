//! The roles of a save archive's parts: layers, documents and links are collected while they pass, and
//! `manifest.json` says at the end which of them form the image.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::client::{ImageStore, Inspected};
use super::tarball::normalise;
use pcocc_image::oci::{Image, Layer, MAX_LAYERS, config_of, is_index, parse_index};
use pcocc_image::{Error, Result};
use pcocc_layers::Digest;

/// Longest chain of links that is followed.
const MAX_LINKS: usize = 16;

/// The parts of an archive by their paths.
#[derive(Debug, Default)]
pub(super) struct Contents {
    documents: BTreeMap<String, Vec<u8>>,
    layers: BTreeMap<String, Layer>,
    links: BTreeMap<String, String>,
}

impl Contents {
    /// Fails when the archive has the path already: the content would be ambiguous.
    pub(super) fn check_new(&self, path: &str) -> Result<()> {
        if self.documents.contains_key(path)
            || self.layers.contains_key(path)
            || self.links.contains_key(path)
        {
            return Err(bad(format!("has {path:?} twice")));
        }
        Ok(())
    }

    pub(super) fn add_document(&mut self, path: String, data: Vec<u8>) {
        self.documents.insert(path, data);
    }

    pub(super) fn add_layer(&mut self, path: String, layer: Layer) {
        self.layers.insert(path, layer);
    }

    pub(super) fn add_link(&mut self, path: String, target: String) -> Result<()> {
        self.check_new(&path)?;
        self.links.insert(path, target);
        Ok(())
    }

    /// The content of a document that was not offered as a layer.
    pub(super) fn unoffered(&self, path: &str) -> Option<&[u8]> {
        if self.layers.contains_key(path) {
            return None;
        }
        self.documents.get(path).map(Vec::as_slice)
    }

    /// Follows links to a file.
    fn resolve(&self, named: &str) -> Result<String> {
        let outside = || bad(format!("names {named:?}, which is outside of it"));
        let mut path = normalise("", named).ok_or_else(outside)?;
        for _ in 0..MAX_LINKS {
            match self.links.get(&path) {
                Some(target) => path.clone_from(target),
                None if self.documents.contains_key(&path) || self.layers.contains_key(&path) => {
                    return Ok(path);
                }
                None => return Err(bad(format!("names {named:?}, which it does not hold"))),
            }
        }
        Err(bad(format!("has a loop of links at {named:?}")))
    }

    /// A document in the folder of blobs whose content has the digest in its name.
    fn blob(&self, digest: Digest) -> Option<&[u8]> {
        self.documents
            .get(&format!("blobs/sha256/{}", digest.hex()))
            .filter(|data| Digest::of(data) == digest)
            .map(Vec::as_slice)
    }
}

/// The digest in the name of a blob, `blobs/sha256/<hex>`.
pub(super) fn blob_digest(path: &str) -> Option<Digest> {
    Digest::from_hex(path.strip_prefix("blobs/sha256/")?).ok()
}

/// Paths of the one image in an archive, links resolved.
#[derive(Debug)]
pub(super) struct Roles {
    config: String,
    /// Lowest layer first.
    pub(super) layers: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SavedImage {
    config: String,
    layers: Option<Vec<String>>,
}

/// Reads `manifest.json` (docker's archive format; `repositories` and `index.json` say the same).
pub(super) fn assign(contents: &Contents) -> Result<Roles> {
    let manifest = contents
        .documents
        .get("manifest.json")
        .ok_or_else(|| bad("has no manifest.json".to_owned()))?;
    let images: Vec<SavedImage> = serde_json::from_slice(manifest)
        .map_err(|error| bad(format!("has a manifest.json that does not parse: {error}")))?;
    let image = match images.as_slice() {
        [image] => image,
        images => {
            return Err(bad(format!(
                "holds {} images where one was asked for",
                images.len()
            )));
        }
    };
    let layers = image.layers.as_deref().unwrap_or_default();
    if layers.len() > MAX_LAYERS {
        return Err(bad(format!("has more than {MAX_LAYERS} layers")));
    }
    Ok(Roles {
        config: contents.resolve(&image.config)?,
        layers: layers
            .iter()
            .map(|path| contents.resolve(path))
            .collect::<Result<_>>()?,
    })
}

impl Roles {
    /// Makes the image and compares it with the daemon's description.
    pub(super) fn image(
        &self,
        contents: &Contents,
        inspected: &Inspected,
        store: ImageStore,
    ) -> Result<Image> {
        let config = contents
            .documents
            .get(&self.config)
            .ok_or_else(|| bad(format!("has no config at {:?}", self.config)))?;
        let id = Digest::of(config);
        let layers = self
            .layers
            .iter()
            .map(|path| {
                contents
                    .layers
                    .get(path)
                    .cloned()
                    .ok_or_else(|| bad(format!("has no layer at {path:?}")))
            })
            .collect::<Result<Vec<Layer>>>()?;
        // The archive's own names must be right as well.
        if let Some(named) = blob_digest(&self.config).filter(|named| *named != id) {
            return Err(Error::Corrupt {
                expected: named,
                found: id.to_string(),
            });
        }
        let image = match store {
            ImageStore::GraphDriver if id != inspected.id => {
                return Err(Error::Corrupt {
                    expected: inspected.id,
                    found: format!("the config {id}"),
                });
            }
            ImageStore::GraphDriver => Image::assemble(config.clone(), layers)?,
            ImageStore::Containerd => {
                // The image keeps its ID on such daemons only with its manifest.
                let kept = manifest_of(contents, inspected.id, id)
                    .and_then(|manifest| Image::parse(manifest, config).ok())
                    .filter(|image| image.layers() == layers);
                match kept {
                    Some(image) => image,
                    None => Image::assemble(config.clone(), layers)?,
                }
            }
        };
        if image.diff_ids() != inspected.diff_ids {
            return Err(bad("has other layers than the daemon said".to_owned()));
        }
        Ok(image)
    }
}

/// The manifest with this config, found from the daemon's image ID, which is the digest of a manifest or an
/// index.
fn manifest_of(contents: &Contents, id: Digest, config: Digest) -> Option<&[u8]> {
    let fits = |manifest: &[u8]| config_of(manifest).is_ok_and(|(digest, _)| digest == config);
    let document = contents.blob(id)?;
    if !is_index(document).ok()? {
        return Some(document).filter(|document| fits(document));
    }
    let manifests = parse_index(document).ok()?;
    manifests
        .iter()
        .filter_map(|manifest| contents.blob(manifest.digest))
        .find(|manifest| fits(manifest))
}

fn bad(why: String) -> Error {
    Error::invalid("the archive from the docker daemon", why)
}
