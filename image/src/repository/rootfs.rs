//! The root filesystem of an image: from the cache, or made from the layers.

use std::collections::HashMap;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use tempfile::NamedTempFile;

use crate::error::{Error, Result};
use crate::ingest::{BlobDir, Ingest, Options};
use crate::oci::{Image, Layer};
use crate::repository::cache::{Cache, CacheKey};
use crate::repository::folder::Repository;
use crate::repository::meta::Meta;
use crate::repository::set::Repositories;
use crate::repository::sink::RepositoryBlobs;
use crate::transfer::{Context, Layout};
use pcocc_layers::{DiffId, Digest};

impl Repositories {
    /// Opens the squashfs file of the image `meta` in `repository`, with `config.json` and `rootfs/` inside. A
    /// file that the cache lacks is made from the layers.
    pub fn root_filesystem(
        &self,
        repository: &Arc<Repository>,
        meta: &Meta,
        options: Options,
        context: &Context,
    ) -> Result<File> {
        let cache = self.rootfs_cache()?;
        let key = CacheKey::of_meta(meta, repository.name());
        if let Some(file) = cache.open(&key)? {
            return Ok(file);
        }
        let image = repository.image(meta)?;
        let by_id = CacheKey::of_image(image.id());
        if !cache.contains(&by_id) {
            let blobs = RepositoryBlobs::new(Arc::clone(repository));
            make(cache, &by_id, &blobs, &image, options, context)?;
        }
        cache.link(&by_id, &key)?;
        cache
            .open(&key)?
            .ok_or_else(|| Error::NotFound(format!("root filesystem of image {}", meta.name())))
    }

    /// As [`Self::root_filesystem`], for the image `layout` outside of repositories; its layers are files. The cache
    /// key is the image ID, so that the file is shared with the same image in a repository.
    pub fn root_filesystem_of(
        &self,
        layout: &dyn Layout,
        options: Options,
        context: &Context,
    ) -> Result<(Image, File)> {
        let cache = self.rootfs_cache()?;
        let image = layout.image(context)?;
        let key = CacheKey::of_image(image.id());
        if let Some(file) = cache.open(&key)? {
            return Ok((image, file));
        }
        make(
            cache,
            &key,
            &LayoutBlobs::new(layout, &image)?,
            &image,
            options,
            context,
        )?;
        match cache.open(&key)? {
            Some(file) => Ok((image, file)),
            None => Err(Error::NotFound(format!(
                "root filesystem of image {}",
                image.id()
            ))),
        }
    }

    fn rootfs_cache(&self) -> Result<&Cache> {
        self.cache()
            .map(|cache| &**cache)
            .ok_or_else(|| Error::Denied {
                what: "the root filesystem of an image".to_owned(),
                why: "needs a cache: set cache: path: in repos.yaml".to_owned(),
            })
    }
}

/// Makes a root filesystem from layers that are all there.
fn make(
    cache: &Cache,
    key: &CacheKey,
    blobs: &dyn BlobDir,
    image: &Image,
    options: Options,
    context: &Context,
) -> Result<()> {
    let ingest = Ingest::new(blobs, options, Some(cache.temp()?))?;
    let rootfs = ingest.finish(image, context)?.ok_or_else(|| {
        Error::invalid("root filesystem", "was not made although it was asked for")
    })?;
    cache.publish(rootfs.file, key)
}

/// The layers of a layout, read in place.
#[derive(Debug)]
struct LayoutBlobs(HashMap<Digest, (PathBuf, u64)>);

impl LayoutBlobs {
    fn new(layout: &dyn Layout, image: &Image) -> Result<Self> {
        let file = |layer: &Layer| match layout.layer_file(layer) {
            Some(path) => Ok((layer.digest, (path, layer.size))),
            None => Err(Error::NotFound(format!("layer {}, whole,", layer.digest))),
        };
        image
            .layers()
            .iter()
            .map(file)
            .collect::<Result<_>>()
            .map(Self)
    }
}

impl BlobDir for LayoutBlobs {
    fn size_of(&self, digest: Digest) -> Result<Option<u64>> {
        Ok(self.0.get(&digest).map(|(_, size)| *size))
    }

    fn path_of(&self, digest: Digest) -> PathBuf {
        self.0
            .get(&digest)
            .map(|(path, _)| path.clone())
            .unwrap_or_default()
    }

    fn temp(&self) -> Result<NamedTempFile> {
        Err(read_only())
    }

    fn publish(&self, _: NamedTempFile, _: Digest, _: u64) -> Result<()> {
        Err(read_only())
    }

    fn known_layer(&self, _: DiffId) -> Result<Option<Layer>> {
        Ok(None)
    }
}

fn read_only() -> Error {
    Error::invalid("an image that is only read", "cannot be written to")
}
