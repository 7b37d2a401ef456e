//! `templates.yaml`: what VMs are made of.
//!
//! The file is pcocc 0.7's: templates by name, each of which may inherit from another. Of its keys those that a docker VM
//! has a use for are read, `image`, and new ones beside it; every other key is passed over, so that a site's file stays
//! valid for both. A template of the user's hides one of the system's with the same name.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use crate::size;
use crate::yaml::{self, ConfigError};

/// Name of the config file within a config directory.
pub const FILE: &str = "templates.yaml";

/// What a guest may reach besides its own network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reach {
    /// Nothing.
    Closed,
    /// Public addresses only.
    Public,
    /// Whatever the user can reach from the node.
    Open,
}

/// What a docker VM is made of; what is not set is left to the allocation, or to pcocc.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Template {
    /// `image`: the guest image, `[REPO:]IMAGE[@REVISION]`.
    pub image: Option<String>,
    /// `cpus`: number of CPUs.
    pub cpus: Option<u32>,
    /// `memory`: memory in bytes, written as `4G`.
    pub memory: Option<u64>,
    /// `disk`: size of the docker daemon's disk in bytes, written as `50G`.
    pub disk: Option<u64>,
    /// `reach`: what the guest may reach.
    pub reach: Option<Reach>,
    /// `snapshot`: whether starts may be shortened by a snapshot.
    pub snapshot: Option<bool>,
    /// `proxies`: `HTTP_PROXY` and the like, for the docker daemon.
    pub proxies: BTreeMap<String, String>,
    /// `registry_mirrors` of the docker daemon.
    pub registry_mirrors: Vec<String>,
    /// `ca_certificates`: files with certificates the docker daemon trusts.
    pub ca_certificates: Vec<String>,
    /// `daemon_json`: a file laid over the docker daemon's settings.
    pub daemon_json: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Entry {
    inherits: Option<String>,
    image: Option<String>,
    cpus: Option<u32>,
    memory: Option<String>,
    disk: Option<String>,
    reach: Option<Reach>,
    snapshot: Option<bool>,
    proxies: BTreeMap<String, String>,
    registry_mirrors: Vec<String>,
    ca_certificates: Vec<String>,
    daemon_json: Option<String>,
}

/// All templates.
#[derive(Clone, Debug, Default)]
pub struct Templates {
    entries: BTreeMap<String, (Entry, std::path::PathBuf)>,
}

impl Templates {
    /// Reads `templates.yaml` of the user's and of the system's config directory; either may be missing.
    pub fn load(user_dir: &Path, system_dir: &Path) -> Result<Self, ConfigError> {
        let mut entries = BTreeMap::new();
        for dir in [system_dir, user_dir] {
            let path = dir.join(FILE);
            let file = yaml::read::<Option<BTreeMap<String, Option<Entry>>>>(&path)?;
            for (name, entry) in file.flatten().unwrap_or_default() {
                entries.insert(name, (entry.unwrap_or_default(), path.clone()));
            }
        }
        Ok(Self { entries })
    }

    /// The names of all templates, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// The template `name`, with what it inherits; `None` when there is none.
    pub fn get(&self, name: &str) -> Result<Option<Template>, ConfigError> {
        let mut template = Template::default();
        let mut seen = Vec::new();
        let mut next = Some(name.to_owned());
        while let Some(name) = next {
            let Some((entry, file)) = self.entries.get(&name) else {
                return match seen.last().and_then(|child| self.entries.get(child)) {
                    None => Ok(None),
                    Some((_, file)) => Err(ConfigError::Content {
                        file: file.clone(),
                        message: format!(
                            "template {:?} inherits from {name:?}, which is not defined",
                            seen.last().map_or("", String::as_str)
                        ),
                    }),
                };
            };
            let content = |message: String| ConfigError::Content {
                file: file.clone(),
                message: format!("template {name:?}: {message}"),
            };
            if seen.contains(&name) {
                return Err(content("inherits from itself".to_owned()));
            }
            template.inherit(entry, &content)?;
            next = entry.inherits.clone();
            seen.push(name);
        }
        Ok(Some(template))
    }
}

impl Template {
    /// Takes from `entry` what is not set yet.
    fn inherit(
        &mut self,
        entry: &Entry,
        content: &dyn Fn(String) -> ConfigError,
    ) -> Result<(), ConfigError> {
        let bytes = |key: &str, text: &Option<String>| {
            let parse = |text: &String| {
                size::parse(text).map_err(|why| content(format!("{key} {text:?}: {why}")))
            };
            text.as_ref().map(parse).transpose()
        };
        let (memory, disk) = (bytes("memory", &entry.memory)?, bytes("disk", &entry.disk)?);
        if entry.cpus == Some(0) {
            return Err(content("cpus must be at least 1".to_owned()));
        }
        self.image = self.image.take().or_else(|| entry.image.clone());
        self.cpus = self.cpus.or(entry.cpus);
        self.memory = self.memory.or(memory);
        self.disk = self.disk.or(disk);
        self.reach = self.reach.or(entry.reach);
        self.snapshot = self.snapshot.or(entry.snapshot);
        self.daemon_json = self
            .daemon_json
            .take()
            .or_else(|| entry.daemon_json.clone());
        if self.proxies.is_empty() {
            self.proxies = entry.proxies.clone();
        }
        if self.registry_mirrors.is_empty() {
            self.registry_mirrors = entry.registry_mirrors.clone();
        }
        if self.ca_certificates.is_empty() {
            self.ca_certificates = entry.ca_certificates.clone();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn load(user: &str, system: &str) -> Result<Templates, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in [("user", user), ("system", system)] {
            fs::create_dir(dir.path().join(name)).unwrap();
            fs::write(dir.path().join(name).join(FILE), text).unwrap();
        }
        Templates::load(&dir.path().join("user"), &dir.path().join("system"))
    }

    const SITE: &str = "
docker-vm:
  image: docker-vm
  resource-set: cluster
  mount-points: {home: {path: /home}}
  memory: 4G
  reach: open
big:
  inherits: docker-vm
  cpus: 16
  memory: 32G
";

    #[test]
    fn a_template_has_what_it_inherits() {
        let templates = load("", SITE).unwrap();
        assert_eq!(templates.names().collect::<Vec<_>>(), ["big", "docker-vm"]);
        let big = templates.get("big").unwrap().unwrap();
        assert_eq!(big.image.as_deref(), Some("docker-vm"));
        assert_eq!(big.memory, Some(32 << 30));
        assert_eq!(big.cpus, Some(16));
        assert_eq!(big.reach, Some(Reach::Open));
        assert_eq!(templates.get("small").unwrap(), None);
        let own = load("docker-vm: {memory: 1G}", SITE).unwrap();
        assert_eq!(own.get("docker-vm").unwrap().unwrap().memory, Some(1 << 30));
    }

    #[test]
    fn mistakes_are_named() {
        for (text, part) in [
            ("a: {inherits: a}", "inherits from itself"),
            ("a: {inherits: b}\nb: {inherits: a}", "inherits from itself"),
            ("a: {inherits: c}", "inherits from \"c\", which is not"),
            ("a: {memory: lots}", "memory \"lots\""),
            ("a: {cpus: 0}", "cpus must be"),
        ] {
            let error = load(text, "").unwrap().get("a").unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
            assert!(error.contains("templates.yaml"), "{error}");
        }
        assert!(load("a: {reach: far}", "").is_err());
        assert!(load("[1]", "").is_err());
    }
}
