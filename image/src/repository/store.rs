//! A repository as the mounted tree sees it.
//!
//! Each container image has its plain name, which means the highest revision, and one name `NAME@REV` for each
//! revision.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

use crate::error::{Error, Result};
use crate::ingest::Options;
use crate::origin::Origin;
use crate::reference::{ImageUri, check_name};
use crate::repository::cache::CacheKey;
use crate::repository::folder::{META, Repository};
use crate::repository::images::RepositoryImage;
use crate::repository::meta::{Kind, Meta};
use crate::repository::set::Repositories;
use crate::repository::sink::{RepositorySink, repositories_allow};
use crate::store::{Entry, Store};
use crate::transfer::{Context, Layout, Sink};
use pcocc_layers::Digest;

/// Image ID and size in bytes.
type Described = (Option<Digest>, u64);

/// One repository of a set as a [`Store`].
#[derive(Debug)]
pub struct RepositoryStore {
    repositories: Arc<Repositories>,
    repository: Arc<Repository>,
    options: Options,
    /// IDs and sizes of images by their blobs; both never change.
    known: Mutex<HashMap<Vec<Digest>, Described>>,
}

impl RepositoryStore {
    /// The repository `name` of `repositories`; `options` say how images are received.
    pub fn new(repositories: Arc<Repositories>, name: &str, options: Options) -> Result<Self> {
        let repository = Arc::clone(repositories.get(name)?);
        Ok(Self {
            repositories,
            repository,
            options,
            known: Mutex::default(),
        })
    }

    /// The repository.
    pub fn repository(&self) -> &Arc<Repository> {
        &self.repository
    }

    fn meta(&self, name: &str) -> Result<Meta> {
        let uri = self.parse(name)?;
        self.repository.meta(&uri.name, uri.revision)
    }

    fn parse(&self, name: &str) -> Result<ImageUri> {
        let uri: ImageUri = name.parse()?;
        match uri.repo {
            None => Ok(uri),
            Some(_) => {
                check_name(name)?;
                Ok(uri)
            }
        }
    }

    fn describe(&self, meta: &Meta) -> Described {
        let mut known = self.known.lock();
        if let Some(found) = known.get(meta.data_blobs()) {
            return *found;
        }
        let described = match self.repository.image(meta) {
            Ok(image) => (
                Some(image.id()),
                image.blobs().iter().map(|(_, size)| size).sum(),
            ),
            Err(error) => {
                tracing::debug!(image = meta.name(), %error, "a damaged image is listed");
                (None, 0)
            }
        };
        known.insert(meta.data_blobs().to_vec(), described);
        described
    }
}

impl Store for RepositoryStore {
    fn list(&self) -> Result<Vec<Entry>> {
        let listing = self.repository.list()?;
        for bad in &listing.bad {
            tracing::warn!(path = %bad.path.display(), error = %bad.error, "metadata passed over");
        }
        let containers = |meta: &&Meta| meta.kind() == Kind::Container;
        let entry = |name: String, meta: &Meta| {
            let (id, size) = self.describe(meta);
            Entry {
                name,
                id,
                size,
                created: meta.created(),
            }
        };
        let latest = listing.latest().filter(containers);
        let revisions = listing.metas.iter().filter(containers);
        Ok(latest
            .map(|meta| entry(meta.name().to_owned(), meta))
            .chain(
                revisions.map(|meta| entry(format!("{}@{}", meta.name(), meta.revision()), meta)),
            )
            .collect())
    }

    fn version(&self) -> Result<u64> {
        // Another repository may be in its place.
        let found = match self.repository.reopen().and_then(|root| root.stat(META)) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            Err(error) => return Err(self.repository.below("look at", META)(error)),
        };
        let since = found.modified.duration_since(UNIX_EPOCH);
        let nanoseconds = since.map_or(0, |since| since.as_nanos() as u64);
        // Another directory in its place, or an entry within one tick of the clock, changes these.
        Ok(nanoseconds ^ found.identity.1.rotate_left(48) ^ found.size.rotate_left(24))
    }

    fn check_name(&self, name: &str) -> Result<()> {
        self.parse(name).map(drop)
    }

    fn check_new(&self, name: &str) -> Result<()> {
        let uri = self.parse(name)?;
        if uri.revision.is_some() {
            return Err(Error::invalid(
                format!("image {name}"),
                "cannot be a new name: leave the revision out",
            ));
        }
        repositories_allow(
            &self.repositories,
            &self.repository,
            &uri.name,
            &Context::silent(),
        )
    }

    fn layout(&self, name: &str, _: &Context) -> Result<Arc<dyn Layout>> {
        let meta = self.meta(name)?;
        meta.oci_index()?;
        Ok(Arc::new(RepositoryImage::new(
            Arc::clone(&self.repository),
            meta,
        )))
    }

    fn root_filesystem(&self, name: &str, context: &Context) -> Result<Arc<File>> {
        let meta = self.meta(name)?;
        self.repositories
            .root_filesystem(&self.repository, &meta, self.options, context)
            .map(Arc::new)
    }

    fn origin(&self, name: &str) -> Option<Origin> {
        self.meta(name).ok()?.origin()
    }

    fn sink(&self, name: &str, origin: Option<Origin>) -> Result<Box<dyn Sink>> {
        let uri = self.parse(name)?.within(self.repository.name());
        let sink = RepositorySink::new(Arc::clone(&self.repositories), &uri, self.options)?;
        Ok(Box::new(sink.with_origin(origin)))
    }

    fn rename(&self, from: &str, to: &str) -> Result<()> {
        let to = self.parse(to)?;
        if to.revision.is_some_and(|revision| revision != 0) {
            return Err(Error::invalid(
                format!("image {to}"),
                "cannot be a new name: leave the revision out",
            ));
        }
        let old = self.meta(from)?;
        let context = Context::silent();
        repositories_allow(&self.repositories, &self.repository, &to.name, &context)?;
        let new = old.renamed(&to.name, 0, self.repositories.owner(), SystemTime::now())?;
        if let Some(cache) = self.repositories.cache() {
            let key = |meta| CacheKey::of_meta(meta, self.repository.name());
            if let Err(error) = cache.link(&key(&old), &key(&new)) {
                tracing::debug!(%error, "the renamed image gets its root filesystem later");
            }
        }
        self.repository.publish(&new)?;
        self.repository
            .delete(old.name(), Some(old.revision()))
            .map(drop)
    }

    fn remove(&self, name: &str) -> Result<()> {
        let uri = self.parse(name)?;
        self.repositories
            .delete(&uri.within(self.repository.name()))
            .map(drop)
    }
}
