//! Reading one image of a docker archive.

use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use pcocc_core::named;

use super::index::{Extent, Index};
use super::manifest::{Listed, choose};
use super::packing::Packing;
use super::stretch::Stretches;
use crate::error::{Error, Result};
use crate::oci::{self, Image, Layer, MAX_DOCUMENT, MAX_LAYERS};
use crate::transfer::{Context, Offer, Receiver, Source};
use pcocc_layers::digest::Hashing;
use pcocc_layers::{Compression, DiffId, Digest};

/// One image of a docker archive file, as a [`Source`].
#[derive(Debug)]
pub struct ArchiveFile {
    path: PathBuf,
    packing: Packing,
    config: Vec<u8>,
    layers: Vec<ArchiveLayer>,
}

/// A layer in the archive.
#[derive(Clone, Debug)]
struct ArchiveLayer {
    diff_id: DiffId,
    extent: Extent,
    compression: Compression,
    /// The digest that the entry's name promises, if the name has one.
    named: Option<Digest>,
}

impl ArchiveFile {
    /// Reads the archive's index and picks the image `reference`, or the only image.
    ///
    /// A compressed archive is read to its end.
    pub fn open(path: &Path, reference: Option<&str>, context: &Context) -> Result<Self> {
        let packing = packing_of(path)?;
        let stretches = Stretches::new(path, packing)?;
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
            packing,
            config,
            layers,
        })
    }

    /// Digest and size of a layer that is compressed in the archive.
    fn compressed_blob(&self, layer: &ArchiveLayer, context: &Context) -> Result<(Digest, u64)> {
        if let Some(digest) = layer.named {
            return Ok((digest, layer.extent.size));
        }
        let stretches = Stretches::new(&self.path, self.packing)?;
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
        let stretches = Mutex::new(Stretches::new(&self.path, self.packing)?);
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
                let stretches = stretches.lock();
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
                is_far: false,
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

/// Whether a file is a tar archive, plain or compressed.
pub fn looks_like(path: &Path) -> Result<bool> {
    let start = start_of(path)?;
    Ok(start.get(257..262) == Some(b"ustar") || Packing::sniff(&start) != Packing::Plain)
}

fn packing_of(path: &Path) -> Result<Packing> {
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
    Ok(Packing::sniff(&start_of(path)?))
}

fn start_of(path: &Path) -> Result<Vec<u8>> {
    let mut start = Vec::with_capacity(512);
    named::open(path)
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

/// The digest in an entry's name: `blobs/sha256/HEX`, `HEX.json`, `HEX.tar`.
fn digest_in(name: &str) -> Option<Digest> {
    let file = name.strip_prefix("blobs/sha256/").unwrap_or(name);
    Digest::from_hex(file.split('.').next().unwrap_or(file)).ok()
}
