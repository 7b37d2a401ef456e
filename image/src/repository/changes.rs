//! Changes of images without a transfer: adding and copying virtual machines' disks, deleting images.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::SystemTime;

use pcocc_core::beneath::TempFile;

use crate::error::{Error, Result};
use crate::reference::ImageUri;
use crate::repository::cache::CacheKey;
use crate::repository::folder::Repository;
use crate::repository::meta::{Kind, Meta};
use crate::repository::set::Repositories;
use crate::repository::sink::repositories_allow;
use crate::transfer::Context;
use pcocc_layers::Digest;
use pcocc_layers::digest::Hashing;

impl Repository {
    /// Fails with [`Error::Exists`] when there is an image `name`, of any revision.
    pub fn check_free(&self, name: &str) -> Result<()> {
        if self.revisions(name)?.is_empty() {
            Ok(())
        } else {
            Err(Error::Exists(format!("image {}:{name}", self.name())))
        }
    }
}

impl Repositories {
    /// Deletes the image `uri`, one revision or all, with its cache entries. Without a repository in `uri`, the
    /// default repository is meant. Returns the repository and the deleted revisions.
    ///
    /// Fails with [`Error::NotFound`] when there is no such image.
    pub fn delete(&self, uri: &ImageUri) -> Result<(&Arc<Repository>, Vec<u64>)> {
        let repository = self.destination(uri)?;
        let mut keys = Vec::new();
        for revision in repository.revisions(&uri.name)? {
            if uri.revision.is_none_or(|wanted| wanted == revision)
                && let Ok(meta) = repository.meta(&uri.name, Some(revision))
            {
                keys.push(CacheKey::of_meta(&meta, repository.name()));
                keys.push(CacheKey::of_bundle(&meta, repository.name()));
            }
        }
        let deleted = match repository.delete(&uri.name, uri.revision) {
            Err(Error::NotFound(what)) if uri.repo.is_none() => {
                return Err(Error::NotFound(match self.find(uri) {
                    Ok((other, _)) => format!(
                        "{what} (there is one in repository {}: name it as {}:{uri})",
                        other.name(),
                        other.name()
                    ),
                    Err(_) => what,
                }));
            }
            result => result?,
        };
        if let Some(cache) = self.cache() {
            for key in keys {
                if let Err(error) = cache.remove(&key) {
                    tracing::warn!(%error, "a cache entry of a deleted image stays");
                }
            }
        }
        Ok((repository, deleted))
    }

    /// Adds a virtual machine's disk at revision 0. `disk` is a finished qcow2 file without backing file, made
    /// by [`Repository::temp_blob`] of the repository that `uri` names.
    ///
    /// Fails with [`Error::Exists`] when the name is taken.
    pub fn add_virtual_machine(
        &self,
        uri: &ImageUri,
        disk: TempFile,
        context: &Context,
    ) -> Result<Meta> {
        let repository = self.destination(uri)?;
        repositories_allow(self, repository, &uri.name, context)?;
        let reader = disk.reopen().map_err(Error::io("open", disk.path()))?;
        let mut reader = Hashing::new(reader);
        pump(&mut reader, &mut io::sink(), context).map_err(Error::io("read", disk.path()))?;
        let (digest, _, _) = reader.finish();
        repository.publish_blob(disk, digest)?;
        let meta = Meta::virtual_machine(&uri.name, 0, self.owner(), SystemTime::now(), &[digest])?;
        repository.publish(&meta)?;
        Ok(meta)
    }

    /// Copies a virtual machine's disk, with its backing files, to the new name `to`.
    ///
    /// Container images go through [`crate::transfer::copy`] instead.
    pub fn copy_virtual_machine(
        &self,
        from: &ImageUri,
        to: &ImageUri,
        context: &Context,
    ) -> Result<Meta> {
        let (source, meta) = self.find(from)?;
        let target = self.destination(to)?;
        if meta.kind() != Kind::VirtualMachine {
            return Err(Error::invalid(
                format!("image {from}"),
                "is not a virtual machine's",
            ));
        }
        repositories_allow(self, target, &to.name, context)?;
        for digest in meta.data_blobs() {
            copy_blob(source, target, *digest, context)?;
        }
        let copy = meta.renamed(&to.name, 0, self.owner(), SystemTime::now())?;
        context.check()?;
        target.publish(&copy)?;
        Ok(copy)
    }
}

fn copy_blob(
    source: &Repository,
    target: &Repository,
    digest: Digest,
    context: &Context,
) -> Result<()> {
    let path = source.blob_path(digest);
    let size = source
        .blob_size(digest)?
        .ok_or_else(|| Error::NotFound(format!("blob {digest} in {}", source.title())))?;
    if target.reuse_blob(digest, size)? {
        return Ok(());
    }
    let mut reader = Hashing::new(source.open_blob(digest)?);
    let mut temp = target.temp_blob()?;
    pump(&mut reader, temp.as_file_mut(), context).map_err(Error::io("copy", &path))?;
    let (found, size, _) = reader.finish();
    if found != digest {
        return Err(Error::Corrupt {
            expected: digest,
            found: format!("{found} of {size} bytes, in {}", path.display()),
        });
    }
    target.publish_blob(temp, digest)
}

/// Copies until the end, or until the operation is cancelled.
fn pump(from: &mut dyn Read, to: &mut dyn Write, context: &Context) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 20];
    loop {
        context.check()?;
        match from.read(&mut buffer)? {
            0 => return Ok(()),
            n => to.write_all(buffer.get(..n).unwrap_or_default())?,
        }
    }
}
