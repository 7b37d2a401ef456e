//! The effective settings, value by value, each with its origin.
//!
//! Data path: the same loaders as for every verb give the values → [`Positions`] of the user's and of the site's file
//! give file and line of each value; a value in neither file is a default.

mod sections;

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;

use crate::batch::{self, BatchConfig, BatchType};
use crate::containers::{self, Runtime};
use crate::repos::{self, ReposConfig, Scope};
use crate::template::{Variables, Written};
use crate::templates::{self, Templates};
use crate::yaml::{ConfigError, Positions};

/// One effective value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Name of the config file it belongs to.
    pub file: &'static str,
    /// Its key: `repos[0].path`.
    pub key: String,
    /// The value; path templates are expanded where pcocc expands them on reading.
    pub value: Value,
    /// Where the value came from.
    pub origin: Origin,
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A config file.
    File {
        /// The user's, or the site's.
        scope: Scope,
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
    },
    /// No file has the value.
    Default,
}

/// The user's and the site's file of one name.
struct Files {
    name: &'static str,
    /// The user's file first.
    found: Vec<(Scope, PathBuf, Positions)>,
}

impl Files {
    fn read(name: &'static str, user_dir: &Path, system_dir: &Path) -> Result<Self, ConfigError> {
        let mut found = Vec::new();
        for (scope, folder) in [(Scope::User, user_dir), (Scope::System, system_dir)] {
            let path = folder.join(name);
            if let Some(positions) = Positions::read(&path)? {
                found.push((scope, path, positions));
            }
        }
        Ok(Self { name, found })
    }

    /// The first file with a value at `path`, or at a parent of it.
    fn origin(&self, path: &[String], value: &Value) -> Origin {
        let mut path: Vec<&str> = path.iter().map(String::as_str).collect();
        // An empty list of one file leaves that of the other in force.
        if value.as_array().is_some_and(|items| !items.is_empty()) {
            path.push("0");
        }
        self.at(None, &path).unwrap_or(Origin::Default)
    }

    /// The place of `path` in the file of `only`, or in the first one that has it.
    fn at(&self, only: Option<Scope>, path: &[&str]) -> Option<Origin> {
        self.found
            .iter()
            .filter(|(scope, ..)| only.is_none_or(|only| only == *scope))
            .find_map(|(scope, file, positions)| {
                Some(Origin::File {
                    scope: *scope,
                    path: file.clone(),
                    line: positions.line(path)?,
                })
            })
    }

    /// The values of `node`, one by one.
    fn flatten(&self, node: Value, path: &mut Vec<String>, settings: &mut Vec<Setting>) {
        match node {
            Value::Object(entries) if !entries.is_empty() => {
                for (key, value) in entries {
                    path.push(key);
                    self.flatten(value, path, settings);
                    path.pop();
                }
            }
            Value::Array(items) if items.iter().any(Value::is_object) => {
                for (index, value) in items.into_iter().enumerate() {
                    path.push(index.to_string());
                    self.flatten(value, path, settings);
                    path.pop();
                }
            }
            // What is not there is not in force.
            Value::Null => {}
            value => settings.push(Setting {
                file: self.name,
                key: written(path),
                origin: self.origin(path, &value),
                value,
            }),
        }
    }

    fn all(&self, config: &impl Serialize) -> Result<Vec<Setting>, ConfigError> {
        let mut settings = Vec::new();
        self.flatten(self.json(config)?, &mut Vec::new(), &mut settings);
        Ok(settings)
    }

    fn json(&self, config: &impl Serialize) -> Result<Value, ConfigError> {
        serde_json::to_value(config).map_err(|error| ConfigError::Content {
            file: self.name.into(),
            message: format!("cannot be shown: {error}"),
        })
    }
}

/// `repos[0].path`.
fn written(path: &[String]) -> String {
    let mut text = String::new();
    for part in path {
        if part.bytes().all(|byte| byte.is_ascii_digit()) {
            text += &format!("[{part}]");
        } else if text.is_empty() {
            text += part;
        } else {
            text += &format!(".{part}");
        }
    }
    text
}

