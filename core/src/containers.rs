//! `containers.yaml`: how images run, and what they are given.
//!
//! Schema of pcocc 0.7. [`Runtime`] is the section `runtime`, for images and docker; [`ContainerTemplates`] are the sections
//! `containers` and `modules`, for `pcocc run`. Each ignores the other's sections. [`Runtime`] also ignores unknown keys, so
//! that a site's file is valid for pcocc 0.7 as well.

mod sections;
mod templates;

use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use crate::yaml::{self, At, ConfigError};

pub(crate) use sections::SectionsFile;
pub use sections::{Namespace, Settings, TemplateMount};
pub use templates::{ContainerTemplates, TemplateChoiceError};

/// The `runtime` section of `containers.yaml`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub struct Runtime {
    /// Registry for references without a host.
    #[serde(deserialize_with = "registry")]
    #[schemars(extend("x-default" = "Docker Hub"))]
    pub default_registry: Option<String>,
    /// Registries (`host` or `host:port`) that may be reached over HTTP or unverified TLS.
    #[serde(deserialize_with = "registries")]
    pub insecure_registries: Vec<String>,
    /// The template of `templates.yaml` that docker VMs are made of, unless `--template` names another.
    #[schemars(extend("x-default" = "none: the guest image `docker-vm`"))]
    pub docker_template: Option<String>,
    /// Folders of the host that docker VMs see besides your home.
    pub docker_mounts: Vec<At<DockerMount>>,
    /// Folder of the docker command, put in front of `PATH` in docker shells.
    #[schemars(extend("x-default" = "none: the `docker` of `PATH`"))]
    pub docker_path: Option<String>,
    /// Files and folders created in every image for bind mounts (`/` at the end: a folder).
    pub image_mountpoints: Vec<String>,
}

/// A folder shared with the docker daemon's VM.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub struct DockerMount {
    /// Path on the host; may use path templates such as `%{env:HOME}`.
    pub source: String,
    /// Path in the VM.
    #[schemars(extend("x-default" = "the same as `source`"))]
    pub dest: Option<String>,
    /// `FILE:LINE:COLUMN` of it, for messages.
    #[serde(skip)]
    pub place: String,
}

/// `FILE:LINE:COLUMN` of an effective key of the section `runtime`; for messages about its value.
pub fn runtime_place(system: &Path, user: &Path, key: &str) -> Option<String> {
    yaml::place(&[user.to_owned(), system.to_owned()], |positions| {
        positions.position(&["runtime", key])
    })
}

/// Name of the config file within a config directory.
pub const FILE: &str = "containers.yaml";

impl Runtime {
    /// Reads the system's file and the user's over it; files that do not exist are passed over.
    pub fn load(system: &Path, user: &Path) -> Result<Self, ConfigError> {
        let read = |file| Ok(Self::of(yaml::read(file)?.flatten(), file));
        Ok(read(system)?.overlaid(read(user)?))
    }

    /// Parses `text`, the content of the `containers.yaml` called `file`.
    pub fn parse(text: &str, file: &Path) -> Result<Self, ConfigError> {
        Ok(Self::of(yaml::parse(text, file)?, file))
    }

    /// An empty file, or an empty section, is all defaults.
    fn of(content: Option<RuntimeFile>, file: &Path) -> Self {
        let mut runtime = content
            .and_then(|content| content.runtime)
            .unwrap_or_default();
        for mount in &mut runtime.docker_mounts {
            mount.value.place = mount.place(file);
        }
        runtime
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

/// The name of a registry. A URL or a path would be looked up as if it were a host.
#[derive(Deserialize)]
#[serde(try_from = "String")]
struct Registry(String);

impl TryFrom<String> for Registry {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        let usual = |c: char| c.is_ascii_alphanumeric() || ".-_:[]".contains(c);
        match !name.is_empty() && name.chars().all(usual) {
            true => Ok(Self(name)),
            false => Err(format!("{name:?} is no registry; write HOST or HOST:PORT")),
        }
    }
}

fn registry<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(Option::deserialize(deserializer)?.map(|Registry(name)| name))
}

fn registries<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let names = Vec::deserialize(deserializer)?;
    Ok(names.into_iter().map(|Registry(name)| name).collect())
}

/// The section of a file that images and docker need.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub(crate) struct RuntimeFile {
    /// How images and the docker VM are reached.
    runtime: Option<Runtime>,
}

// Two readers, so that a mistake in `containers` does not keep images from being moved.
/// Registries, the docker VM, and what containers get.
#[derive(JsonSchema)]
#[schemars(rename = "containers.yaml")]
#[expect(
    dead_code,
    reason = "the parts are read one by one; only the schema is of the whole"
)]
pub(crate) struct File {
    #[serde(flatten)]
    runtime: RuntimeFile,
    #[serde(flatten)]
    sections: SectionsFile,
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
        assert_eq!(runtime.docker_mounts[0].place, "containers.yaml:5:12");
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
    fn a_registry_that_is_none_has_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(FILE);
        let none = folder.path().join("none");
        for (text, wanted) in [
            (
                "runtime:\n  default_registry: https://r.example.org/\n",
                ":2:21: \"https://r.example.org/\" is no registry",
            ),
            (
                "runtime: {insecure_registries: ['r:5000', 'a b']}",
                ":1:43: \"a b\" is no registry",
            ),
        ] {
            std::fs::write(&file, text).unwrap();
            let error = Runtime::load(&none, &file).unwrap_err().to_string();
            let wanted = format!("{}{wanted}", file.display());
            assert!(error.starts_with(&wanted), "{error}");
        }
        std::fs::write(&file, SITE).unwrap();
        assert_eq!(Runtime::load(&none, &file).unwrap(), {
            let mut site = parse(SITE).unwrap();
            site.docker_mounts[0].value.place = format!("{}:5:12", file.display());
            site
        });
        assert_eq!(Runtime::load(&none, &none).unwrap(), Runtime::default());
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
