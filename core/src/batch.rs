//! `batch.yaml`: where docker VMs run and how the user's machine reaches them.
//!
//! The file and its `type` are pcocc 0.7's; its `settings` are of etcd, which is not needed any more. They are passed
//! over here, as is every key this version does not know: a site's file stays valid for both. What the user's file
//! sets wins over the system's, key by key.

use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::template::{Variables, Written};
use crate::yaml::{self, At, ConfigError};

/// Name of the config file within a config directory.
pub const FILE: &str = "batch.yaml";

/// What allocates docker VMs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum BatchType {
    /// Slurm.
    Slurm,
    /// pcocc itself, on this machine.
    Local,
}

impl std::fmt::Display for Ports {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

/// TCP ports, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// The lowest.
    pub first: u16,
    /// The highest.
    pub last: u16,
}

/// The configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BatchConfig {
    /// `type`; without it, Slurm where its commands are installed.
    pub kind: Option<BatchType>,
    /// `docker_address`: name or address of the node for docker's clients; the node's own name when missing. May use
    /// path templates such as `%{env:SLURMD_NODENAME}-ib0`, expanded on the node.
    pub docker_address: Option<Written>,
    /// `docker_resolve_address`: whether clients are given the node's address rather than its name. On unless set.
    pub docker_resolve_address: bool,
    /// `docker_ports`: the ports docker's clients may connect to, as `60000-60999`; any when missing.
    pub docker_ports: Option<Ports>,
    /// `docker_scratch`: folder on a node-local disk for the VMs' disks, expanded on the node: some of its variables may
    /// be set only there.
    pub docker_scratch: Option<Written>,
}

/// Where docker VMs run, and how docker's clients reach them.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(rename = "batch.yaml")]
pub(crate) struct File {
    /// What allocates docker VMs: Slurm, or pcocc itself on this machine.
    #[schemars(extend("x-default" = "`slurm` where its commands are installed, else `local`"))]
    r#type: Option<BatchType>,
    /// Name or address of the node for docker's clients: a path template such as `%{env:SLURMD_NODENAME}-ib0`, expanded
    /// on the node.
    #[schemars(extend("x-default" = "the node's own name"))]
    docker_address: Option<At<String>>,
    /// Whether clients are given the node's address rather than its name.
    #[schemars(extend("x-default" = "`true`"))]
    docker_resolve_address: Option<bool>,
    /// The TCP ports docker's clients may connect to, as `60000-60999`.
    #[schemars(extend("x-default" = "any"))]
    docker_ports: Option<At<String>>,
    /// Folder on a node-local disk for the VMs' disks; a path template.
    #[schemars(extend("x-default" = "`TMPDIR`, else `/var/tmp`"))]
    docker_scratch: Option<At<String>>,
}

impl BatchConfig {
    /// Reads `batch.yaml` of the user's and of the system's config directory; either may be missing.
    pub fn load(
        user_dir: &Path,
        system_dir: &Path,
        variables: &Variables,
    ) -> Result<Self, ConfigError> {
        let mut config = Self {
            docker_resolve_address: true,
            ..Self::default()
        };
        for dir in [system_dir, user_dir] {
            let path = dir.join(FILE);
            let Some(file) = yaml::read::<Option<File>>(&path)?.flatten() else {
                continue;
            };
            if let Some(ports) = &file.docker_ports {
                config.docker_ports = Some(parse_ports(&ports.value).ok_or_else(|| {
                    let written = &ports.value;
                    ports.error(
                        &path,
                        format!("docker_ports {written:?} is no range of ports; write for example 60000-60999"),
                    )
                })?);
            }
            if let Some(scratch) = file.docker_scratch {
                let scratch = Written::new(scratch, &path);
                scratch.check_path(variables)?;
                config.docker_scratch = Some(scratch);
            }
            config.kind = file.r#type.or(config.kind);
            if let Some(address) = file.docker_address {
                config.docker_address = Some(Written::new(address, &path));
            }
            if let Some(resolve) = file.docker_resolve_address {
                config.docker_resolve_address = resolve;
            }
        }
        Ok(config)
    }
}

fn parse_ports(text: &str) -> Option<Ports> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let ports = Ports {
        first: first.trim().parse().ok()?,
        last: last.trim().parse().ok()?,
    };
    (ports.first > 0 && ports.first <= ports.last).then_some(ports)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn load(user: &str, system: &str) -> Result<BatchConfig, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in [("user", user), ("system", system)] {
            fs::create_dir(dir.path().join(name)).unwrap();
            if !text.is_empty() {
                fs::write(dir.path().join(name).join(FILE), text).unwrap();
            }
        }
        BatchConfig::load(
            &dir.path().join("user"),
            &dir.path().join("system"),
            &variables(),
        )
    }

    fn variables() -> Variables {
        Variables {
            user: "doe".into(),
            ..Variables::default()
        }
    }

    #[test]
    fn what_only_the_node_has_is_asked_for_there_and_has_its_place() {
        let text = "docker_scratch: '%{env:NODE_DISK}/x'\ndocker_address:  '%{env:NODE}-ib'\n";
        let mut variables = variables();
        let config = load(text, "").unwrap();
        let (scratch, address) = (
            config.docker_scratch.unwrap(),
            config.docker_address.unwrap(),
        );
        let error = address.text(&variables).unwrap_err().to_string();
        assert!(error.contains("batch.yaml:2:18: "), "{error}");
        assert!(error.contains("NODE, which is not set"), "{error}");
        let error = scratch.path(&variables).unwrap_err().to_string();
        assert!(error.contains("batch.yaml:1:17: "), "{error}");
        for (name, value) in [("NODE", "n1"), ("NODE_DISK", "/disk")] {
            variables.env.insert(name.to_owned(), value.to_owned());
        }
        assert_eq!(address.text(&variables).unwrap(), "n1-ib");
        assert_eq!(scratch.path(&variables).unwrap(), Path::new("/disk/x"));
    }

    #[test]
    fn without_files_all_is_found_out() {
        let config = load("", "").unwrap();
        assert_eq!(config.kind, None);
        assert!(config.docker_resolve_address);
        assert_eq!(load("# nothing\n", "").unwrap(), config);
    }

    #[test]
    fn the_users_file_wins_and_old_settings_are_passed_over() {
        let config = load(
            "type: local\n",
            "type: slurm\nsettings:\n  etcd-servers: [a]\ndocker_ports: 60000-60999\n\
             docker_scratch: /tmp/%{user}\ndocker_resolve_address: false\n",
        )
        .unwrap();
        assert_eq!(config.kind, Some(BatchType::Local));
        let ports = config.docker_ports.unwrap();
        assert_eq!((ports.first, ports.last), (60000, 60999));
        let scratch = config.docker_scratch.unwrap();
        assert_eq!(scratch.path(&variables()).unwrap(), Path::new("/tmp/doe"));
        assert!(!config.docker_resolve_address);
    }

    #[test]
    fn mistakes_are_named() {
        for (text, part) in [
            ("type: pbs\n", "batch.yaml:1:"),
            (
                "docker_ports: many\n",
                "batch.yaml:1:15: docker_ports \"many\"",
            ),
            ("docker_ports: 9-3\n", "docker_ports"),
            (
                "type: local\ndocker_scratch: tmp\n",
                "batch.yaml:2:17: path",
            ),
        ] {
            let error = load(text, "").unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
