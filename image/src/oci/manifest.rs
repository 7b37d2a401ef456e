//! Manifests: parsed from OCI's form and docker's, written in OCI's.

use oci_spec::image::{
    Descriptor, DescriptorBuilder, ImageManifest, ImageManifestBuilder, MediaType,
};

use super::Layer;
use super::descriptor::{MAX_DOCUMENT, builder, check_size, from_digest, schema_1, to_digest};
use super::lenient;
use super::media_types::{DOCKER_CONFIG, DOCKER_LAYER, DOCKER_LAYER_GZIP, DOCKER_MANIFEST};
use crate::error::{Error, Result};
use pcocc_layers::{Compression, Digest};

/// Most layers an image may have; docker itself stops at 127.
pub const MAX_LAYERS: usize = 1024;

/// Tells an index or manifest list from a manifest, and refuses docker schema 1.
pub fn is_index(document: &[u8]) -> Result<bool> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Probe {
        schema_version: Option<u64>,
        manifests: Option<serde::de::IgnoredAny>,
    }
    check_size("image manifest", document)?;
    let probe: Probe = serde_json::from_slice(document)
        .map_err(|error| Error::invalid("image manifest", format!("does not parse: {error}")))?;
    match probe.schema_version {
        Some(1) => Err(schema_1()),
        _ => Ok(probe.manifests.is_some()),
    }
}

/// Digest and size of the config a manifest names.
pub fn config_of(manifest: &[u8]) -> Result<(Digest, u64)> {
    let parsed = parse_manifest(manifest)?;
    Ok((to_digest(parsed.config())?, parsed.config().size()))
}

pub(super) fn parse_manifest(manifest: &[u8]) -> Result<ImageManifest> {
    check_size("image manifest", manifest)?;
    if is_index(manifest)? {
        return Err(Error::invalid("image manifest", "is an index of images"));
    }
    let parsed: ImageManifest = lenient::parse(manifest, "layers")
        .map_err(|error| Error::invalid("image manifest", format!("does not parse: {error}")))?;
    let config_type = parsed.config().media_type();
    if *config_type != MediaType::ImageConfig && config_type.as_ref() != DOCKER_CONFIG {
        return Err(Error::invalid(
            "image manifest",
            format!("is not of a container image: its config is of type {config_type}"),
        ));
    }
    if parsed.config().size() > MAX_DOCUMENT {
        return Err(Error::invalid(
            "image config",
            format!(
                "claims {} bytes, more than the {MAX_DOCUMENT} allowed",
                parsed.config().size()
            ),
        ));
    }
    if parsed.layers().len() > MAX_LAYERS {
        return Err(Error::invalid(
            "image manifest",
            format!("has more than {MAX_LAYERS} layers"),
        ));
    }
    if parsed
        .layers()
        .iter()
        .any(|layer| layer.size() > i64::MAX as u64)
    {
        return Err(Error::invalid(
            "image manifest",
            "claims a layer of an absurd size",
        ));
    }
    Ok(parsed)
}

pub(super) fn render_manifest(config: &[u8], layers: &[Layer]) -> Result<Vec<u8>> {
    let types: Vec<_> = layers.iter().map(Layer::media_type).collect();
    render(
        MediaType::ImageManifest,
        MediaType::ImageConfig,
        config,
        layers,
        types,
    )
}

pub(super) fn render_docker_manifest(config: &[u8], layers: &[Layer]) -> Result<Option<Vec<u8>>> {
    let types = layers.iter().map(|layer| match layer.compression {
        Compression::None => Some(DOCKER_LAYER),
        Compression::Gzip => Some(DOCKER_LAYER_GZIP),
        Compression::Zstd => None,
    });
    let Some(types) = types.map(|name| name.map(MediaType::from)).collect() else {
        return Ok(None);
    };
    let (manifest, of_config) = (DOCKER_MANIFEST.into(), DOCKER_CONFIG.into());
    render(manifest, of_config, config, layers, types).map(Some)
}

/// Writes a manifest with these media types: its own, its config's, and those of its layers.
fn render(
    own: MediaType,
    of_config: MediaType,
    config: &[u8],
    layers: &[Layer],
    types: Vec<MediaType>,
) -> Result<Vec<u8>> {
    let descriptor = |media_type, digest, size| {
        DescriptorBuilder::default()
            .media_type(media_type)
            .digest(from_digest(digest)?)
            .size(size)
            .build()
            .map_err(builder)
    };
    let layers = std::iter::zip(layers, types)
        .map(|(layer, media_type)| descriptor(media_type, layer.digest, layer.size))
        .collect::<Result<Vec<Descriptor>>>()?;
    let manifest = ImageManifestBuilder::default()
        .schema_version(2u32)
        .media_type(own)
        .config(descriptor(
            of_config,
            Digest::of(config),
            config.len() as u64,
        )?)
        .layers(layers)
        .build()
        .map_err(builder)?;
    serde_json::to_vec(&manifest)
        .map_err(|error| Error::invalid("image manifest", error.to_string()))
}
