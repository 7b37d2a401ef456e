//! `pcocc image cache list`: the root filesystems in the cache.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::time::SystemTime;

use pcocc_image::repository::{Cache, CacheEntry, CacheKey, Meta, Repositories};
use serde::Serialize;

use super::no_cache;
use crate::errors::Outcome;
use crate::invocation::{Invocation, Run};
use crate::messages::warn;
use crate::output::{self, Format};

/// List cached root filesystems, least recently used first
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  pcocc image cache list\n\nJSON: a list of {repo, name, revision, size, used, path}."
)]
pub(crate) struct Args {
    /// How to write the list
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
    format: Format,
}

/// One cached file, as `--format json` writes it. The keys are stable.
#[derive(Debug, Serialize)]
struct Row {
    /// Null, like name and revision, when no image needs the file.
    repo: Option<String>,
    name: Option<String>,
    revision: Option<u64>,
    size: u64,
    /// When it was last used.
    used: Option<String>,
    path: PathBuf,
    #[serde(skip)]
    timestamp: f64,
}

impl Run for Args {
    fn action(&self) -> String {
        "list the cache".to_owned()
    }

    fn run(self, invocation: &Invocation) -> Outcome {
        let repositories = invocation.host.repositories()?;
        let Some(cache) = repositories.cache() else {
            return Err(no_cache());
        };
        let owners = owners(repositories, cache);
        let mut entries = cache.list()?;
        entries.sort_by(|a, b| (a.used, &a.path).cmp(&(b.used, &b.path)));
        // A file has several names: those of its images, and one by image ID.
        let named: HashSet<u64> = entries
            .iter()
            .filter(|entry| owners.contains_key(&entry.path))
            .map(|entry| entry.inode)
            .collect();
        let mut orphans = HashSet::new();
        let rows: Vec<Row> = entries
            .iter()
            .filter(|entry| match owners.contains_key(&entry.path) {
                true => true,
                false => !named.contains(&entry.inode) && orphans.insert(entry.inode),
            })
            .map(|entry| Row::new(entry, owners.get(&entry.path)))
            .collect();
        self.format.list(
            &["REPO", "NAME", "REVISION", "SIZE", "LAST USED"],
            &["REVISION", "SIZE"],
            rows,
            Row::cells,
        )
    }
}

/// The images of readable repositories by the paths of their cache entries.
fn owners(repositories: &Repositories, cache: &Cache) -> HashMap<PathBuf, (String, Meta)> {
    let mut owners = HashMap::new();
    for repository in repositories.iter() {
        match repository.list() {
            Ok(listing) => owners.extend(listing.metas.into_iter().map(|meta| {
                let path = cache.entry_path(&CacheKey::of_meta(&meta, repository.name()));
                (path, (repository.name().to_owned(), meta))
            })),
            Err(error) => warn(&error.to_string()),
        }
    }
    owners
}

impl Row {
    fn new(entry: &CacheEntry, owner: Option<&(String, Meta)>) -> Self {
        let used = entry.used.duration_since(SystemTime::UNIX_EPOCH);
        let timestamp = used.map_or(0.0, |used| used.as_secs_f64());
        Self {
            repo: owner.map(|(repo, _)| repo.clone()),
            name: owner.map(|(_, meta)| meta.name().to_owned()),
            revision: owner.map(|(_, meta)| meta.revision()),
            size: entry.size,
            used: output::rfc3339(timestamp),
            path: entry.path.clone(),
            timestamp,
        }
    }

    fn cells(self) -> Vec<String> {
        vec![
            self.repo.unwrap_or_else(|| "-".to_owned()),
            self.name.unwrap_or_else(|| "(no image)".to_owned()),
            self.revision
                .map_or("-".to_owned(), |revision| revision.to_string()),
            output::size(self.size),
            output::date(self.timestamp),
        ]
    }
}
