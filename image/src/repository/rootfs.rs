//! The root filesystem of an image: from the cache, or made from the layers.

use std::collections::HashMap;
use std::fs::File;
use std::io::Seek as _;
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;

use pcocc_core::beneath::TempFile;

use crate::error::{Error, Result};
use crate::ingest::{BlobDir, Ingest, Options};
use crate::oci::{Image, Layer};
use crate::repository::cache::{Cache, CacheKey};
use crate::repository::folder::Repository;
use crate::repository::meta::Meta;
use crate::repository::set::Repositories;
use crate::repository::sink::RepositoryBlobs;
use crate::transfer::{Context, Layout};
use pcocc_layers::{DiffId, Digest, squashfs};

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
        // Our own entries have a second name, by the image's ID. pcocc 0.7 finds its own under this key, which lacks setuid
        // bits and some folders: it may keep that one.
        let is_ours = |file: &File| file.metadata().is_ok_and(|metadata| metadata.nlink() > 1);
        if let Some(file) = whole(cache, &key, context)?.filter(is_ours) {
            return Ok(file);
        }
        let image = repository.image(meta)?;
        let by_id = CacheKey::of_image(image.id());
        let file = match whole(cache, &by_id, context)? {
            Some(file) => file,
            None => {
                let blobs = RepositoryBlobs::new(Arc::clone(repository));
                self.make(cache, &blobs, &image, options, context)?
            }
        };
        if let Err(error) = cache.link(&by_id, &key) {
            tracing::debug!(%error, "the image has no cache entry of its own");
        }
        Ok(file)
    }

    /// The same for an image that is no repository's, `layout`, whose layers are files. The cache has it
    /// under its ID, so that it is there already when a repository has the image too.
    pub fn root_filesystem_of(
        &self,
        layout: &dyn Layout,
        options: Options,
        context: &Context,
    ) -> Result<(Image, File)> {
        let cache = self.rootfs_cache()?;
        let image = layout.image(context)?;
        let key = CacheKey::of_image(image.id());
        if let Some(file) = whole(cache, &key, context)? {
            return Ok((image, file));
        }
        let blobs = LayoutBlobs::new(layout, &image)?;
        let file = self.make(cache, &blobs, &image, options, context)?;
        Ok((image, file))
    }

    fn rootfs_cache(&self) -> Result<&Cache> {
        self.cache()
            .map(|cache| &**cache)
            .ok_or_else(|| Error::Denied {
                what: "the root filesystem of an image".to_owned(),
                why: "needs a cache: set cache: path: in repos.yaml".to_owned(),
            })
    }

    /// Makes a root filesystem from layers that are all there, or from that of another image and the layers on top. It
    /// becomes an entry of the cache, unless the cache is passed over: then it lasts as long as it is open.
    fn make(
        &self,
        cache: &Cache,
        blobs: &dyn BlobDir,
        image: &Image,
        options: Options,
        context: &Context,
    ) -> Result<File> {
        let (temp, is_kept) = match (cache.temp(), self.temporary()) {
            (Ok(temp), _) => (temp, true),
            (Err(Error::Denied { .. }), Some(folder)) => {
                let temp = TempFile::new_in(folder);
                (temp.map_err(Error::io("create a file in", folder))?, false)
            }
            (Err(error), _) => return Err(error),
        };
        let mut ingest = Ingest::new(blobs, options, Some(temp))?;
        let diff_ids = image.diff_ids();
        if let Some(base) = cache.base(&diff_ids, &context.progress) {
            ingest.begin_on(base, &diff_ids, context)?;
        }
        let rootfs = ingest.finish(image, context)?.ok_or_else(|| {
            Error::invalid("root filesystem", "was not made although it was asked for")
        })?;
        let path = rootfs.file.path();
        let file = rootfs.file.reopen().map_err(Error::io("open", &path))?;
        if is_kept && let Err(error) = cache.publish_rootfs(rootfs, image.id()) {
            let why = format!("the squashfs image was not kept: {error}");
            context.progress.warn(why);
        }
        Ok(file)
    }
}

/// The entry `key` of the cache. One that was cut off goes: it is made anew.
fn whole(cache: &Cache, key: &CacheKey, context: &Context) -> Result<Option<File>> {
    let file = cache.open(key, &context.progress)?;
    if file.as_ref().is_none_or(squashfs::is_whole) {
        return Ok(file);
    }
    let path = cache.entry_path(key);
    let why = format!("{} is cut off, and made anew", path.display());
    context.progress.warn(why);
    cache.remove(key)?;
    Ok(None)
}

/// The layers of a layout, read in place.
#[derive(Debug)]
struct LayoutBlobs(HashMap<Digest, (File, u64)>);

impl LayoutBlobs {
    fn new(layout: &dyn Layout, image: &Image) -> Result<Self> {
        let file = |layer: &Layer| match layout.layer_file(layer) {
            Some(file) => Ok((layer.digest, (file, layer.size))),
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

    fn open(&self, digest: Digest) -> Result<File> {
        let (file, _) = self
            .0
            .get(&digest)
            .ok_or_else(|| Error::NotFound(format!("layer {digest}")))?;
        file.try_clone()
            .and_then(|mut file| file.rewind().map(|()| file))
            .map_err(Error::io("open", format!("layer {digest}")))
    }

    fn temp(&self) -> Result<TempFile> {
        Err(read_only())
    }

    fn publish(&self, _: TempFile, _: Digest, _: u64) -> Result<()> {
        Err(read_only())
    }

    fn known_layer(&self, _: DiffId) -> Result<Option<Layer>> {
        Ok(None)
    }
}

fn read_only() -> Error {
    Error::invalid("an image that is only read", "cannot be written to")
}
