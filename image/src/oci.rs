//! What an image is: a manifest, a config whose bytes are never rewritten, and layers.
//!
//! Follows the OCI image spec 1.1 (manifest, config, index) and reads docker's schema 2 as well, which
//! differs in media types only. Only OCI media types are written. The image ID is the digest of the
//! config's bytes.

mod documents;

pub use documents::{Documents, MAX_NESTING};

use oci_spec::image::{
    Descriptor as OciDescriptor, DescriptorBuilder, ImageConfiguration, ImageIndex,
    ImageIndexBuilder, ImageManifest, ImageManifestBuilder, MediaType,
};

use crate::error::{Error, Result};
use pcocc_layers::{Compression, DiffId, Digest};

/// Largest manifest, index or config that is read into memory, in bytes.
pub const MAX_DOCUMENT: u64 = 8 << 20;

/// Most layers an image may have; docker itself stops at 127.
pub const MAX_LAYERS: usize = 1024;

/// Annotation that carries an image's name in an `index.json` (OCI image spec, "Annotations").
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";

const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_MANIFEST_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const DOCKER_SCHEMA_1: &str = "application/vnd.docker.distribution.manifest.v1";

/// Reads the compression off a layer's media type, OCI's or docker's.
fn compression_of(media_type: &str) -> Result<Compression> {
    // "nondistributable" and "foreign" layers are ordinary ones once their blob is at hand.
    let kind = [
        "application/vnd.oci.image.layer.nondistributable.v1.",
        "application/vnd.oci.image.layer.v1.",
        "application/vnd.docker.image.rootfs.diff.",
        "application/vnd.docker.image.rootfs.foreign.diff.",
    ]
    .iter()
    .find_map(|prefix| media_type.strip_prefix(prefix));
    match kind {
        Some("tar") => Ok(Compression::None),
        Some("tar+gzip" | "tar.gzip") => Ok(Compression::Gzip),
        Some("tar+zstd" | "tar.zstd") => Ok(Compression::Zstd),
        _ => Err(Error::invalid(
            format!("layer media type {media_type:?}"),
            "is not a container image layer pcocc can read",
        )),
    }
}

/// A layer blob and what it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Digest of the blob as stored.
    pub digest: Digest,
    /// Size of the blob in bytes, as stored.
    pub size: u64,
    /// How the blob is compressed.
    pub compression: Compression,
    /// Digest of the plain tar inside.
    pub diff_id: DiffId,
}

