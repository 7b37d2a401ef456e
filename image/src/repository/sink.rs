//! Receiving an image into a repository, and its root filesystem into the cache.
//!
//! Phases: the name is checked, and whether the repository can be written → layers become temporary files,
//! flushed and verified; the root filesystem is written on the way, unless the cache has one for the same image
//! ID, and begins with that of another image if both have their lowest layers in common → manifest and config → all files become blobs → the cache entry → the metadata, which makes the name
//! appear. A failure before the last phase leaves the repository as it was. A killed process leaves temporary
//! files and unnamed blobs for garbage collection.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::{Mutex, MutexGuard};
use pcocc_core::beneath::{Found, TempFile};
use pcocc_core::progress::BlobKind;

use crate::error::{Error, Result};
use crate::ingest::{BlobDir, Ingest, Options, Rootfs};
use crate::meter;
use crate::oci::{Image, Layer};
use crate::origin::Origin;
use crate::reference::{ImageUri, check_name};
use crate::repository::cache::{Cache, CacheKey};
use crate::repository::folder::{Repository, TEMP};
use crate::repository::meta::Meta;
use crate::repository::set::Repositories;
use crate::transfer::{Context, Offer, Receiver, Sink};
use pcocc_layers::{DiffId, Digest};

/// Creates one container image in a repository.
#[derive(Debug)]
pub struct RepositorySink {
    repositories: Arc<Repositories>,
    name: String,
    options: Options,
    origin: Option<Origin>,
    blobs: RepositoryBlobs,
}

impl RepositorySink {
    /// A sink that creates the image `uri` at revision 0, in the repository of the URI or the default
    /// repository.
    pub fn new(repositories: Arc<Repositories>, uri: &ImageUri, options: Options) -> Result<Self> {
        check_name(&uri.name)?;
        if let Some(revision) = uri.revision
            && revision != 0
        {
            return Err(Error::invalid(
                format!("image {uri}"),
                "cannot be created: container images have revision 0 only; leave the revision out",
            ));
        }
        let repository = Arc::clone(repositories.destination(uri)?);
        Ok(Self {
            repositories,
            name: uri.name.clone(),
            options,
            origin: None,
            blobs: RepositoryBlobs::new(repository),
        })
    }

    /// Adds the image's origin to its metadata.
    #[must_use]
    pub fn with_origin(mut self, origin: Option<Origin>) -> Self {
        self.origin = origin;
        self
    }

    /// The repository the image goes to.
    pub fn repository(&self) -> &Arc<Repository> {
        &self.blobs.repository
    }
}

impl Sink for RepositorySink {
    fn open(&self, context: &Context) -> Result<Box<dyn Receiver + '_>> {
        let repository = &self.blobs.repository;
        repositories_allow(&self.repositories, repository, &self.name, context)?;
        Ok(Box::new(RepositoryReceiver {
            sink: self,
            ingest: None,
            cached: None,
        }))
    }
}

/// Fails with [`Error::Exists`] when the name is taken in `repository`, and with [`Error::Denied`] when the
/// repository cannot be written. Warns when another repository has the name.
pub(crate) fn repositories_allow(
    repositories: &Repositories,
    repository: &Repository,
    name: &str,
    context: &Context,
) -> Result<()> {
    repository.check_writable()?;
    repository.check_free(name)?;
    for other in repositories.iter() {
        // An unreadable repository is no reason to refuse: its next use reports the problem.
        if other.name() != repository.name()
            && other.revisions(name).is_ok_and(|found| !found.is_empty())
        {
            context.progress.warn(format!(
                "an image {name} also exists in repository {}; use REPO:IMAGE to say which one",
                other.name()
            ));
        }
    }
    Ok(())
}

struct RepositoryReceiver<'a> {
    sink: &'a RepositorySink,
    /// Made with the first layer: earlier, the image ID may show that no root filesystem is needed.
    ingest: Option<Ingest<'a>>,
    /// The cache key of the image ID, once the ID is known.
    cached: Option<CacheKey>,
}

