//! `repos.yaml`: which image repositories there are, and where the cache is.
//!
//! Data path: the user's file, then the system's → their repositories in this order, the user's
//! first → [`ReposConfig`]. Without any file: one repository `user` below the home directory. The
//! schema is that of pcocc 0.7 (its man page `pcocc-repos.yaml(5)`), and `layer_compression`.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::template::{self, Variables};
use crate::yaml::{self, At, ConfigError};

/// Name of the config file within a config directory.
pub const FILE: &str = "repos.yaml";

/// Which file defined something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The user's own `repos.yaml`.
    User,
    /// The site's `repos.yaml`.
    System,
    /// Neither: the default that is built in.
    Default,
}

/// How a repository stores the layers it receives. Layers it has already stay as they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LayerCompression {
    /// Layers that come compressed, by gzip or zstd, are kept; those that docker gives plain become
    /// gzip.
    #[default]
    Keep,
    /// All become gzip, which every tool reads; those that are gzip already are kept.
    Gzip,
    /// All become plain tar.
    None,
}

/// One configured repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepoDefinition {
    /// Its name, as in the URI `NAME:IMAGE`.
    pub name: String,
    /// Its directory, absolute.
    pub path: PathBuf,
    /// How it stores layers.
    pub layer_compression: LayerCompression,
    /// The file that defined it.
    pub scope: Scope,
}

/// The repositories, highest priority first, and the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReposConfig {
    /// The repositories; the first is the default destination.
    pub repos: Vec<RepoDefinition>,
    /// Directory of the cache, when one is configured.
    pub cache: Option<PathBuf>,
}

/// The image repositories, and where root filesystems made from images are kept.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "repos.yaml")]
pub(crate) struct File {
    /// The repositories. Those of the user's file come first; the first of all is the one new images go to.
    repos: Vec<Repo>,
    /// The cache of root filesystems (squashfs). Only one of the two files may say where.
    cache: Option<Cache>,
}

/// An image repository.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Repo {
    /// Name of the repository, as in `NAME:IMAGE`: letters, digits, `_`, `.` and `-`.
    name: At<String>,
    /// Folder of the repository, made when missing; a path template.
    path: At<String>,
    /// How the repository stores received layers. `keep`: as they come, those of docker as gzip; `gzip`: all as gzip;
    /// `none`: all as plain tar.
    #[serde(default)]
    layer_compression: LayerCompression,
}

/// The cache of root filesystems.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Cache {
    /// Folder of the cache, made when missing; a path template. Without any `repos.yaml`: `~/.pcocc/cache`.
    path: At<String>,
}

impl ReposConfig {
    /// Reads `repos.yaml` of the user's and of the system's config directory; either may be missing.
    ///
    /// Fails when a file is malformed, when two repositories share a name, or when both files
    /// define a cache.
    pub fn load(
        user_dir: &Path,
        system_dir: &Path,
        variables: &Variables,
    ) -> Result<Self, ConfigError> {
        let mut config = Self {
            repos: Vec::new(),
            cache: None,
        };
        let mut cache_file: Option<PathBuf> = None;
        let mut found = false;
        for (dir, scope) in [(user_dir, Scope::User), (system_dir, Scope::System)] {
            let path = dir.join(FILE);
            let Some(file) = yaml::read::<File>(&path)? else {
                continue;
            };
            found = true;
            config.add(file, &path, scope, variables, &mut cache_file)?;
        }
        if found {
            Ok(config)
        } else {
            Ok(Self::embedded(variables))
        }
    }

    /// The configuration without any file: repository `user` at `~/.pcocc/images`.
    pub fn embedded(variables: &Variables) -> Self {
        let base = variables.homedir.join(".pcocc");
        Self {
            repos: vec![RepoDefinition {
                name: "user".to_owned(),
                path: base.join("images"),
                layer_compression: LayerCompression::default(),
                scope: Scope::Default,
            }],
            cache: Some(base.join("cache")),
        }
    }

