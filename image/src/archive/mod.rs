//! Archives as `docker save` writes them (`docker-archive:PATH`).
//!
//! Data path of reading: [`index::Index`] notes where every entry's content lies in one pass over the
//! tar headers → `manifest.json` names configs and layers → the image of the wanted name is picked →
//! layers are offered in the order they lie in the file, each a stretch of it. An archive compressed
//! as a whole (`docker save | gzip`) is read the same way through a decompressor that only goes
//! forward: nothing is unpacked to disk. Docker before and after version 25, podman and skopeo lay
//! archives out differently; all that counts is `manifest.json`. Writing is in [`ArchiveSink`].

mod index;
mod sink;
mod stretch;

pub use sink::ArchiveSink;
pub(crate) use sink::publish_file;

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use serde::Deserialize;

use crate::error::{Error, Result};
use crate::layout::list;
use crate::oci::{self, Image, Layer, MAX_DOCUMENT, MAX_LAYERS};
use crate::transfer::{Context, Offer, Receiver, Source};
use index::{Extent, Index};
use pcocc_layers::Compression;
use pcocc_layers::digest::Hashing;
use pcocc_layers::{DiffId, Digest};
use stretch::Stretches;

/// Joins the parts of a path within an archive, without empty ones, `.` and `..`; `None` when they
/// leave the archive.
pub fn fold<'a>(path: impl Iterator<Item = &'a str>) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for part in path {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// An image as `manifest.json` lists it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

/// One image of a docker archive file, as a [`Source`].
#[derive(Debug)]
pub struct ArchiveFile {
    path: PathBuf,
    compression: Compression,
    config: Vec<u8>,
    layers: Vec<ArchiveLayer>,
}

/// A layer as it lies in the file.
#[derive(Clone, Debug)]
struct ArchiveLayer {
    diff_id: DiffId,
    extent: Extent,
    compression: Compression,
    /// The digest its name promises, when it is named by one.
    named: Option<Digest>,
}

impl ArchiveFile {
    /// Reads the archive's index and picks the image called `reference`, or the only one.
    ///
    /// Reads a compressed archive to its end.
    pub fn open(path: &Path, reference: Option<&str>, context: &Context) -> Result<Self> {
        let compression = compression_of(path)?;
        let stretches = Stretches::new(path, compression)?;
        let index = Index::read(&stretches, context)?;
        let refuse = |why: String| Error::invalid(path.display().to_string(), why);
        let Some(manifest) = index.find("manifest.json")? else {
            return Err(refuse(if index.find("oci-layout")?.is_some() {
                "is an OCI archive, not one of docker; unpack it with tar and import oci:FOLDER"
                    .to_owned()
            } else {
                "is no docker archive: it has no manifest.json; make it with docker save".to_owned()
            }));
        };
        let manifest = document(&stretches, "manifest.json", manifest)?;
        let listed: Vec<Listed> = serde_json::from_slice(&manifest)
            .map_err(|error| refuse(format!("has a manifest.json that does not parse: {error}")))?;
        let image = choose(&listed, reference, path)?;
        let missing = |name: &str| {
            let name: String = name.chars().take(200).collect();
            refuse(format!("lacks {name:?}, which its manifest.json names"))
        };
        let extent = index
            .find(&image.config)?
            .ok_or_else(|| missing(&image.config))?;
        let config = document(&stretches, &image.config, extent)?;
        if let Some(named) = digest_in(&image.config)
            && named != Digest::of(&config)
        {
            return Err(Error::Corrupt {
                expected: named,
                found: Digest::of(&config).to_string(),
            });
        }
        let diff_ids = oci::diff_ids(&config)?;
        let names = image.layers.as_deref().unwrap_or_default();
        if names.len() != diff_ids.len() || names.len() > MAX_LAYERS {
            return Err(refuse(format!(
                "lists {} layers in its manifest.json, {} in the image's config",
                names.len(),
                diff_ids.len()
            )));
        }
        let mut layers = Vec::with_capacity(names.len());
        for (name, diff_id) in names.iter().zip(diff_ids) {
            let extent = index.find(name)?.ok_or_else(|| missing(name))?;
            let compression = Compression::sniff(&extent.start);
            layers.push(ArchiveLayer {
                diff_id,
                compression,
                named: digest_in(name).filter(|_| compression != Compression::None),
                extent,
            });
        }
        Ok(Self {
            path: path.to_owned(),
            compression,
            config,
            layers,
        })
    }

    /// Digest and size of a layer that lies compressed in the archive.
    fn compressed_blob(&self, layer: &ArchiveLayer, context: &Context) -> Result<(Digest, u64)> {
        if let Some(digest) = layer.named {
            return Ok((digest, layer.extent.size));
        }
        let stretches = Stretches::new(&self.path, self.compression)?;
        let mut reader = Hashing::new(stretches.read(layer.extent.offset, layer.extent.size)?);
        let mut buffer = vec![0; 256 << 10];
        while reader
            .read(&mut buffer)
            .map_err(Error::io("read", &self.path))?
            > 0
        {
            context.check()?;
        }
        let (digest, size, _) = reader.finish();
        Ok((digest, size))
    }
}

impl Source for ArchiveFile {
    fn send(&self, receiver: &mut dyn Receiver, context: &Context) -> Result<Image> {
        if let Some(image) = receiver.recall(Digest::of(&self.config))? {
            return Ok(image);
        }
        let stretches = Mutex::new(Stretches::new(&self.path, self.compression)?);
        let mut in_order: Vec<&ArchiveLayer> = self.layers.iter().collect();
        in_order.sort_by_key(|layer| layer.extent.offset);
        let mut taken: HashMap<DiffId, Layer> = HashMap::new();
        for layer in in_order {
            if taken.contains_key(&layer.diff_id) {
                continue;
            }
            context.check()?;
            let blob = match layer.compression {
                Compression::None => None,
                _ => Some(self.compressed_blob(layer, context)?),
            };
            let open = || -> Result<Box<dyn Read + Send>> {
                let stretches = stretches
                    .lock()
                    .map_err(|_| Error::invalid("docker archive", "is read by two at once"))?;
                Ok(Box::new(
                    stretches.read(layer.extent.offset, layer.extent.size)?,
                ))
            };
            let offer = Offer {
                blob,
                compression: layer.compression,
                diff_id: Some(layer.diff_id),
                size: Some(layer.extent.size),
                file: None,
                open: &open,
            };
            taken.insert(layer.diff_id, receiver.layer(&offer, context)?);
        }
        let layers = self
            .layers
            .iter()
            .filter_map(|layer| taken.get(&layer.diff_id).cloned())
            .collect();
        Image::assemble(self.config.clone(), layers)
    }
}

/// Tells whether a file is a tar archive, plain or compressed.
pub fn looks_like(path: &Path) -> Result<bool> {
    let start = start_of(path)?;
    Ok(start.get(257..262) == Some(b"ustar") || Compression::sniff(&start) != Compression::None)
}

fn compression_of(path: &Path) -> Result<Compression> {
    let metadata = std::fs::metadata(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            Error::NotFound(format!("docker archive {}", path.display()))
        }
        _ => Error::io("open", path)(error),
    })?;
    if !metadata.is_file() {
        return Err(Error::invalid(
            path.display().to_string(),
            "is not a file, so it is no docker archive",
        ));
    }
    Ok(Compression::sniff(&start_of(path)?))
}