/// All effective settings of the config files in `user_dir` and `system_dir`, defaults included.
pub fn settings(
    user_dir: &Path,
    system_dir: &Path,
    variables: &Variables,
) -> Result<Vec<Setting>, ConfigError> {
    let mut settings = repositories(user_dir, system_dir, variables)?;
    let files = Files::read(containers::FILE, user_dir, system_dir)?;
    let (system, user) = (
        system_dir.join(containers::FILE),
        user_dir.join(containers::FILE),
    );
    #[derive(Serialize)]
    struct Containers {
        runtime: Runtime,
    }
    settings.extend(files.all(&Containers {
        runtime: Runtime::load(&system, &user)?,
    })?);
    settings.extend(sections::settings(&files, &system, &user)?);
    #[derive(Serialize)]
    struct Batch {
        r#type: Option<BatchType>,
        docker_address: Option<Written>,
        docker_resolve_address: bool,
        docker_ports: Option<String>,
        docker_scratch: Option<PathBuf>,
    }
    let batch = BatchConfig::load(user_dir, system_dir, variables)?;
    settings.extend(Files::read(batch::FILE, user_dir, system_dir)?.all(&Batch {
        r#type: batch.kind,
        docker_address: batch.docker_address,
        docker_resolve_address: batch.docker_resolve_address,
        docker_ports: batch.docker_ports.map(|ports| ports.to_string()),
        // A path whose variables only the node has is shown unexpanded.
        docker_scratch: batch.docker_scratch.map(|scratch| {
            scratch
                .path(variables)
                .unwrap_or_else(|_| scratch.as_str().into())
        }),
    })?);
    settings.extend(vm_templates(user_dir, system_dir)?);
    Ok(settings)
}

/// The templates of VMs; an inherited value has the origin of the parent.
fn vm_templates(user_dir: &Path, system_dir: &Path) -> Result<Vec<Setting>, ConfigError> {
    let templates = Templates::load(user_dir, system_dir)?;
    let files = Files::read(templates::FILE, user_dir, system_dir)?;
    let mut settings = Vec::new();
    for name in templates.names() {
        let Some(template) = templates.get(name)? else {
            continue;
        };
        let lineage = templates.lineage(name)?;
        let first = settings.len();
        settings.extend(files.all(&template)?);
        // Empty lists are not shown.
        settings.retain(|setting| !is_empty(&setting.value));
        for setting in settings.iter_mut().skip(first) {
            let key: Vec<&str> = setting.key.split('.').collect();
            let origin = lineage.iter().find_map(|(name, file)| {
                let (scope, path, positions) =
                    files.found.iter().find(|(_, path, _)| path == file)?;
                let mut whole = vec![*name];
                whole.extend(&key);
                Some(Origin::File {
                    scope: *scope,
                    path: path.clone(),
                    line: positions.line(&whole)?,
                })
            });
            setting.key = format!("{name}.{}", setting.key);
            setting.origin = origin.unwrap_or(Origin::Default);
        }
    }
    Ok(settings)
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.is_empty(),
        Value::Object(entries) => entries.is_empty(),
        _ => false,
    }
}