impl<'a> RepositoryReceiver<'a> {
    fn repository(&self) -> &'a Repository {
        &self.sink.blobs.repository
    }

    fn cache(&self) -> Option<&'a Cache> {
        self.sink.repositories.cache().map(|cache| &**cache)
    }

    /// Notes the image ID. If the cache has its root filesystem, none is made.
    fn identify(&mut self, id: Digest) {
        let key = CacheKey::of_image(id);
        if self.cache().is_some_and(|cache| cache.contains(&key)) {
            self.cached = Some(key);
        }
    }

    fn ingest(&mut self, context: &Context) -> Result<&mut Ingest<'a>> {
        if self.ingest.is_none() {
            let rootfs = match self.cache() {
                Some(cache) if self.cached.is_none() => match cache.temp() {
                    Ok(temp) => Some(temp),
                    // The image does not need the cache.
                    Err(error) => {
                        context
                            .progress
                            .warn(format!("no squashfs image is made: {error}"));
                        None
                    }
                },
                _ => None,
            };
            let ingest = Ingest::new(&self.sink.blobs, self.sink.options, rootfs)?;
            return Ok(self.ingest.insert(ingest));
        }
        self.ingest
            .as_mut()
            .ok_or_else(|| Error::invalid("image", "cannot be received"))
    }

    /// Links a layer's blob from another repository of the user, without reading it: the other repository
    /// verified the blob when it was stored.
    fn adopt(&self, offer: &Offer<'_>, context: &Context) -> Result<Option<Layer>> {
        let (Some((digest, size)), Some(diff_id), Some(file)) =
            (offer.blob, offer.diff_id, &offer.file)
        else {
            return Ok(None);
        };
        let options = &self.sink.options;
        if options.recompress && offer.compression != options.compression {
            return Ok(None);
        }
        let layer = Layer {
            digest,
            size,
            compression: offer.compression,
            diff_id,
        };
        let offered = Found::of_file(file).map_err(Error::io("look at", "an offered layer"))?;
        for other in self.sink.repositories.iter() {
            if other.path() == self.repository().path() || !other.has_as_blob(digest, &offered) {
                continue;
            }
            if other.known_layers()?.get(&diff_id) == Some(&layer)
                && self.repository().link_blob(other, digest, size)?
            {
                meter::skipped(&context.progress, BlobKind::Layer, &digest.to_string());
                return Ok(Some(layer));
            }
        }
        Ok(None)
    }

    /// Puts the root filesystem into the cache under `key`, new or from the same image's entry.
    fn fill_cache(&self, rootfs: Option<Rootfs>, image: &Image, key: &CacheKey) -> Result<()> {
        let Some(cache) = self.cache() else {
            return Ok(());
        };
        // The user knows already that nothing was made.
        if rootfs.is_none() && self.cached.is_none() {
            return Ok(());
        }
        let by_id = CacheKey::of_image(image.id());
        if let Some(rootfs) = rootfs
            && !cache.contains(&by_id)
        {
            cache.publish_rootfs(rootfs, image.id())?;
        }
        cache.link(&by_id, key)?;
        Ok(())
    }
}

impl Receiver for RepositoryReceiver<'_> {
    fn recall(&mut self, id: Digest) -> Result<Option<Image>> {
        self.identify(id);
        self.repository().recall(id)
    }

    fn holds(&mut self, image: &Image) -> Result<bool> {
        self.identify(image.id());
        self.sink.blobs.holds(image)
    }

    fn expect(&mut self, image: &Image) -> Result<()> {
        self.identify(image.id());
        Ok(())
    }

    fn expect_layers(&mut self, lowest: &[DiffId], context: &Context) -> Result<()> {
        if self.cached.is_none()
            && let Some(cache) = self.cache()
            && let Some(base) = cache.base(lowest, &context.progress)
        {
            self.ingest(context)?.begin_on(base, lowest, context)?;
        }
        Ok(())
    }

    fn has_layer(&mut self, diff_id: DiffId) -> Result<bool> {
        Ok(self.sink.blobs.known_layer(diff_id)?.is_some())
    }

    fn layer(&mut self, offer: &Offer<'_>, context: &Context) -> Result<Layer> {
        if let Some(layer) = self.adopt(offer, context)? {
            return Ok(layer);
        }
        self.ingest(context)?.layer(offer, context)
    }

    fn commit(mut self: Box<Self>, image: &Image, context: &Context) -> Result<()> {
        self.identify(image.id());
        self.ingest(context)?.documents(image, context)?;
        let rootfs = match self.ingest.take() {
            Some(ingest) => ingest.finish(image, context)?,
            None => None,
        };
        context.check()?;
        self.sink.blobs.publish_staged()?;
        let repository = self.repository();
        let meta = Meta::container(
            &self.sink.name,
            self.sink.repositories.owner(),
            SystemTime::now(),
            image,
            self.sink.origin.as_ref(),
        )?;
        let key = CacheKey::of_meta(&meta, repository.name());
        if let Err(error) = self.fill_cache(rootfs, image, &key) {
            context
                .progress
                .warn(format!("the squashfs image was not kept: {error}"));
        }
        context
            .progress
            .stage("Writing manifest to image destination");
        repository.publish(&meta).inspect_err(|_| {
            if let Some(cache) = self.cache()
                && let Err(error) = cache.remove(&key)
            {
                tracing::debug!(%error, "a cache entry without an image stays");
            }
        })
    }
}

