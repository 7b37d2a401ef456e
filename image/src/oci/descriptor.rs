//! What manifests and indexes share: digests of descriptors, bounds, errors.

use oci_spec::image::Descriptor;
use oci_spec::image::Digest as OciDigest;

use crate::error::{Error, Result};
use pcocc_layers::Digest;

/// Largest manifest, index or config that is read into memory, in bytes.
pub const MAX_DOCUMENT: u64 = 8 << 20;

pub(super) fn to_digest(descriptor: &Descriptor) -> Result<Digest> {
    Ok(descriptor.digest().to_string().parse()?)
}

pub(super) fn from_digest(digest: Digest) -> Result<OciDigest> {
    digest
        .to_string()
        .parse()
        .map_err(|error: oci_spec::OciSpecError| Error::invalid("digest", error.to_string()))
}

pub(super) fn builder(error: oci_spec::OciSpecError) -> Error {
    Error::invalid("image document", error.to_string())
}

pub(super) fn schema_1() -> Error {
    Error::invalid(
        "image manifest",
        "is docker schema 1, obsolete since 2017; pull and push it again with a current docker",
    )
}

pub(super) fn check_size(what: &str, document: &[u8]) -> Result<()> {
    if document.len() as u64 > MAX_DOCUMENT {
        return Err(Error::invalid(
            what,
            format!("is larger than {MAX_DOCUMENT} bytes"),
        ));
    }
    Ok(())
}