/// The repositories: lists of two files, one behind the other.
fn repositories(
    user_dir: &Path,
    system_dir: &Path,
    variables: &Variables,
) -> Result<Vec<Setting>, ConfigError> {
    let config = ReposConfig::load(user_dir, system_dir, variables)?;
    let files = Files::read(repos::FILE, user_dir, system_dir)?;
    let mut settings = Vec::new();
    let mut before = (None, 0);
    for (index, repo) in config.repos.iter().enumerate() {
        // The repository's number in its own file.
        before = match before {
            (Some(scope), number) if scope == repo.scope => (Some(scope), number + 1),
            _ => (Some(repo.scope), 0),
        };
        let number = before.1.to_string();
        let values = [
            ("name", Value::from(repo.name.as_str())),
            ("path", Value::from(&*repo.path.to_string_lossy())),
            (
                "layer_compression",
                serde_json::json!(repo.layer_compression),
            ),
        ];
        for (key, value) in values {
            settings.push(Setting {
                file: repos::FILE,
                key: format!("repos[{index}].{key}"),
                value,
                origin: files
                    .at(Some(repo.scope), &["repos", &number, key])
                    .unwrap_or(Origin::Default),
            });
        }
    }
    if let Some(cache) = &config.cache {
        settings.push(Setting {
            file: repos::FILE,
            key: "cache.path".to_owned(),
            value: Value::from(&*cache.to_string_lossy()),
            origin: files
                .at(None, &["cache", "path"])
                .unwrap_or(Origin::Default),
        });
    }
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn every_value_says_where_it_came_from() {
        let folder = tempfile::tempdir().unwrap();
        let (user, site) = (folder.path().join("user"), folder.path().join("site"));
        for dir in [&user, &site] {
            fs::create_dir(dir).unwrap();
        }
        fs::write(
            user.join("repos.yaml"),
            "repos:\n  - name: mine\n    path: '%{homedir}/m'\n",
        )
        .unwrap();
        fs::write(
            site.join("repos.yaml"),
            "cache: {path: /c}\nrepos:\n  - {name: a, path: /a}\n  - name: b\n    path: /b\n    layer_compression: none\n",
        )
        .unwrap();
        fs::write(
            user.join("containers.yaml"),
            "runtime:\n  default_registry: mine:5000\n  insecure_registries: []\n  docker_path:\ncontainers:\n  default:\n    env:\n      - C\n      - A\n    mounts: {m: {source: /mine}}\nmodules:\n  mpi:\n    ns: [pid]\n    inherits: [x]\n",
        )
        .unwrap();
        fs::write(
            site.join("containers.yaml"),
            "runtime:\n  default_registry: site:5000\n  docker_path: /d\n  insecure_registries:\n    - a\n    - b\n  docker_mounts:\n    - source: /home\n    - {source: /x, dest: /y}\ncontainers:\n  default:\n    env: [A, B]\n    mounts:\n      m: {source: /s, options: [ro]}\n      n: {source: /n}\n  c: {inherits: default}\n",
        )
        .unwrap();
        fs::write(
            site.join("batch.yaml"),
            "type: slurm\nsettings: {}\ndocker_ports: 60000-60999\n",
        )
        .unwrap();
        fs::write(user.join("batch.yaml"), "type: local\n").unwrap();
        fs::write(
            site.join("templates.yaml"),
            "docker-vm:\n  memory: 4G\n  image: site:docker-vm\n  proxies: {HTTP_PROXY: 'http://p:1'}\n",
        )
        .unwrap();
        fs::write(
            user.join("templates.yaml"),
            "big:\n  inherits: docker-vm\n  memory: 32G\n",
        )
        .unwrap();
        let variables = Variables {
            homedir: "/home/doe".into(),
            user: "doe".into(),
            env: Default::default(),
        };
        let text: String = settings(&user, &site, &variables)
            .unwrap()
            .into_iter()
            .map(|setting| {
                let origin = match setting.origin {
                    Origin::Default => "default".to_owned(),
                    Origin::File { scope, path, line } => {
                        let path = path.strip_prefix(folder.path()).unwrap().to_owned();
                        format!("{scope:?} {}:{line}", path.display())
                    }
                };
                format!(
                    "{} {} = {} ({origin})\n",
                    setting.file, setting.key, setting.value
                )
            })
            .collect();
        insta::assert_snapshot!(text, @r#"
        repos.yaml repos[0].name = "mine" (User user/repos.yaml:2)
        repos.yaml repos[0].path = "/home/doe/m" (User user/repos.yaml:3)
        repos.yaml repos[0].layer_compression = "keep" (default)
        repos.yaml repos[1].name = "a" (System site/repos.yaml:3)
        repos.yaml repos[1].path = "/a" (System site/repos.yaml:3)
        repos.yaml repos[1].layer_compression = "keep" (default)
        repos.yaml repos[2].name = "b" (System site/repos.yaml:4)
        repos.yaml repos[2].path = "/b" (System site/repos.yaml:5)
        repos.yaml repos[2].layer_compression = "none" (System site/repos.yaml:6)
        repos.yaml cache.path = "/c" (System site/repos.yaml:1)
        containers.yaml runtime.default_registry = "mine:5000" (User user/containers.yaml:2)
        containers.yaml runtime.insecure_registries = ["a","b"] (System site/containers.yaml:5)
        containers.yaml runtime.docker_mounts[0].source = "/home" (System site/containers.yaml:8)
        containers.yaml runtime.docker_mounts[1].source = "/x" (System site/containers.yaml:9)
        containers.yaml runtime.docker_mounts[1].dest = "/y" (System site/containers.yaml:9)
        containers.yaml runtime.docker_path = "/d" (System site/containers.yaml:3)
        containers.yaml runtime.image_mountpoints = [] (default)
        containers.yaml containers.c.inherits = "default" (System site/containers.yaml:16)
        containers.yaml containers.default.mounts.m.source = "/mine" (User user/containers.yaml:10)
        containers.yaml containers.default.mounts.n.source = "/n" (System site/containers.yaml:15)
        containers.yaml containers.default.env[0] = "B" (System site/containers.yaml:12)
        containers.yaml containers.default.env[1] = "C" (User user/containers.yaml:8)
        containers.yaml containers.default.env[2] = "A" (User user/containers.yaml:9)
        containers.yaml modules.mpi.inherits[0] = "x" (User user/containers.yaml:14)
        containers.yaml modules.mpi.ns[0] = "pid" (User user/containers.yaml:13)
        batch.yaml type = "local" (User user/batch.yaml:1)
        batch.yaml docker_resolve_address = true (default)
        batch.yaml docker_ports = "60000-60999" (System site/batch.yaml:3)
        templates.yaml big.image = "site:docker-vm" (System site/templates.yaml:3)
        templates.yaml big.memory = 34359738368 (User user/templates.yaml:3)
        templates.yaml big.proxies.HTTP_PROXY = "http://p:1" (System site/templates.yaml:4)
        templates.yaml docker-vm.image = "site:docker-vm" (System site/templates.yaml:3)
        templates.yaml docker-vm.memory = 4294967296 (System site/templates.yaml:2)
        templates.yaml docker-vm.proxies.HTTP_PROXY = "http://p:1" (System site/templates.yaml:4)
        "#);
    }
}
