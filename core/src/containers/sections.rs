//! The sections `containers` and `modules` of one `containers.yaml`, as pcocc 0.7 has them, and how one lies over another.

use std::collections::BTreeMap;
use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::yaml::{self, At, ConfigError};

/// A namespace of the kernel's that a container can have for itself.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Namespace {
    /// Host and domain name.
    Uts,
    /// Process numbers.
    Pid,
    /// System V and POSIX message queues, semaphores and shared memory.
    Ipc,
    /// Mounts. Every container has its own.
    Mount,
    /// Network interfaces.
    Network,
    /// Users. Every container has its own.
    User,
}

/// A mount of a template.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TemplateMount {
    /// Path on the host, which may use path templates; nothing for a mount of another type.
    #[schemars(extend("x-default" = "none; a bind mount needs it"))]
    pub source: Option<String>,
    /// Path in the container; may use path templates.
    #[schemars(extend("x-default" = "the same as `source`"))]
    pub destination: Option<String>,
    /// Type of file system: `bind`, `tmpfs`, `proc` and so on.
    #[serde(rename = "type")]
    #[schemars(extend("x-default" = "`bind`"))]
    pub kind: Option<String>,
    /// Mount options, such as `ro`.
    pub options: Option<Vec<String>>,
    /// `FILE:LINE:COLUMN` of it, for messages.
    #[serde(skip)]
    pub place: Option<String>,
}

/// What a container, or a module, is given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Mounts with their names, the most particular last.
    pub mounts: Vec<(String, TemplateMount)>,
    /// Environment: `VAR=VALUE`, `VAR` or `re(REGEX)`.
    pub env: Vec<String>,
    /// What goes in front of variables like PATH: `VAR=VALUE`.
    pub path_prefix: Vec<String>,
    /// What goes behind them.
    pub path_suffix: Vec<String>,
    /// Namespaces besides mount and user; `None` when nothing says which.
    pub namespaces: Option<Vec<Namespace>>,
    /// Commands whose output adds to these settings.
    pub generators: Vec<String>,
}

impl Settings {
    /// Lays `more` over these settings.
    pub fn overlay(&mut self, more: Self) {
        for (name, mount) in more.mounts {
            self.mounts.retain(|(known, _)| *known != name);
            self.mounts.push((name, mount));
        }
        for (list, more) in [
            (&mut self.env, more.env),
            (&mut self.path_prefix, more.path_prefix),
            (&mut self.path_suffix, more.path_suffix),
            (&mut self.generators, more.generators),
        ] {
            for item in more {
                // A repeated item counts at its last position.
                list.retain(|known| *known != item);
                list.push(item);
            }
        }
        if let Some(more) = more.namespaces {
            let namespaces = self.namespaces.get_or_insert_default();
            namespaces.extend(more);
            namespaces.sort_unstable();
            namespaces.dedup();
        }
    }
}

/// One section as it is written.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Template {
    /// Sections of the same kind that this section extends, the closest first.
    #[serde(default)]
    pub(super) inherits: Inherits,
    /// Mounts by name. A mount replaces an inherited mount of the same name; the name has no other meaning.
    mounts: Option<BTreeMap<String, At<TemplateMount>>>,
    /// Commands that print `MOUNT`, `ENV`, `PATHPREFIX`, `PATHSUFFIX` and `MODULE` lines, which are added.
    generator: Option<Vec<String>>,
    /// Environment: `VAR=VALUE`, or `VAR` or `re(REGEX)` for what is set where the container is started.
    env: Option<Vec<String>>,
    /// What goes in front of variables such as `PATH`: `VAR=VALUE`.
    pathprefix: Option<Vec<String>>,
    /// What goes behind variables such as `PATH`: `VAR=VALUE`.
    pathsuffix: Option<Vec<String>>,
    /// Namespaces of the container's own, besides those of mounts and users.
    #[schemars(extend("x-default" = "`[pid, ipc]`"))]
    ns: Option<Vec<Namespace>>,
}

#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum Inherits {
    One(String),
    Many(Vec<String>),
}

impl Default for Inherits {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

impl Inherits {
    pub(super) fn names(&self) -> &[String] {
        match self {
            Self::One(name) => std::slice::from_ref(name),
            Self::Many(names) => names,
        }
    }
}

impl Template {
    pub(super) fn own(&self) -> Settings {
        Settings {
            mounts: self
                .mounts
                .iter()
                .flatten()
                .map(|(name, mount)| (name.clone(), mount.value.clone()))
                .collect(),
            env: self.env.clone().unwrap_or_default(),
            path_prefix: self.pathprefix.clone().unwrap_or_default(),
            path_suffix: self.pathsuffix.clone().unwrap_or_default(),
            namespaces: self.ns.clone(),
            generators: self.generator.clone().unwrap_or_default(),
        }
    }

    /// A user's section over the system's of the same name.
    pub(super) fn overlaid(self, user: Self) -> Self {
        let inherits = match user.inherits.names() {
            [] => self.inherits.clone(),
            _ => user.inherits.clone(),
        };
        let mut settings = self.own();
        settings.overlay(user.own());
        let mut mounts = self.mounts.unwrap_or_default();
        mounts.extend(user.mounts.unwrap_or_default());
        Self {
            inherits,
            mounts: Some(mounts),
            generator: Some(settings.generators),
            env: Some(settings.env),
            pathprefix: Some(settings.path_prefix),
            pathsuffix: Some(settings.path_suffix),
            ns: settings.namespaces,
        }
    }
}

/// The two sections of a file.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub(crate) struct SectionsFile {
    /// Settings of containers, by the name of their image; `default` holds for all.
    pub(super) containers: Option<BTreeMap<String, Option<Template>>>,
    /// Settings that `pcocc run -M MODULE` adds, by the name of the module.
    pub(super) modules: Option<BTreeMap<String, Option<Template>>>,
}

impl SectionsFile {
    /// Reads the sections of `file`; both are empty for a missing or an empty file.
    pub(crate) fn read(file: &Path) -> Result<Self, ConfigError> {
        Ok(Self::of(yaml::read(file)?.flatten(), file))
    }

    /// Parses `text`, the content of `file`.
    pub(super) fn parse(text: &str, file: &Path) -> Result<Self, ConfigError> {
        Ok(Self::of(yaml::parse(text, file)?, file))
    }

    fn of(content: Option<Self>, file: &Path) -> Self {
        let mut sections = content.unwrap_or_default();
        sections.remember(file);
        sections
    }

    /// Gives every mount its position in `file`.
    fn remember(&mut self, file: &Path) {
        let sections = [&mut self.containers, &mut self.modules];
        let templates = sections
            .into_iter()
            .flatten()
            .flat_map(BTreeMap::values_mut);
        for mounts in templates
            .flatten()
            .filter_map(|template| template.mounts.as_mut())
        {
            for mount in mounts.values_mut() {
                mount.value.place = Some(mount.place(file));
            }
        }
    }
}
