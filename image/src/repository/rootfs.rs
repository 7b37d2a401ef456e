//! An image's root filesystem out of the cache, made when it is missing.

use std::fs::File;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::ingest::{Ingest, Options};
use crate::repository::cache::CacheKey;
use crate::repository::folder::Repository;
use crate::repository::meta::Meta;
use crate::repository::set::Repositories;
use crate::repository::sink::RepositoryBlobs;
use crate::transfer::Context;

impl Repositories {
    /// Opens the squashfs file of the image `meta` in `repository`, `config.json` and `rootfs/`
    /// inside; it is made from the layers when the cache does not have it.
    pub fn root_filesystem(
        &self,
        repository: &Arc<Repository>,
        meta: &Meta,
        options: Options,
        context: &Context,
    ) -> Result<File> {
        let cache = self.cache().ok_or_else(|| Error::Denied {
            what: "the root filesystem of an image".to_owned(),
            why: "needs a cache: set cache: path: in repos.yaml".to_owned(),
        })?;
        let key = CacheKey::of_meta(meta, repository.name());
        if let Some(file) = cache.open(&key)? {
            return Ok(file);
        }
        let image = repository.image(meta)?;
        let by_id = CacheKey::of_image(image.id());
        if !cache.contains(&by_id) {
            let blobs = RepositoryBlobs::new(Arc::clone(repository));
            let ingest = Ingest::new(&blobs, options, Some(cache.temp()?))?;
            let rootfs = ingest.finish(&image, context)?.ok_or_else(|| {
                Error::invalid("root filesystem", "was not made although it was asked for")
            })?;
            cache.publish(rootfs.file, &by_id)?;
        }
        cache.link(&by_id, &key)?;
        cache
            .open(&key)?
            .ok_or_else(|| Error::NotFound(format!("root filesystem of image {}", meta.name())))
    }
}
