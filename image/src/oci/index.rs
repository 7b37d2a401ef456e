//! Indexes: the manifests of a store or of several platforms.

use oci_spec::image::{DescriptorBuilder, ImageIndex, ImageIndexBuilder, MediaType};

use super::Image;
use super::descriptor::{builder, check_size, from_digest, schema_1, to_digest};
use super::manifest::is_index;
use super::media_types::{DOCKER_MANIFEST, DOCKER_MANIFEST_LIST, DOCKER_SCHEMA_1};
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
    /// `os/architecture` when the index says.
    pub platform: Option<String>,
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
    let parsed: ImageIndex = serde_json::from_slice(index)
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
        let platform = descriptor
            .platform()
            .as_ref()
            .map(|p| format!("{}/{}", p.os(), p.architecture()));
        // BuildKit hides its attestations behind this platform.
        if platform.as_deref() == Some("unknown/unknown") {
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

/// Takes the manifest for this machine out of an index: the only manifest, or the manifest of this machine's
/// platform.
pub fn select_manifest(manifests: &[ManifestDescriptor]) -> Result<&ManifestDescriptor> {
    let wanted = host_platform();
    match manifests {
        [] => Err(Error::invalid("image index", "names no image")),
        // One image may stand under several names.
        [only, others @ ..]
            if others
                .iter()
                .all(|m| (m.digest, &m.platform) == (only.digest, &only.platform)) =>
        {
            Ok(only)
        }
        several => {
            let mut matching = several
                .iter()
                .filter(|m| m.platform.as_deref() == Some(wanted.as_str()));
            let first = matching.next();
            match (
                first,
                matching.find(|m| first.is_some_and(|f| f.digest != m.digest)),
            ) {
                (Some(only), None) => Ok(only),
                (None, _) => Err(Error::invalid(
                    "image index",
                    format!(
                        "has no image for this machine ({wanted}), only for {}",
                        several
                            .iter()
                            .map(|m| m.platform.as_deref().unwrap_or("an unnamed platform"))
                            .collect::<Vec<_>>()
                            .join(", ")
                    ),
                )),
                (Some(_), Some(_)) => Err(Error::invalid(
                    "image index",
                    format!("has several images for this machine ({wanted}); name one by its tag"),
                )),
            }
        }
    }
}

/// This machine's platform in OCI's words, such as `linux/amd64`.
pub fn host_platform() -> String {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        other => other,
    };
    format!("linux/{architecture}")
}
