//! `templates.yaml`: what VMs are made of.
//!
//! The file is pcocc 0.7's: templates by name, each of which may inherit from another. Of its keys those that a docker VM
//! has a use for are read, `image`, and new ones beside it; every other key is passed over, so that a site's file stays
//! valid for both. A template of the user's hides one of the system's with the same name.

use std::collections::BTreeMap;
use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::size;
use crate::template::Written;
use crate::yaml::{self, At, ConfigError};

/// Name of the config file within a config directory.
pub const FILE: &str = "templates.yaml";

/// What a guest may reach besides its own network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
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
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Template {
    /// `image`: the guest image, `[REPO:]IMAGE[@REVISION]`.
    pub image: Option<Written>,
    /// `cpus`: number of CPUs.
    pub cpus: Option<u32>,
    /// `memory`: memory in bytes, written as `4G`.
    pub memory: Option<u64>,
    /// `disk`: size of the docker daemon's disk in bytes, written as `50G`.
    pub disk: Option<u64>,
    /// `console_log`: most bytes of the console that are kept, written as `16M`.
    pub console_log: Option<u64>,
    /// `reach`: what the guest may reach.
    pub reach: Option<Reach>,
    /// `snapshot`: whether starts may be shortened by a snapshot.
    pub snapshot: Option<bool>,
    /// `proxies`: `HTTP_PROXY` and the like, for the docker daemon.
    pub proxies: BTreeMap<String, String>,
    /// `registry_mirrors` of the docker daemon.
    pub registry_mirrors: Vec<String>,
    /// `ca_certificates`: files with certificates the docker daemon trusts.
    pub ca_certificates: Vec<Written>,
    /// `daemon_json`: a file laid over the docker daemon's settings.
    pub daemon_json: Option<Written>,
}

/// What VMs are made of: templates by name.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(rename = "templates.yaml")]
pub(crate) struct File(BTreeMap<String, Option<Entry>>);

/// A template.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
struct Entry {
    /// Name of the template that has the keys missing here.
    #[schemars(extend("x-default" = "none"))]
    inherits: Option<At<String>>,
    /// The guest image: `[REPO:]IMAGE[@REVISION]`.
    #[schemars(extend("x-default" = "`docker-vm`"))]
    image: Option<At<String>>,
    /// Number of CPUs, at least 1, when the allocation does not say.
    #[schemars(extend("x-default" = "2, or those the node has if fewer; 1 under Slurm"))]
    cpus: Option<At<u32>>,
    /// Memory, as `4G`, when the allocation does not say.
    #[schemars(extend("x-default" = "`2G`"))]
    memory: Option<At<String>>,
    /// Size of the docker daemon's disk, as `50G`.
    #[schemars(extend("x-default" = "`50G`; only what is used takes room"))]
    disk: Option<At<String>>,
    /// Most bytes of the VM's console that are kept, as `16M`: of a longer one, the last half at least.
    #[schemars(extend("x-default" = "`16M`"))]
    console_log: Option<At<String>>,
    /// What the guest may reach. `closed`: nothing; `public`: public addresses; `open`: whatever you can reach from the node.
    #[schemars(extend("x-default" = "`public`"))]
    reach: Option<Reach>,
    /// Whether starts may be shortened by a snapshot.
    #[schemars(extend("x-default" = "`true`"))]
    snapshot: Option<bool>,
    /// `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY` for the docker daemon; nothing for none. Their hosts can be reached, private or not.
    #[schemars(extend("x-default" = "`http_proxy`, `https_proxy` and `no_proxy` of your environment"))]
    proxies: BTreeMap<String, String>,
    /// URLs of registries that the docker daemon asks before Docker Hub. Their hosts can be reached, private or not.
    registry_mirrors: Vec<String>,
    /// Files with certificates that the docker daemon trusts, besides those of Debian and, for single registries, of `certs.d`.
    ca_certificates: Vec<At<String>>,
    /// A file laid over the docker daemon's settings, unless `--docker-daemon-json` names another.
    #[schemars(extend("x-default" = "none"))]
    daemon_json: Option<At<String>>,
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
            let file = yaml::read::<Option<File>>(&path)?.flatten();
            for (name, entry) in file.map(|file| file.0).unwrap_or_default() {
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
        let lineage = self.lineage(name)?;
        for (name, _) in &lineage {
            if let Some((entry, file)) = self.entries.get(*name) {
                template.inherit(name, entry, file)?;
            }
        }
        Ok((!lineage.is_empty()).then_some(template))
    }