    fn add(
        &mut self,
        file: File,
        path: &Path,
        scope: Scope,
        variables: &Variables,
        cache_file: &mut Option<PathBuf>,
    ) -> Result<(), ConfigError> {
        let expand = |template: &At<String>| {
            template::expand(&template.value, variables)
                .map_err(|error| template.error(path, error.to_string()))
        };
        for repo in file.repos {
            let name = &repo.name.value;
            // A name that cannot stand before the ":" of an image URI could never be used.
            if name.is_empty() || name.contains([':', '@', '/']) || name == ".." {
                return Err(repo.name.error(
                    path,
                    format!(
                        "repository name {name:?} cannot be used in REPO:IMAGE; choose one of letters, digits, \".\", \"_\" and \"-\""
                    ),
                ));
            }
            if let Some(other) = self.repos.iter().find(|other| other.name == *name) {
                return Err(repo.name.error(
                    path,
                    format!(
                        "repository {name:?} is defined twice (also at {}); rename one of them",
                        other.path.display()
                    ),
                ));
            }
            self.repos.push(RepoDefinition {
                path: expand(&repo.path)?,
                layer_compression: repo.layer_compression,
                name: repo.name.value,
                scope,
            });
        }
        if let Some(cache) = file.cache {
            if let Some(other) = cache_file {
                return Err(cache.path.error(
                    path,
                    format!(
                        "a cache is configured here and in {}; only one may be: remove one of them",
                        other.display()
                    ),
                ));
            }
            self.cache = Some(expand(&cache.path)?);
            *cache_file = Some(path.to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    struct Dirs(tempfile::TempDir);

    impl Dirs {
        fn new(user: Option<&str>, system: Option<&str>) -> Self {
            let dir = tempfile::tempdir().unwrap();
            for (name, text) in [("user", user), ("system", system)] {
                fs::create_dir(dir.path().join(name)).unwrap();
                if let Some(text) = text {
                    fs::write(dir.path().join(name).join(FILE), text).unwrap();
                }
            }
            Self(dir)
        }

        fn load(&self) -> Result<ReposConfig, ConfigError> {
            ReposConfig::load(
                &self.0.path().join("user"),
                &self.0.path().join("system"),
                &Variables {
                    homedir: "/home/doe".into(),
                    user: "doe".into(),
                    env: Default::default(),
                },
            )
        }
    }

    #[test]
    fn without_files_there_is_one_repository() {
        let config = Dirs::new(None, None).load().unwrap();
        assert_eq!(config.repos.len(), 1);
        assert_eq!(config.repos[0].name, "user");
        assert_eq!(config.repos[0].path, Path::new("/home/doe/.pcocc/images"));
        assert_eq!(config.cache.unwrap(), Path::new("/home/doe/.pcocc/cache"));
    }

    #[test]
    fn user_repositories_come_first() {
        let config = Dirs::new(
            Some("repos:\n - {name: mine, path: '%{homedir}/m'}\n"),
            Some("repos:\n - {name: site, path: /site}\ncache: {path: '/c/%{user}'}\n"),
        )
        .load()
        .unwrap();
        let names: Vec<_> = config.repos.iter().map(|r| r.name.as_str()).collect();
        assert_eq!(names, ["mine", "site"]);
        assert_eq!(config.repos[0].path, Path::new("/home/doe/m"));
        assert_eq!(config.repos[1].scope, Scope::System);
        assert_eq!(config.cache.unwrap(), Path::new("/c/doe"));
    }

    #[test]
    fn repositories_say_how_they_store_layers() {
        let config = Dirs::new(
            Some(
                "repos:\n - {name: a, path: /a}\n - {name: b, path: /b, layer_compression: gzip}\n",
            ),
            Some("repos: [{name: c, path: /c, layer_compression: none}]\n"),
        )
        .load()
        .unwrap();
        let found: Vec<_> = config.repos.iter().map(|r| r.layer_compression).collect();
        assert_eq!(
            found,
            [
                LayerCompression::Keep,
                LayerCompression::Gzip,
                LayerCompression::None
            ]
        );
    }

    #[test]
    fn refuses_what_pcocc_refuses() {
        let one = "repos: [{name: a, path: /a}]\ncache: {path: /c}\n";
        for (user, system, part) in [
            (
                one,
                one,
                "system/repos.yaml:1:16: repository \"a\" is defined twice",
            ),
            (
                one,
                "repos: []\ncache: {path: /d}\n",
                "system/repos.yaml:2:15: a cache",
            ),
            (one, "repos: [{name: b}]\n", "repos.yaml:1:"),
            (one, "repos: []\nrepo: []\n", "repos.yaml:2:1"),
            (one, "repos: [{name: b, path: /b, x: 1}]\n", "repos.yaml:1:"),
            (one, "cache: {path: /d}\n", "repos"),
            (
                one,
                "repos:\n - name: b\n   path: /b\n   layer_compression: zstd\n",
                "system/repos.yaml:4:",
            ),
            (
                one,
                "repos: [{name: 'a:b', path: /b}]\n",
                "system/repos.yaml:1:16: repository name \"a:b\"",
            ),
            (
                one,
                "repos: [{name: b, path: b}]\n",
                "system/repos.yaml:1:25: path \"b\" is relative",
            ),
            (
                one,
                "repos:\n  - name: b\n    path: '%{env:NOT_SET}/b'\n",
                "system/repos.yaml:3:11: path",
            ),
        ] {
            let error = Dirs::new(Some(user), Some(system)).load().unwrap_err();
            assert!(error.to_string().contains(part), "{part}: {error}");
        }
    }
}