impl Drop for RepositoryReceiver<'_> {
    fn drop(&mut self) {
        self.sink.blobs.staged().clear();
    }
}

/// A repository's blobs for [`Ingest`] and [`Receiver`], with the layers known so far.
///
/// Received blobs are temporary files until [`RepositoryBlobs::publish_staged`], so that a failed transfer
/// leaves nothing in the repository.
#[derive(Debug)]
pub(crate) struct RepositoryBlobs {
    repository: Arc<Repository>,
    layers: Mutex<Option<HashMap<DiffId, Layer>>>,
    staged: Mutex<HashMap<Digest, (TempFile, u64)>>,
}

impl RepositoryBlobs {
    pub(crate) fn new(repository: Arc<Repository>) -> Self {
        Self {
            repository,
            layers: Mutex::new(None),
            staged: Mutex::new(HashMap::new()),
        }
    }

    fn staged(&self) -> MutexGuard<'_, HashMap<Digest, (TempFile, u64)>> {
        self.staged.lock()
    }

    /// Publishes all staged blobs.
    fn publish_staged(&self) -> Result<()> {
        let staged = std::mem::take(&mut *self.staged());
        for (digest, (temp, _)) in staged {
            self.repository.publish_blob(temp, digest)?;
        }
        Ok(())
    }

    /// Whether every blob is there, and every layer's diff ID is known to be right.
    ///
    /// The second condition matters: an image can claim any diff ID for a blob, and an unread layer's claim
    /// would be believed for ever.
    fn holds(&self, image: &Image) -> Result<bool> {
        for layer in image.layers() {
            if self.known_layer(layer.diff_id)?.as_ref() != Some(layer) {
                return Ok(false);
            }
        }
        self.repository.holds(image)
    }
}

impl BlobDir for RepositoryBlobs {
    fn size_of(&self, digest: Digest) -> Result<Option<u64>> {
        if let Some((_, size)) = self.staged().get(&digest) {
            return Ok(Some(*size));
        }
        let size = self.repository.blob_size(digest)?;
        if size.is_some() {
            self.repository.refresh_blob(digest)?;
        }
        Ok(size)
    }

    fn open(&self, digest: Digest) -> Result<File> {
        if let Some((temp, _)) = self.staged().get(&digest) {
            return temp.reopen().map_err(Error::io("open", temp.path()));
        }
        self.repository.open_blob(digest)
    }

    fn temp(&self) -> Result<TempFile> {
        self.repository.temp_blob()
    }

    fn publish(&self, temp: TempFile, digest: Digest, size: u64) -> Result<()> {
        // Flushed while the next layers come; when it gets its place little is left to flush.
        temp.as_file()
            .sync_all()
            .map_err(|error| self.write_failed(&temp.path(), error))?;
        self.staged().insert(digest, (temp, size));
        Ok(())
    }

    fn known_layer(&self, diff_id: DiffId) -> Result<Option<Layer>> {
        let mut layers = self.layers.lock();
        let layers = match &mut *layers {
            Some(layers) => layers,
            none => none.insert(self.repository.known_layers()?),
        };
        match layers.get(&diff_id) {
            Some(layer) if self.repository.reuse_blob(layer.digest, layer.size)? => {
                Ok(Some(layer.clone()))
            }
            _ => Ok(None),
        }
    }

    fn write_failed(&self, path: &Path, error: std::io::Error) -> Error {
        match self.repository.write_error(TEMP, error) {
            Error::Io { action, source, .. } => Error::io(action, path)(source),
            other => other,
        }
    }
}
