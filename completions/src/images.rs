//! Images in repositories: `[REPO:]IMAGE[@REVISION]`, told by the names of their files alone, and images of a
//! docker daemon.

use std::collections::BTreeMap;
use std::process::Command;

use pcocc_image::repository::Repositories;

use crate::{Candidate, Recent};

/// Gives the images, repositories or revisions that `typed` may become.
///
/// Without a `:`, images of all repositories, of which an earlier one hides those of the same name in later
/// ones, and the repositories themselves; with one, those of that repository; behind an `@`, revisions.
pub fn in_repositories(repositories: &Repositories, typed: &str) -> Vec<Candidate> {
    let (scope, wanted) = match typed.split_once(':') {
        Some((repo, wanted)) => (Some(repo), wanted),
        None => (None, typed),
    };
    // Few of many images are meant once something is typed.
    let stem = wanted.rsplit_once('@').map_or(wanted, |(image, _)| image);
    let mut images: BTreeMap<String, (String, Vec<u64>)> = BTreeMap::new();
    let mut candidates = Vec::new();
    for repository in repositories.iter() {
        let name = repository.name();
        if scope.is_none() && name.starts_with(wanted) {
            candidates.push(Candidate::new(format!("{name}:"), "repository"));
        }
        if scope.is_some_and(|scope| scope != name) {
            continue;
        }
        let names = repository.names().unwrap_or_default().into_iter();
        for (image, revision) in names.filter(|(image, _)| image.starts_with(stem)) {
            let (whose, revisions) = images
                .entry(image)
                .or_insert_with(|| (name.to_owned(), Vec::new()));
            if whose == name {
                revisions.push(revision);
            }
        }
    }
    let prefix = scope.map(|scope| format!("{scope}:")).unwrap_or_default();
    if let Some((image, revision)) = wanted.rsplit_once('@') {
        let found = images.get(image).map(|(_, revisions)| revisions.as_slice());
        return found
            .unwrap_or_default()
            .iter()
            .rev()
            .map(u64::to_string)
            .filter(|number| number.starts_with(revision))
            .map(|number| Candidate::plain(format!("{prefix}{image}@{number}")))
            .collect();
    }
    let several = |revisions: &[u64]| match revisions {
        [_] => String::new(),
        many => format!(", {} revisions", many.len()),
    };
    let images = images.iter().map(|(image, (repo, revisions))| {
        Candidate::new(
            format!("{prefix}{image}"),
            format!("in {repo}{}", several(revisions)),
        )
    });
    images.chain(candidates).collect()
}

/// Gives the repositories.
pub fn repositories(repositories: &Repositories, typed: &str) -> Vec<Candidate> {
    let names = repositories.iter().map(|repository| repository.name());
    names
        .filter(|name| name.starts_with(typed))
        .map(Candidate::plain)
        .collect()
}

/// Gives the images of a docker daemon; `query` is a command that prints their names, one a line, and
/// `daemon` is where it asks.
pub fn in_docker(recent: &Recent, daemon: &str, query: Command, typed: &str) -> Vec<Candidate> {
    let names = recent.lines(&format!("docker {daemon}"), query);
    // Docker leaves the tag out where it is the usual one, and so do people.
    let latest = names.iter().filter_map(|name| name.strip_suffix(":latest"));
    let full = names
        .iter()
        .map(String::as_str)
        .filter(|name| typed.contains(':') || !name.ends_with(":latest"));
    latest
        .chain(full)
        .filter(|name| name.starts_with(typed))
        .map(Candidate::plain)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use pcocc_core::repos::{LayerCompression, RepoDefinition, ReposConfig, Scope};
    use std::fs;
    use std::path::Path;

    fn repositories_in(folder: &Path, metas: &[(&str, &[&str])]) -> Repositories {
        let repos = metas
            .iter()
            .map(|(name, files)| {
                let path = folder.join(name);
                fs::create_dir_all(path.join("meta")).unwrap();
                fs::write(path.join(".config"), "version: 2\n").unwrap();
                for file in *files {
                    fs::write(path.join("meta").join(file), "").unwrap();
                }
                RepoDefinition {
                    name: (*name).to_owned(),
                    path,
                    layer_compression: LayerCompression::default(),
                    scope: Scope::User,
                }
            })
            .collect();
        Repositories::new(&ReposConfig { repos, cache: None }, "doe")
    }

    #[test]
    fn images_are_found_in_uri_form() {
        let folder = tempfile::tempdir().unwrap();
        let repositories = repositories_in(
            folder.path(),
            &[
                (
                    "user",
                    &[
                        "centos@0",
                        "centos-gcc@0",
                        "vm@1",
                        "vm@2",
                        "vm@10",
                        ".tmp@0",
                        "bad",
                    ],
                ),
                ("site", &["centos@0", "debian@0"]),
            ],
        );
        let values = |typed| -> Vec<String> {
            let found = in_repositories(&repositories, typed);
            found.into_iter().map(|candidate| candidate.value).collect()
        };
        assert_eq!(
            values(""),
            ["centos", "centos-gcc", "debian", "vm", "user:", "site:"]
        );
        assert_eq!(values("cen"), ["centos", "centos-gcc"]);
        assert_eq!(values("s"), ["site:"]);
        assert_eq!(values("site:"), ["site:centos", "site:debian"]);
        assert_eq!(values("user:v"), ["user:vm"]);
        assert_eq!(values("vm@"), ["vm@10", "vm@2", "vm@1"]);
        assert_eq!(values("user:vm@1"), ["user:vm@10", "user:vm@1"]);
        assert_eq!(values("nowhere:"), [] as [&str; 0]);
        assert_eq!(values("no:such@1"), [] as [&str; 0]);
        let help = |typed| in_repositories(&repositories, typed).remove(0).help;
        assert_eq!(help("deb").as_deref(), Some("in site"));
        assert_eq!(help("vm").as_deref(), Some("in user, 3 revisions"));
    }

    #[test]
    fn nothing_is_made_where_nothing_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("none");
        let repos = vec![RepoDefinition {
            name: "user".to_owned(),
            path: path.clone(),
            layer_compression: LayerCompression::default(),
            scope: Scope::Default,
        }];
        let repositories = Repositories::new(&ReposConfig { repos, cache: None }, "doe");
        assert_eq!(in_repositories(&repositories, "x"), []);
        assert!(!path.exists());
    }

    #[test]
    fn docker_names_come_as_people_type_them() {
        let folder = tempfile::tempdir().unwrap();
        let recent = Recent::new(folder.path());
        let query = || {
            let mut command = Command::new("printf");
            command.args(["%s\\n", "bb:latest", "debian:12", "ghcr.io/org/app:1"]);
            command
        };
        let values = |typed| -> Vec<String> {
            let found = in_docker(&recent, "unix:///x", query(), typed);
            found.into_iter().map(|candidate| candidate.value).collect()
        };
        assert_eq!(values(""), ["bb", "debian:12", "ghcr.io/org/app:1"]);
        assert_eq!(values("bb:"), ["bb:latest"]);
        assert_eq!(values("deb"), ["debian:12"]);
    }
}
