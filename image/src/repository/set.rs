//! The configured repositories in order of priority, and the lookup of images by URI.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use pcocc_core::repos::ReposConfig;

use crate::error::{Error, Result};
use crate::reference::{ImageUri, legal_name};
use crate::repository::cache::Cache;
use crate::repository::folder::Repository;
use crate::repository::images::RepositoryImage;
use crate::repository::meta::Meta;

/// The repositories a user works with, highest priority first, and their cache.
#[derive(Debug)]
pub struct Repositories {
    repositories: Vec<Arc<Repository>>,
    cache: Option<Arc<Cache>>,
    temporary: Option<PathBuf>,
    owner: String,
}

impl Repositories {
    /// The repositories of `config`; `owner` is the login name for new images.
    ///
    /// Nothing is read or made before it is used, so that a broken repository does not disturb the others.
    pub fn new(config: &ReposConfig, owner: impl Into<String>) -> Self {
        Self {
            repositories: config
                .repos
                .iter()
                .map(|repo| {
                    let repository = Repository::new(&repo.name, &repo.path);
                    Arc::new(repository.with_layers(repo.layer_compression))
                })
                .collect(),
            cache: config.cache.as_ref().map(|dir| Arc::new(Cache::new(dir))),
            temporary: None,
            owner: owner.into(),
        }
    }

    /// The same repositories, with the folder `temporary` for root filesystems that no cache can keep.
    #[must_use]
    pub fn with_temporary(mut self, temporary: impl Into<PathBuf>) -> Self {
        self.temporary = Some(temporary.into());
        self
    }

    /// Folder for root filesystems that no cache can keep.
    pub(crate) fn temporary(&self) -> Option<&Path> {
        self.temporary.as_deref()
    }

    /// All repositories in order of priority.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Repository>> {
        self.repositories.iter()
    }

    /// Login name of the user.
    pub fn owner(&self) -> &str {
        &self.owner
    }

    /// The first repository, for images whose URI names none.
    pub fn default_repository(&self) -> Result<&Arc<Repository>> {
        self.repositories.first().ok_or_else(|| {
            Error::invalid(
                "repos.yaml",
                "defines no repository; add one under `repos:`",
            )
        })
    }

    /// The repository `name`.
    pub fn get(&self, name: &str) -> Result<&Arc<Repository>> {
        self.repositories
            .iter()
            .find(|repository| repository.name() == name)
            .ok_or_else(|| {
                let names: Vec<&str> = self.repositories.iter().map(|r| r.name()).collect();
                Error::NotFound(format!(
                    "repository {name:?} (configured: {})",
                    names.join(", ")
                ))
            })
    }

    /// The repository a new image named by `uri` goes to.
    pub fn destination(&self, uri: &ImageUri) -> Result<&Arc<Repository>> {
        match &uri.repo {
            Some(repo) => self.get(repo).map_err(|_| self.unknown_repo(repo, uri)),
            None => self.default_repository(),
        }
    }

    /// The image `uri`, from its repository or from the first repository that has the image.
    pub fn find(&self, uri: &ImageUri) -> Result<(&Arc<Repository>, Meta)> {
        if uri.repo.is_some() {
            let repository = self.destination(uri)?;
            return Ok((repository, repository.meta(&uri.name, uri.revision)?));
        }
        let mut unusable = None;
        for repository in &self.repositories {
            match repository.meta(&uri.name, uri.revision) {
                Ok(meta) => return Ok((repository, meta)),
                Err(Error::NotFound(_)) => {}
                Err(error) => {
                    tracing::warn!(repository = repository.name(), %error, "repository passed over");
                    unusable.get_or_insert(error);
                }
            }
        }
        Err(unusable.unwrap_or_else(|| Error::NotFound(format!("image {uri}"))))
    }

    /// The container image `uri` names, as a source of transfers.
    pub fn image(&self, uri: &ImageUri) -> Result<RepositoryImage> {
        let (repository, meta) = self.find(uri)?;
        Ok(RepositoryImage::new(Arc::clone(repository), meta))
    }

    /// The cache, when one is configured.
    pub fn cache(&self) -> Option<&Arc<Cache>> {
        self.cache.as_ref()
    }

    /// The error for an unknown repository `repo`, with other ways to name the image.
    fn unknown_repo(&self, repo: &str, uri: &ImageUri) -> Error {
        let names: Vec<&str> = self.repositories.iter().map(|r| r.name()).collect();
        Error::invalid(
            format!("image name \"{uri}\""),
            format!(
                "names the repository {repo:?}, which is not configured (there are: {}); \":\" only separates a repository from an image, so for a new image {:?} would be a legal name",
                names.join(", "),
                legal_name(&uri.to_string())
            ),
        )
    }
}
