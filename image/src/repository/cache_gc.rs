//! Cleaning the cache: entries without an image, temporary files of ended processes, and the excess over a
//! size. A file counts with its table of contents, and takes it along.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::error::Result;
use crate::repository::cache::{Cache, CacheEntry, CacheKey, DELETED};
use crate::repository::folder::TEMP;
use crate::repository::gc::GcOptions;
use crate::repository::set::Repositories;
use crate::repository::temp;

/// What was removed from the cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheCollected {
    /// Files removed; several names of one file count once.
    pub entries: u64,
    /// Their size in bytes.
    pub bytes: u64,
    /// Temporary files removed.
    pub temporary: u64,
}

impl Cache {
    /// Removes the entries that belong to no image of `repositories` and were not used within the grace time.
    /// Then removes the least recently used entries until at most `max_bytes` are left.
    ///
    /// Images in unreadable repositories count as deleted: their entries can be made again.
    pub fn collect(
        &self,
        repositories: &Repositories,
        options: GcOptions,
        max_bytes: Option<u64>,
    ) -> Result<CacheCollected> {
        let mut collected = CacheCollected {
            temporary: self.collect_temporary(options)?,
            ..Default::default()
        };
        let wanted = self.wanted(repositories);
        let entries = self.list()?;
        // A file is wanted when any of its names is wanted.
        let wanted: HashSet<u64> = entries
            .iter()
            .filter(|entry| wanted.contains(&entry.path))
            .map(|entry| entry.inode)
            .collect();
        let mut by_inode: HashMap<u64, (SystemTime, u64)> = HashMap::new();
        for entry in &entries {
            by_inode
                .entry(entry.inode)
                .or_insert((entry.used, entry.size));
        }
        let inodes: HashMap<&Path, u64> = entries
            .iter()
            .map(|entry| (entry.path.as_path(), entry.inode))
            .collect();
        for toc in self.tocs()? {
            let file = self.entry_path(&CacheKey::of_image(toc.image));
            let inode = inodes.get(file.as_path());
            if let Some((_, size)) = inode.and_then(|inode| by_inode.get_mut(inode)) {
                *size += toc.size;
            }
        }
        let files = by_inode.into_iter();
        let mut files: Vec<(SystemTime, u64, u64)> = files
            .map(|(inode, (used, size))| (used, inode, size))
            .collect();
        files.sort_unstable();
        let mut total: u64 = files.iter().map(|(_, _, size)| size).sum();
        for (used, inode, size) in files {
            let is_young = used.elapsed().unwrap_or_default() < options.grace;
            let is_too_much = max_bytes.is_some_and(|max| total > max);
            if !is_too_much && (is_young || wanted.contains(&inode)) {
                continue;
            }
            for entry in entries.iter().filter(|entry| entry.inode == inode) {
                self.remove_entry(entry)?;
            }
            total -= size;
            collected.entries += 1;
            collected.bytes += size;
        }
        self.collect_layers()?;
        Ok(collected)
    }

    /// Files that pcocc 0.7 and this version look for when one of the images is used.
    fn wanted(&self, repositories: &Repositories) -> HashSet<PathBuf> {
        let mut wanted = HashSet::new();
        for repository in repositories.iter() {
            let listing = match repository.list() {
                Ok(listing) => listing,
                Err(error) => {
                    tracing::warn!(%error, "images of a repository are not considered");
                    continue;
                }
            };
            for meta in &listing.metas {
                let name = repository.name();
                wanted.insert(self.entry_path(&CacheKey::of_meta(meta, name)));
                wanted.insert(self.entry_path(&CacheKey::of_bundle(meta, name)));
            }
        }
        wanted
    }

    fn collect_temporary(&self, options: GcOptions) -> Result<u64> {
        let mut removed = 0;
        for entry in self.list()? {
            // pcocc 0.7 gives this name to entries that it fills or deletes.
            let is_leftover = entry.path.to_string_lossy().ends_with(DELETED)
                && entry.used.elapsed().unwrap_or_default() >= options.grace;
            if is_leftover {
                self.remove_entry(&entry)?;
                removed += 1;
            }
        }
        for (name, found) in self.temporary()? {
            if temp::is_abandoned(&name, found.modified, options.grace) {
                self.remove_below(&Path::new(TEMP).join(name))?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    fn remove_entry(&self, entry: &CacheEntry) -> Result<()> {
        match entry.path.strip_prefix(self.path()) {
            Ok(name) => self.remove_below(name),
            Err(_) => Ok(()),
        }
    }
}
