//! Indexes: the manifests of a store or of several platforms.

use oci_spec::image::{DescriptorBuilder, ImageIndex, ImageIndexBuilder, MediaType};

use super::Image;
use super::descriptor::{builder, check_size, from_digest, schema_1, to_digest};
use super::lenient;
use super::manifest::is_index;
use super::media_types::{DOCKER_MANIFEST, DOCKER_MANIFEST_LIST, DOCKER_SCHEMA_1};
use super::platform::Platform;
use crate::error::{Error, Result};
use pcocc_layers::Digest;

/// Annotation that carries an image's name in an `index.json` (OCI image spec, "Annotations").
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";

impl Image {
    /// An OCI index that names this image alone, under `name` when given (OCI image spec,
    /// "Image Index"). The bytes of an `index.json`.
    pub fn index(&self, name: Option<&str>) -> Result<Vec<u8>> {
        let mut descriptor = DescriptorBuilder::default()
            .media_type(MediaType::ImageManifest)
            .digest(from_digest(self.manifest_digest())?)
            .size(self.manifest().len() as u64);
        if let Some(name) = name {
            descriptor = descriptor.annotations([(REF_NAME.to_owned(), name.to_owned())]);
        }
        let index = ImageIndexBuilder::default()
            .schema_version(2u32)
            .manifests([descriptor.build().map_err(builder)?])
            .build()
            .map_err(builder)?;
        serde_json::to_vec(&index).map_err(|error| Error::invalid("image index", error.to_string()))
    }
}

/// A manifest an index names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestDescriptor {
    /// Digest of the manifest, or of a nested index.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// Whether it is an index itself.
    pub is_index: bool,
    /// What it is for, when the index says.
    pub platform: Option<Platform>,
    /// Its name when the index says ([`REF_NAME`]).
    pub name: Option<String>,
}

impl ManifestDescriptor {
    /// Refuses a `document` whose kind is not the descriptor's: an index called a manifest, or the reverse.
    /// Programs that believe the descriptor and programs that believe the document must see the same image.
    pub fn check_kind(&self, document: &[u8]) -> Result<()> {
        let why = match (is_index(document)?, self.is_index) {
            (true, false) => "is an index, and the index above calls it a manifest",
            (false, true) => "is a manifest, and the index above calls it an index",
            _ => return Ok(()),
        };
        Err(Error::invalid(format!("document {}", self.digest), why))
    }
}

/// Parses an OCI index or a docker manifest list; attestation manifests are left out.
pub fn parse_index(index: &[u8]) -> Result<Vec<ManifestDescriptor>> {
    check_size("image index", index)?;
    let parsed: ImageIndex = lenient::parse(index, "manifests")
        .map_err(|error| Error::invalid("image index", format!("does not parse: {error}")))?;
    let mut manifests = Vec::new();
    for descriptor in parsed.manifests() {
        let media_type = descriptor.media_type().as_ref();
        let is_index =
            *descriptor.media_type() == MediaType::ImageIndex || media_type == DOCKER_MANIFEST_LIST;
        if media_type.starts_with(DOCKER_SCHEMA_1) {
            return Err(schema_1());
        }
        if !is_index
            && *descriptor.media_type() != MediaType::ImageManifest
            && media_type != DOCKER_MANIFEST
        {
            return Err(Error::invalid(
                "image index",
                format!("names a manifest of the unknown media type {media_type:?}"),
            ));
        }
        let platform = descriptor.platform().as_ref().map(Platform::of);
        // BuildKit hides its attestations behind this platform.
        if platform.as_ref().is_some_and(Platform::is_unknown) {
            continue;
        }
        manifests.push(ManifestDescriptor {
            digest: to_digest(descriptor)?,
            size: descriptor.size(),
            is_index,
            platform,
            name: descriptor
                .annotations()
                .as_ref()
                .and_then(|a| a.get(REF_NAME).cloned()),
        });
    }
    Ok(manifests)
}

/// Takes the manifest for a machine out of an index: of those that run there the best, and of equals the first. Manifests
/// without a platform are for any machine.
pub fn select_manifest<'a>(
    manifests: &'a [ManifestDescriptor],
    machine: &Platform,
) -> Result<&'a ManifestDescriptor> {
    let bad = |why: String| Error::invalid("image index", why);
    let mut best: Option<(u32, &ManifestDescriptor)> = None;
    for manifest in manifests {
        let rank = manifest
            .platform
            .as_ref()
            .and_then(|platform| machine.rank(platform));
        if let Some(rank) = rank
            && best.is_none_or(|(other, _)| rank > other)
        {
            best = Some((rank, manifest));
        }
    }
    if let Some((_, manifest)) = best {
        return Ok(manifest);
    }
    let mut any = manifests
        .iter()
        .filter(|manifest| manifest.platform.is_none());
    let this = match *machine == Platform::host() {
        true => format!("this machine ({machine})"),
        false => machine.to_string(),
    };
    match any.next() {
        // One image may stand under several names.
        Some(first) if any.all(|other| other.digest == first.digest) => Ok(first),
        Some(_) => Err(bad(
            "names several images without a platform; name one by its tag".to_owned(),
        )),
        None if manifests.is_empty() => Err(bad("names no image".to_owned())),
        None => {
            let offered = manifests
                .iter()
                .filter_map(|manifest| manifest.platform.as_ref());
            let offered: Vec<String> = offered.map(Platform::to_string).collect();
            Err(bad(format!(
                "has no image for {this}, only for {}; --platform chooses another",
                offered.join(", ")
            )))
        }
    }
}
