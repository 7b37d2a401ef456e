//! One image: manifest, config and layers that agree with each other.

use oci_spec::image::MediaType;

use super::Layer;
use super::config::parse_config;
use super::descriptor::to_digest;
use super::layer::compression_of;
use super::manifest::{parse_manifest, render_docker_manifest, render_manifest};
use crate::error::{Error, Result};
use pcocc_layers::{DiffId, Digest};

/// One image, complete but for the content of its layers. Its parts agree with each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    manifest: Vec<u8>,
    manifest_digest: Digest,
    config: Vec<u8>,
    id: Digest,
    layers: Vec<Layer>,
    architecture: String,
    os: String,
}

impl Image {
    /// Parses a manifest and the config it names.
    ///
    /// Docker schema 2 is turned into an OCI manifest with the same config and layers. Fails with
    /// [`Error::Invalid`] when either document is malformed, when the config is not the one the
    /// manifest names, or when layers and diff IDs differ in number.
    pub fn parse(manifest: &[u8], config: &[u8]) -> Result<Self> {
        let parsed = parse_manifest(manifest)?;
        let named = parsed.config();
        let id = Digest::of(config);
        if to_digest(named)? != id || named.size() != config.len() as u64 {
            return Err(Error::Corrupt {
                expected: to_digest(named)?,
                found: format!("{id} of {} bytes", config.len()),
            });
        }
        let (diff_ids, architecture, os) = parse_config(config)?;
        if parsed.layers().len() != diff_ids.len() {
            return Err(Error::invalid(
                "image manifest",
                format!(
                    "lists {} layers, its config {}",
                    parsed.layers().len(),
                    diff_ids.len()
                ),
            ));
        }
        let mut layers = Vec::with_capacity(diff_ids.len());
        for (descriptor, diff_id) in parsed.layers().iter().zip(diff_ids) {
            layers.push(Layer {
                digest: to_digest(descriptor)?,
                size: descriptor.size(),
                compression: compression_of(descriptor.media_type().as_ref())?,
                diff_id,
            });
        }
        let is_oci = *named.media_type() == MediaType::ImageConfig
            && parsed
                .media_type()
                .as_ref()
                .is_none_or(|t| *t == MediaType::ImageManifest)
            && parsed
                .layers()
                .iter()
                .zip(&layers)
                .all(|(descriptor, layer)| *descriptor.media_type() == layer.media_type());
        let manifest = if is_oci {
            manifest.to_vec()
        } else {
            render_manifest(config, &layers)?
        };
        Ok(Self {
            manifest_digest: Digest::of(&manifest),
            manifest,
            config: config.to_vec(),
            id,
            layers,
            architecture,
            os,
        })
    }

    /// Makes an image of a config and its layers, lowest first, with a new OCI manifest.
    ///
    /// Fails with [`Error::Invalid`] when the config's diff IDs are not those of the layers.
    pub fn assemble(config: Vec<u8>, layers: Vec<Layer>) -> Result<Self> {
        let (diff_ids, architecture, os) = parse_config(&config)?;
        if !diff_ids
            .iter()
            .eq(layers.iter().map(|layer| &layer.diff_id))
        {
            return Err(Error::invalid(
                "image config",
                "names other layers than the image has",
            ));
        }
        let manifest = render_manifest(&config, &layers)?;
        Ok(Self {
            manifest_digest: Digest::of(&manifest),
            manifest,
            id: Digest::of(&config),
            config,
            layers,
            architecture,
            os,
        })
    }

    /// The image ID: digest of the config.
    pub fn id(&self) -> Digest {
        self.id
    }

    /// The config's bytes.
    pub fn config(&self) -> &[u8] {
        &self.config
    }

    /// The OCI manifest's bytes.
    pub fn manifest(&self) -> &[u8] {
        &self.manifest
    }

    /// The same manifest in docker's form (schema 2), for registries that take no other; `None` when a layer is compressed by
    /// zstd, for which docker has no media type.
    pub fn docker_manifest(&self) -> Result<Option<Vec<u8>>> {
        render_docker_manifest(&self.config, &self.layers)
    }

    /// Digest of the OCI manifest.
    pub fn manifest_digest(&self) -> Digest {
        self.manifest_digest
    }

    /// The layers, lowest first.
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// Diff IDs of the layers, lowest first.
    pub fn diff_ids(&self) -> Vec<DiffId> {
        self.layers.iter().map(|layer| layer.diff_id).collect()
    }

    /// `os/architecture` as the config names them.
    pub fn platform(&self) -> String {
        format!("{}/{}", self.os, self.architecture)
    }

    /// Every blob of the image once (manifest, config, layers): digest and size in bytes.
    pub fn blobs(&self) -> Vec<(Digest, u64)> {
        let documents = [
            (self.manifest_digest, self.manifest.len() as u64),
            (self.id, self.config.len() as u64),
        ];
        let layers = self.layers.iter().map(|layer| (layer.digest, layer.size));
        let mut blobs = Vec::new();
        for blob in documents.into_iter().chain(layers) {
            if !blobs.contains(&blob) {
                blobs.push(blob);
            }
        }
        blobs
    }
}
