//! A layer and its media types.

use oci_spec::image::MediaType;

use crate::error::{Error, Result};
use pcocc_layers::{Compression, DiffId, Digest};

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

/// Reads the compression off a layer's media type, OCI's or docker's.
pub(super) fn compression_of(media_type: &str) -> Result<Compression> {
    // "nondistributable" and "foreign" layers are ordinary layers once their blob is at hand.
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
