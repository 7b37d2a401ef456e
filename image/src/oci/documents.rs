//! From the name of an image to the image for a machine.
//!
//! A store's index names manifests, or nested indexes, by platform; a manifest names the config and the layers.
//! [`Documents`] is any store of such documents, and its `image` the only code that walks them.

use super::{Image, Platform, config_of, is_index, parse_index, select_manifest};
use crate::error::Error;
use pcocc_layers::Digest;

/// Most nested indexes on the way to a manifest. Tools write one level.
pub const MAX_NESTING: usize = 7;

/// The documents of an image, by digest.
pub trait Documents {
    /// Why a document cannot be read.
    type Error: From<Error>;

    /// The machine for which an image is taken out of an index.
    fn machine(&self) -> Platform {
        Platform::host()
    }

    /// The document that the image's name stands for: a manifest, or a nested index.
    fn root(&self) -> Result<Vec<u8>, Self::Error>;

    /// The document with this digest, verified; its descriptor claims `size` bytes.
    fn document(&self, digest: Digest, size: u64) -> Result<Vec<u8>, Self::Error>;

    /// As [`Documents::document`], for a manifest or a nested index: registries keep both apart from blobs.
    fn manifest(&self, digest: Digest, size: u64) -> Result<Vec<u8>, Self::Error> {
        self.document(digest, size)
    }

    /// The document that `index` names for the machine.
    fn select(&self, index: &[u8]) -> Result<Vec<u8>, Self::Error> {
        let manifests = parse_index(index)?;
        let chosen = select_manifest(&manifests, &self.machine())?;
        let document = self.manifest(chosen.digest, chosen.size)?;
        if document.len() as u64 != chosen.size {
            return Err(Self::Error::from(Error::Corrupt {
                expected: chosen.digest,
                found: format!("{} bytes instead of {}", document.len(), chosen.size),
            }));
        }
        chosen.check_kind(&document)?;
        Ok(document)
    }

    /// The image for the machine. Nested indexes are followed; manifest and config are verified.
    fn image(&self) -> Result<Image, Self::Error> {
        let mut document = self.root()?;
        let mut nesting = 0;
        while is_index(&document)? {
            nesting += 1;
            if nesting > MAX_NESTING {
                return Err(Self::Error::from(Error::invalid(
                    "image index",
                    format!("is nested more than {MAX_NESTING} deep"),
                )));
            }
            document = self.select(&document)?;
        }
        let (config, size) = config_of(&document)?;
        Ok(Image::parse(&document, &self.document(config, size)?)?)
    }
}