fn start_of(path: &Path) -> Result<Vec<u8>> {
    let mut start = Vec::with_capacity(512);
    File::open(path)
        .and_then(|file| file.take(512).read_to_end(&mut start))
        .map_err(Error::io("read", path))?;
    Ok(start)
}

fn document(stretches: &Stretches, name: &str, extent: Extent) -> Result<Vec<u8>> {
    if extent.size > MAX_DOCUMENT {
        return Err(Error::invalid(
            format!("{name:?} of the docker archive"),
            format!(
                "has {} bytes, more than the {MAX_DOCUMENT} allowed",
                extent.size
            ),
        ));
    }
    let mut bytes = Vec::new();
    stretches
        .read(extent.offset, extent.size)?
        .read_to_end(&mut bytes)
        .map_err(Error::io("read", name))?;
    Ok(bytes)
}

/// The digest an entry is named by: `blobs/sha256/HEX`, `HEX.json`, `HEX.tar`.
fn digest_in(name: &str) -> Option<Digest> {
    let file = name.strip_prefix("blobs/sha256/").unwrap_or(name);
    Digest::from_hex(file.split('.').next().unwrap_or(file)).ok()
}

fn choose<'a>(listed: &'a [Listed], reference: Option<&str>, path: &Path) -> Result<&'a Listed> {
    let tags: Vec<&str> = listed
        .iter()
        .flat_map(|image| image.repo_tags.iter().flatten())
        .map(String::as_str)
        .collect();
    let Some(reference) = reference else {
        return match listed {
            [only] => Ok(only),
            [] => Err(Error::invalid(
                path.display().to_string(),
                "holds no image: its manifest.json is empty",
            )),
            _ => Err(Error::invalid(
                path.display().to_string(),
                format!(
                    "holds several images: {}; choose one with docker-archive:{}:NAME",
                    list(&tags),
                    path.display()
                ),
            )),
        };
    };
    let wanted = familiar(reference);
    listed
        .iter()
        .find(|image| {
            let mut tags = image.repo_tags.iter().flatten();
            tags.any(|tag| familiar(tag) == wanted)
        })
        .ok_or_else(|| {
            let reference: String = reference.chars().take(100).collect();
            Error::NotFound(format!(
                "name {reference:?} in the docker archive {} (it holds {})",
                path.display(),
                list(&tags)
            ))
        })
}

/// A reference without docker's own registry and with its tag.
fn familiar(reference: &str) -> String {
    let name = reference.strip_prefix("docker.io/").unwrap_or(reference);
    let name = name.strip_prefix("library/").unwrap_or(name);
    let has_tag = name
        .rsplit_once(':')
        .is_some_and(|(_, tag)| !tag.contains('/'));
    if has_tag {
        name.to_owned()
    } else {
        format!("{name}:latest")
    }
}

#[cfg(test)]
mod tests;
