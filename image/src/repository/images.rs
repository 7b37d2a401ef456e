//! From metadata to images: the index in the metadata names the manifest, the manifest names the config and the
//! layers. Every reading verifies the digests of manifest and config.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::sync::Arc;

use pcocc_core::trust;

use crate::error::{Error, Result};
use crate::oci::{Documents, Image, Layer, MAX_DOCUMENT};
use crate::repository::folder::Repository;
use crate::repository::meta::{Kind, Meta};
use crate::transfer::{Context, Layout};
use pcocc_layers::{DiffId, Digest};

/// The documents of the image that a metadata file describes.
struct MetaDocuments<'a> {
    repository: &'a Repository,
    meta: &'a Meta,
}

impl Documents for MetaDocuments<'_> {
    type Error = Error;

    fn root(&self) -> Result<Vec<u8>> {
        self.select(self.meta.oci_index()?.as_bytes())
    }

    fn document(&self, digest: Digest, _size: u64) -> Result<Vec<u8>> {
        self.repository.read_blob(digest, MAX_DOCUMENT)
    }
}

impl Repository {
    /// Reads the container image that `meta` describes; manifest and config are verified.
    ///
    /// Fails with [`Error::NotFound`] when a document is missing, with [`Error::Corrupt`] when one is
    /// damaged, and with [`Error::Invalid`] when `meta` is not of a container image.
    pub fn image(&self, meta: &Meta) -> Result<Image> {
        let repository = self;
        MetaDocuments { repository, meta }.image()
    }

    /// The layers of all images in the repository, by diff ID.
    ///
    /// Images that cannot be read are left out. The blob of a layer may be missing.
    pub fn known_layers(&self) -> Result<HashMap<DiffId, Layer>> {
        let listing = self.list()?;
        let mut index = self.layers.lock();
        for meta in listing.metas {
            if meta.kind() != Kind::Container || !index.begin(meta.data_blobs()) {
                continue;
            }
            // The writer of the metadata may have claimed any diff ID for a blob. Only the user's and the site
            // administrator's claims are believed without reading the blob.
            if !self.is_trusted(&meta) {
                continue;
            }
            match self.image(&meta) {
                Ok(image) => index.add(&image),
                Err(error) => {
                    tracing::debug!(image = meta.name(), %error, "layers of an image stay unknown");
                }
            }
        }
        Ok(index.layers().clone())
    }

    fn is_trusted(&self, meta: &Meta) -> bool {
        let Ok(version) = self.version() else {
            return false;
        };
        let file = Self::meta_name(version, meta.name(), meta.revision());
        self.metas().is_ok_and(|metas| {
            metas
                .stat(file)
                .is_ok_and(|found| trust::is_trusted(&found))
        })
    }

    /// The image with this ID, when an image in the repository has it and all its blobs are there.
    ///
    /// Images of others do not count: their layers may be other ones than the image with this ID has.
    pub fn recall(&self, id: Digest) -> Result<Option<Image>> {
        for meta in self.list()?.metas {
            if meta.kind() != Kind::Container || !meta.data_blobs().contains(&id) {
                continue;
            }
            if !self.is_trusted(&meta) {
                tracing::debug!(
                    image = meta.name(),
                    "an image of somebody else is not recalled"
                );
                continue;
            }
            match self.image(&meta) {
                Ok(image) if image.id() == id && self.holds(&image)? => return Ok(Some(image)),
                Ok(_) => {}
                Err(error) => {
                    tracing::debug!(image = meta.name(), %error, "a damaged image is not recalled");
                }
            }
        }
        Ok(None)
    }

    /// Whether every blob of the image is there in its right size. The blobs are refreshed, so that garbage
    /// collection spares them until new metadata names them.
    pub fn holds(&self, image: &Image) -> Result<bool> {
        for (digest, size) in image.blobs() {
            if !self.reuse_blob(digest, size)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// A container image of a repository as a [`Layout`]: its layers are the blob files.
#[derive(Clone, Debug)]
pub struct RepositoryImage {
    repository: Arc<Repository>,
    meta: Meta,
}

impl RepositoryImage {
    /// The image `meta` of `repository`. Nothing is read yet.
    pub fn new(repository: Arc<Repository>, meta: Meta) -> Self {
        Self { repository, meta }
    }

    /// Its metadata.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// The repository that holds it.
    pub fn repository(&self) -> &Arc<Repository> {
        &self.repository
    }
}

impl Layout for RepositoryImage {
    fn image(&self, _: &Context) -> Result<Image> {
        self.repository.image(&self.meta)
    }

    fn open_layer<'a>(&'a self, layer: &Layer) -> Result<Box<dyn Read + Send + 'a>> {
        let file = match self.repository.open_blob(layer.digest) {
            Err(Error::NotFound(_)) => {
                return Err(Error::NotFound(format!(
                    "blob {} of image {}:{}",
                    layer.digest,
                    self.repository.name(),
                    self.meta.name()
                )));
            }
            opened => opened?,
        };
        let path = self.repository.blob_path(layer.digest);
        let size = file.metadata().map_err(Error::io("open", &path))?.len();
        if size != layer.size {
            return Err(Error::Corrupt {
                expected: layer.digest,
                found: format!("{size} bytes, not {}, in {}", layer.size, path.display()),
            });
        }
        Ok(Box::new(file))
    }

    fn layer_file(&self, layer: &Layer) -> Option<File> {
        self.repository.open_blob(layer.digest).ok()
    }
}
