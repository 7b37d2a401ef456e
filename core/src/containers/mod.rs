//! `containers.yaml`: how images run, and what they are given.
//!
//! Schema of pcocc 0.7. The `runtime` section, which images and docker need, is [`Runtime`]; the sections
//! `containers` and `modules`, which belong to `pcocc run`, are [`Templates`]. Each passes over the
//! other's; so does [`Runtime`] over keys this version does not know: a site's file stays valid for both.

mod templates;

use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::yaml::{self, ConfigError};

pub use templates::{Namespace, Settings, TemplateChoiceError, TemplateMount, Templates};

/// The `runtime` section of `containers.yaml`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub struct Runtime {
    /// Registry that takes the place of Docker Hub for references without a host.
    pub default_registry: Option<String>,
    /// Registries (`host` or `host:port`) that may be reached over HTTP or unverified TLS.
    pub insecure_registries: Vec<String>,
    /// Name of the VM template that runs the docker daemon.
    pub docker_template: Option<String>,
    /// Folders of the host that the docker daemon's VM sees.
    pub docker_mounts: Vec<DockerMount>,
    /// Folder of the docker command line, put in front of `PATH` in docker shells.
    pub docker_path: Option<String>,
    /// Files and folders created in every image for bind mounts (`/` at the end: a folder).
    pub image_mountpoints: Vec<String>,
}

/// A folder shared with the docker daemon's VM.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub struct DockerMount {
    /// Path on the host; may use path templates such as `%{env:HOME}`.
    pub source: String,
    /// Path in the VM; the same as on the host when missing.
    pub dest: Option<String>,
}

/// Name of the config file within a config directory.
pub const FILE: &str = "containers.yaml";

impl Runtime {
    /// Reads the system's file and the user's over it; files that do not exist are passed over.
    pub fn load(system: &Path, user: &Path) -> Result<Self, ConfigError> {
        let read = |file| Ok(Self::of(yaml::read(file)?.flatten()));
        Ok(read(system)?.overlaid(read(user)?))
    }

    /// Parses `text`, the content of the `containers.yaml` called `file`.
    pub fn parse(text: &str, file: &Path) -> Result<Self, ConfigError> {
        Ok(Self::of(yaml::parse(text, file)?))
    }

    /// An empty file, or an empty section, is all defaults.
    fn of(file: Option<File>) -> Self {
        file.and_then(|file| file.runtime).unwrap_or_default()
    }

    /// Lays a user's file over a system's: what the user's file sets wins, as in pcocc 0.7.
    pub fn overlaid(self, user: Self) -> Self {
        fn list<T>(system: Vec<T>, user: Vec<T>) -> Vec<T> {
            if user.is_empty() { system } else { user }
        }
        Self {
            default_registry: user.default_registry.or(self.default_registry),
            insecure_registries: list(self.insecure_registries, user.insecure_registries),
            docker_template: user.docker_template.or(self.docker_template),
            docker_mounts: list(self.docker_mounts, user.docker_mounts),
            docker_path: user.docker_path.or(self.docker_path),
            image_mountpoints: list(self.image_mountpoints, user.image_mountpoints),
        }
    }
}

/// Registries, the docker VM, and what containers get.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(rename = "containers.yaml")]
pub(crate) struct File {
    /// How images and the docker VM are reached.
    runtime: Option<Runtime>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Runtime, ConfigError> {
        Runtime::parse(text, Path::new("containers.yaml"))
    }

    const SITE: &str = "
runtime:
    docker_template: docker-vm
    docker_mounts:
         - source: /home
    image_driver: flat
    insecure_registries:
        - 'registry.mydomain.com:5000'
    default_registry: 'registry.mydomain.com:5000'
containers:
    default:
        mounts:
           home:
               source: \"%{env:HOME}\"
modules:
    nvidia:
        generator:
            - nvidia-container-list
";

    #[test]
    fn reads_the_runtime_section_among_others() {
        let runtime = parse(SITE).unwrap();
        assert_eq!(
            runtime.insecure_registries,
            ["registry.mydomain.com:5000".to_owned()]
        );
        assert_eq!(
            runtime.default_registry.as_deref(),
            Some("registry.mydomain.com:5000")
        );
        assert_eq!(runtime.docker_mounts[0].source, "/home");
    }

    #[test]
    fn empty_files_and_sections_are_defaults() {
        for text in ["", "# nothing\n", "runtime:\n", "containers: {}\n"] {
            assert_eq!(parse(text).unwrap(), Runtime::default(), "{text:?}");
        }
        assert!(parse("runtime: [1]").is_err());
        assert!(parse("runtime: {insecure_registries: 7}").is_err());
    }

    #[test]
    fn the_users_file_wins_key_by_key() {
        let system = parse(SITE).unwrap();
        let user = parse("runtime: {default_registry: other}").unwrap();
        let both = system.clone().overlaid(user);
        assert_eq!(both.default_registry.as_deref(), Some("other"));
        assert_eq!(both.insecure_registries, system.insecure_registries);
    }
}
