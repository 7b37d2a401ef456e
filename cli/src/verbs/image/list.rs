//! `pcocc image list`: what the repositories hold.

use std::collections::HashMap;
use std::sync::Arc;

use pcocc_image::repository::{Meta, Repositories, Repository};
use pcocc_layers::Digest;
use regex::Regex;
use serde::Serialize;

use crate::errors::{Failure, Outcome, USAGE};
use crate::invocation::{Invocation, Run};
use crate::messages::warn;
use crate::output::{self, Format};

/// List images in repositories
///
/// Shows the highest revision of every image, repository by repository, in the order in which they are
/// searched. An image that an earlier repository hides is listed as well: name it REPO:IMAGE.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  pcocc image list\n  pcocc image list -R user '^centos'\n\n\
    JSON: a list of {name, kind, revision, repo, owner, date, size, description}."
)]
pub(crate) struct Args {
    /// Only images whose name matches this regular expression
    regex: Option<String>,
    /// Only this repository
    #[arg(short = 'R', long, value_name = "REPO")]
    repo: Option<String>,
    /// How to write the list
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
    format: Format,
}

/// One image, as `--format json` writes it. The keys are stable.
#[derive(Debug, Serialize)]
struct Row {
    name: String,
    kind: &'static str,
    revision: u64,
    repo: String,
    owner: String,
    date: Option<String>,
    size: u64,
    description: Option<String>,
    #[serde(skip)]
    timestamp: f64,
}

impl Run for Args {
    fn action(&self) -> String {
        "list images".to_owned()
    }

    fn run(self, invocation: &Invocation) -> Outcome {
        let pattern = match &self.regex {
            None => None,
            Some(text) => Some(Regex::new(text).map_err(|error| {
                // The library draws the mistake over several lines; the last line explains it.
                let text = error.to_string();
                let why = text
                    .lines()
                    .last()
                    .unwrap_or_default()
                    .trim_start_matches("error: ");
                Failure::because(format!("the regular expression is wrong: {why}")).code(USAGE)
            })?),
        };
        let repositories = invocation.host.repositories()?;
        let mut rows = Vec::new();
        let mut failed = None;
        for repository in chosen(repositories, self.repo.as_deref())? {
            let listing = match repository.list() {
                Ok(listing) => listing,
                Err(error) => {
                    // The other repositories are listed all the same, as in ls.
                    let action = format!("list repository {}", repository.name());
                    if let Some(earlier) = failed.replace(Failure::new(action, error)) {
                        earlier.report(None);
                    }
                    continue;
                }
            };
            for bad in &listing.bad {
                warn(&format!("passed over: {}", bad.error));
            }
            let mut sizes = HashMap::new();
            for meta in listing.latest() {
                if pattern
                    .as_ref()
                    .is_some_and(|pattern| !pattern.is_match(meta.name()))
                {
                    continue;
                }
                rows.push(Row {
                    name: meta.name().to_owned(),
                    kind: meta.kind().as_str(),
                    revision: meta.revision(),
                    repo: repository.name().to_owned(),
                    owner: meta.owner().to_owned(),
                    date: output::rfc3339(meta.timestamp()),
                    size: total_size(repository, meta, &mut sizes),
                    description: meta.description().map(str::to_owned),
                    timestamp: meta.timestamp(),
                });
            }
        }
        self.format.list(
            &["NAME", "TYPE", "REVISION", "REPO", "OWNER", "DATE", "SIZE"],
            &["REVISION", "SIZE"],
            rows,
            Row::cells,
        )?;
        failed.map_or(Ok(()), Err)
    }
}

impl Row {
    fn cells(self) -> Vec<String> {
        vec![
            self.name,
            self.kind.to_owned(),
            self.revision.to_string(),
            self.repo,
            self.owner,
            output::date(self.timestamp),
            output::size(self.size),
        ]
    }
}

/// The chosen repository, or all.
fn chosen<'a>(
    repositories: &'a Repositories,
    name: Option<&str>,
) -> pcocc_image::Result<Vec<&'a Arc<Repository>>> {
    match name {
        Some(name) => Ok(vec![repositories.get(name)?]),
        None => Ok(repositories.iter().collect()),
    }
}

/// Bytes of all blobs of an image, without missing ones.
pub(super) fn total_size(
    repository: &Repository,
    meta: &Meta,
    sizes: &mut HashMap<Digest, u64>,
) -> u64 {
    meta.data_blobs()
        .iter()
        .map(|digest| {
            *sizes.entry(*digest).or_insert_with(|| {
                repository
                    .blob_size(*digest)
                    .ok()
                    .flatten()
                    .unwrap_or_default()
            })
        })
        .sum()
}