    /// The template `name`, the one it inherits from, and so on, each with its file; empty when there is none.
    pub fn lineage(&self, name: &str) -> Result<Vec<(&str, &Path)>, ConfigError> {
        let mut lineage: Vec<(&str, &Path)> = Vec::new();
        let mut next = self.entries.get_key_value(name);
        while let Some((name, (entry, file))) = next {
            lineage.push((name, file));
            let Some(parent) = &entry.inherits else {
                break;
            };
            let wrong =
                |why: &str| parent.error(file, format!("template {name:?} inherits from {why}"));
            if lineage.iter().any(|(known, _)| *known == parent.value) {
                return Err(wrong("itself"));
            }
            next = self.entries.get_key_value(&parent.value);
            if next.is_none() {
                return Err(wrong(&format!("{:?}, which is not defined", parent.value)));
            }
        }
        Ok(lineage)
    }
}

impl Template {
    /// Takes from `entry`, which is `name` of `file`, what is not set yet.
    fn inherit(&mut self, name: &str, entry: &Entry, file: &Path) -> Result<(), ConfigError> {
        let bytes = |key: &str, text: &Option<At<String>>| {
            let parse = |text: &At<String>| {
                size::parse(&text.value).map_err(|why| {
                    let written = &text.value;
                    text.error(file, format!("template {name:?}: {key} {written:?}: {why}"))
                })
            };
            text.as_ref().map(parse).transpose()
        };
        let (memory, disk) = (bytes("memory", &entry.memory)?, bytes("disk", &entry.disk)?);
        let console_log = bytes("console_log", &entry.console_log)?;
        let cpus = entry.cpus.as_ref();
        if let Some(cpus) = cpus.filter(|cpus| cpus.value == 0) {
            return Err(cpus.error(file, format!("template {name:?}: cpus must be at least 1")));
        }
        let written = |text: &At<String>| Written::new(text.clone(), file);
        self.image = self
            .image
            .take()
            .or_else(|| entry.image.as_ref().map(written));
        self.cpus = self.cpus.or(cpus.map(|cpus| cpus.value));
        self.memory = self.memory.or(memory);
        self.disk = self.disk.or(disk);
        self.console_log = self.console_log.or(console_log);
        self.reach = self.reach.or(entry.reach);
        self.snapshot = self.snapshot.or(entry.snapshot);
        self.daemon_json = self
            .daemon_json
            .take()
            .or_else(|| entry.daemon_json.as_ref().map(written));
        if self.proxies.is_empty() {
            self.proxies = entry.proxies.clone();
        }
        if self.registry_mirrors.is_empty() {
            self.registry_mirrors = entry.registry_mirrors.clone();
        }
        if self.ca_certificates.is_empty() {
            self.ca_certificates = entry.ca_certificates.iter().map(written).collect();
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
        let image = big.image.unwrap();
        assert_eq!(image.as_str(), "docker-vm");
        assert!(
            image.place().ends_with("system/templates.yaml:3:10"),
            "{}",
            image.place()
        );
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
            (
                "a: {inherits: a}",
                "templates.yaml:1:15: template \"a\" inherits from itself",
            ),
            ("a: {inherits: b}\nb: {inherits: a}", "inherits from itself"),
            ("a: {inherits: c}", "inherits from \"c\", which is not"),
            (
                "a:\n  memory: lots",
                "templates.yaml:2:11: template \"a\": memory \"lots\"",
            ),
            (
                "a: {cpus: 0}",
                "templates.yaml:1:11: template \"a\": cpus must be",
            ),
        ] {
            let error = load(text, "").unwrap().get("a").unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
            assert!(error.contains("templates.yaml"), "{error}");
        }
        assert!(load("a: {reach: far}", "").is_err());
        assert!(load("[1]", "").is_err());
    }
}