impl Layer {
    /// The OCI media type of the blob.
    pub fn media_type(&self) -> MediaType {
        match self.compression {
            Compression::None => MediaType::ImageLayer,
            Compression::Gzip => MediaType::ImageLayerGzip,
            Compression::Zstd => MediaType::ImageLayerZstd,
        }
    }
}

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

    /// An OCI index that names this image alone, under `name` when given (OCI image spec,
    /// "Image Index"). The bytes of an `index.json`.
    pub fn index(&self, name: Option<&str>) -> Result<Vec<u8>> {
        let mut descriptor = DescriptorBuilder::default()
            .media_type(MediaType::ImageManifest)
            .digest(from_digest(self.manifest_digest)?)
            .size(self.manifest.len() as u64);
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

/// Takes the manifest for this machine out of an index: the only one there is, else the one for
/// this machine's platform.
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

/// The diff IDs an image config lists, lowest layer first.
pub fn diff_ids(config: &[u8]) -> Result<Vec<DiffId>> {
    parse_config(config).map(|(diff_ids, ..)| diff_ids)
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

fn parse_manifest(manifest: &[u8]) -> Result<ImageManifest> {
    check_size("image manifest", manifest)?;
    if is_index(manifest)? {
        return Err(Error::invalid("image manifest", "is an index of images"));
    }
    let parsed: ImageManifest = serde_json::from_slice(manifest)
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

fn parse_config(config: &[u8]) -> Result<(Vec<DiffId>, String, String)> {
    check_size("image config", config)?;
    let parsed: ImageConfiguration = serde_json::from_slice(config)
        .map_err(|error| Error::invalid("image config", format!("does not parse: {error}")))?;
    let diff_ids = parsed
        .rootfs()
        .diff_ids()
        .iter()
        .map(|diff_id| Ok(DiffId(diff_id.parse()?)))
        .collect::<Result<_>>()?;
    Ok((
        diff_ids,
        parsed.architecture().to_string(),
        parsed.os().to_string(),
    ))
}

fn render_manifest(config: &[u8], layers: &[Layer]) -> Result<Vec<u8>> {
    let descriptor = |media_type, digest, size| {
        DescriptorBuilder::default()
            .media_type(media_type)
            .digest(from_digest(digest)?)
            .size(size)
            .build()
            .map_err(builder)
    };
    let layers = layers
        .iter()
        .map(|layer| descriptor(layer.media_type(), layer.digest, layer.size))
        .collect::<Result<Vec<OciDescriptor>>>()?;
    let manifest = ImageManifestBuilder::default()
        .schema_version(2u32)
        .media_type(MediaType::ImageManifest)
        .config(descriptor(
            MediaType::ImageConfig,
            Digest::of(config),
            config.len() as u64,
        )?)
        .layers(layers)
        .build()
        .map_err(builder)?;
    serde_json::to_vec(&manifest)
        .map_err(|error| Error::invalid("image manifest", error.to_string()))
}

fn to_digest(descriptor: &OciDescriptor) -> Result<Digest> {
    Ok(descriptor.digest().to_string().parse()?)
}

fn from_digest(digest: Digest) -> Result<oci_spec::image::Digest> {
    digest
        .to_string()
        .parse()
        .map_err(|error: oci_spec::OciSpecError| Error::invalid("digest", error.to_string()))
}

fn builder(error: oci_spec::OciSpecError) -> Error {
    Error::invalid("image document", error.to_string())
}

fn schema_1() -> Error {
    Error::invalid(
        "image manifest",
        "is docker schema 1, obsolete since 2017; pull and push it again with a current docker",
    )
}

fn check_size(what: &str, document: &[u8]) -> Result<()> {
    if document.len() as u64 > MAX_DOCUMENT {
        return Err(Error::invalid(
            what,
            format!("is larger than {MAX_DOCUMENT} bytes"),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(diff_ids: &[&str]) -> Vec<u8> {
        let ids: Vec<_> = diff_ids
            .iter()
            .map(|id| Digest::of(id.as_bytes()).to_string())
            .collect();
        serde_json::json!({
            "architecture": "amd64", "os": "linux", "config": {},
            "rootfs": {"type": "layers", "diff_ids": ids},
        })
        .to_string()
        .into_bytes()
    }

    fn layer(content: &str, compression: Compression) -> Layer {
        Layer {
            digest: Digest::of(format!("blob of {content}").as_bytes()),
            size: 7,
            compression,
            diff_id: DiffId(Digest::of(content.as_bytes())),
        }
    }

    fn docker_manifest(config: &[u8], layer_type: &str) -> Vec<u8> {
        serde_json::json!({
            "schemaVersion": 2,
            "mediaType": DOCKER_MANIFEST,
            "config": {"mediaType": DOCKER_CONFIG, "size": config.len(), "digest": Digest::of(config)},
            "layers": [{"mediaType": layer_type, "size": 7, "digest": Digest::of(b"blob of a")}],
        })
        .to_string()
        .into_bytes()
    }

    #[test]
    fn assembled_images_parse_back_to_themselves() {
        let image = Image::assemble(
            config(&["a", "b", "a"]),
            vec![
                layer("a", Compression::Gzip),
                layer("b", Compression::Zstd),
                layer("a", Compression::Gzip),
            ],
        )
        .unwrap();
        assert_eq!(
            Image::parse(image.manifest(), image.config()).unwrap(),
            image
        );
        assert_eq!(image.blobs().len(), 4, "an equal layer is one blob");
        let index = image.index(Some("latest")).unwrap();
        assert!(is_index(&index).unwrap());
        let named = parse_index(&index).unwrap();
        assert_eq!(
            select_manifest(&named).unwrap().digest,
            image.manifest_digest()
        );
        assert_eq!(named[0].name.as_deref(), Some("latest"));
    }

    #[test]
    fn docker_schema_2_becomes_an_oci_manifest_with_the_same_config() {
        let config = config(&["a"]);
        let manifest =
            docker_manifest(&config, "application/vnd.docker.image.rootfs.diff.tar.gzip");
        let image = Image::parse(&manifest, &config).unwrap();
        assert_eq!(image.id(), Digest::of(&config));
        assert!(!String::from_utf8_lossy(image.manifest()).contains("docker"));
        assert_eq!(
            image,
            Image::assemble(config, vec![layer("a", Compression::Gzip)]).unwrap()
        );
    }

    #[test]
    fn what_is_not_an_image_is_refused() {
        let good = config(&["a"]);
        let gzip = "application/vnd.docker.image.rootfs.diff.tar.gzip";
        let cases: [(&str, Vec<u8>, Vec<u8>); 6] = [
            ("does not parse", b"{".to_vec(), good.clone()),
            (
                "schema 1",
                br#"{"schemaVersion":1,"fsLayers":[]}"#.to_vec(),
                good.clone(),
            ),
            (
                "index",
                br#"{"schemaVersion":2,"manifests":[]}"#.to_vec(),
                good.clone(),
            ),
            (
                "media type",
                docker_manifest(&good, "application/x-elf"),
                good.clone(),
            ),
            ("corrupt", docker_manifest(&good, gzip), config(&["b"])),
            (
                "lists 1 layers",
                docker_manifest(&config(&[]), gzip),
                config(&[]),
            ),
        ];
        for (why, manifest, config) in cases {
            let error = Image::parse(&manifest, &config).unwrap_err().to_string();
            assert!(error.contains(why), "{why}: {error}");
        }
        let huge = vec![b' '; MAX_DOCUMENT as usize + 1];
        assert!(is_index(&huge).unwrap_err().to_string().contains("larger"));
    }

    #[test]
    fn the_machines_own_platform_is_taken_from_several() {
        let one = |platform: &str| ManifestDescriptor {
            digest: Digest::of(platform.as_bytes()),
            size: 1,
            is_index: false,
            platform: Some(platform.to_owned()),
            name: None,
        };
        let own = host_platform();
        let several = [one("linux/riscv64"), one(&own)];
        assert_eq!(select_manifest(&several).unwrap(), &several[1]);
        assert_eq!(
            select_manifest(&several[..1]).unwrap(),
            &several[0],
            "the only one is taken"
        );
        let foreign = [one("linux/riscv64"), one("windows/amd64")];
        assert!(
            select_manifest(&foreign)
                .unwrap_err()
                .to_string()
                .contains("linux/riscv64")
        );
        let mut other = one(&own);
        assert!(select_manifest(&[one(&own), other.clone()]).is_ok());
        other.digest = Digest::of(b"other");
        assert!(select_manifest(&[one(&own), other]).is_err());
        assert!(select_manifest(&[]).is_err());
    }
}
