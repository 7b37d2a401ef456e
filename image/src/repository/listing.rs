//! Listing all images of a repository, ten thousand in a fraction of a second.

use std::io;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::thread;

use pcocc_core::beneath::{OpenFolder, Refusal};

use crate::error::{Error, Result};
use crate::repository::folder::{META, Repository, split_meta_name};
use crate::repository::meta::Meta;
use crate::repository::upgrade::is_old_folder;

/// Fewest metadata files that are worth another thread.
const PER_THREAD: usize = 256;

/// What a repository holds.
#[derive(Debug, Default)]
pub struct Listing {
    /// The metadata of all revisions, by name, then revision.
    pub metas: Vec<Meta>,
    /// Metadata files that could not be read; the other images are listed all the same.
    pub bad: Vec<BadMeta>,
}

/// An unusable metadata file.
#[derive(Debug)]
pub struct BadMeta {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub error: Error,
}

impl Listing {
    /// The highest revision of each image, by name.
    pub fn latest(&self) -> impl Iterator<Item = &Meta> {
        self.metas
            .chunk_by(|a, b| a.name() == b.name())
            .filter_map(<[Meta]>::last)
    }
}

impl Repository {
    /// Reads the metadata of all images.
    pub fn list(&self) -> Result<Listing> {
        let Some(version) = self.version_to_read()? else {
            return Ok(Listing::default());
        };
        let metas = &self.metas()?;
        let mut files = match version {
            2.. => self.meta_files()?,
            _ => self.hashed_meta_names()?,
        };
        // What an interrupted upgrade left; its content has been converted.
        files.retain(|file| !is_old_folder(file));
        let threads = thread::available_parallelism()
            .map_or(1, NonZero::get)
            .min(8)
            .min(files.len().div_ceil(PER_THREAD))
            .max(1);
        let share = files.len().div_ceil(threads).max(1);
        let mut listing = Listing::default();
        thread::scope(|scope| {
            let workers: Vec<_> = files
                .chunks(share)
                .map(|files| scope.spawn(move || self.read_metas(version, metas, files)))
                .collect();
            for worker in workers {
                // A panic in a worker is a bug: it continues in the caller.
                let part = worker
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                listing.metas.extend(part.metas);
                listing.bad.extend(part.bad);
            }
        });
        listing
            .metas
            .sort_by(|a, b| (a.name(), a.revision()).cmp(&(b.name(), b.revision())));
        listing.bad.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(listing)
    }

    /// Names and revisions of all images, by name, then revision, for completion. File names alone give the
    /// answer where possible: nothing is read, checked or made.
    pub fn names(&self) -> Result<Vec<(String, u64)>> {
        match self.existing_version()? {
            None => return Ok(Vec::new()),
            Some(2..) => {}
            Some(_) => {
                let metas = self.list()?.metas;
                let names = metas
                    .iter()
                    .map(|meta| (meta.name().to_owned(), meta.revision()));
                return Ok(names.collect());
            }
        }
        let files = self.meta_files()?;
        let mut names: Vec<(String, u64)> = files
            .iter()
            .filter_map(|file| split_meta_name(file))
            .map(|(name, revision)| (name.to_owned(), revision))
            .collect();
        names.sort_unstable();
        Ok(names)
    }

    fn read_metas(&self, version: u32, metas: &OpenFolder, files: &[String]) -> Listing {
        let mut part = Listing::default();
        for file in files {
            let path = || metas.path().join(file);
            match self.read_meta(version, metas, Path::new(file)) {
                Ok(meta) => {
                    let named = split_meta_name(file);
                    if version >= 2 && named != Some((meta.name(), meta.revision())) {
                        part.bad.push(BadMeta {
                            path: path(),
                            error: Error::invalid(
                                format!("metadata {}", path().display()),
                                format!("is of {}@{}", meta.name(), meta.revision()),
                            ),
                        });
                    } else {
                        part.metas.push(meta);
                    }
                }
                // Deleted since the directory was read.
                Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
                Err(error) => part.bad.push(BadMeta {
                    path: path(),
                    error,
                }),
            }
        }
        part
    }

    /// Names in `meta/` of the metadata files of a version 1 repository, `xx/<hash>`.
    pub(crate) fn hashed_meta_names(&self) -> Result<Vec<String>> {
        let metas = self.metas()?;
        let mut files = Vec::new();
        for folder in self.meta_files()? {
            match metas.folder(&folder).and_then(|folder| folder.names()) {
                Ok(names) => files.extend(
                    names
                        .iter()
                        .map(|name| format!("{folder}/{}", name.to_string_lossy())),
                ),
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::NotADirectory | io::ErrorKind::NotFound
                    ) => {}
                Err(error) if Refusal::of(&error).is_some() => {
                    tracing::warn!(folder, %error, "not a folder of metadata; left alone");
                }
                Err(error) => return Err(self.below("list", Path::new(META).join(folder))(error)),
            }
        }
        Ok(files)
    }
}
