//! The `containers` and `modules` sections of `containers.yaml`: what containers get without asking.
//!
//! Data path: [`ContainerTemplates::load`] reads the system's file, then the user's over it → [`ContainerTemplates::settings`] merges
//! `default`, the image's own section and each requested module, each after its parents → [`Settings`].
//!
//! The schema is pcocc 0.7's. Of two definitions of one mount the more particular one wins: the image's over that of
//! `default`, the child's over the parent's, the user's over the system's. (In pcocc 0.7 the first one read wins.)

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::sections::{SectionsFile, Settings, Template};
use crate::yaml::{self, ConfigError};

/// Section of `containers` that every container starts from.
const DEFAULT: &str = "default";
/// Keys of a section that are lists of words.
const LISTS: [&str; 4] = ["env", "pathprefix", "pathsuffix", "generator"];

/// Why the settings of a container cannot be resolved.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TemplateChoiceError {
    /// A module nobody defined.
    #[error("there is no module {name:?} in containers.yaml ({known})")]
    UnknownModule {
        /// Its name.
        name: String,
        /// The modules there are, in words.
        known: String,
    },
    /// A section inherits from a missing section.
    #[error("{place}: {child:?} inherits from {parent:?}, which is not there among the {section}")]
    UnknownParent {
        /// `FILE:LINE:COLUMN` of what it says.
        place: String,
        /// Which part of the file.
        section: &'static str,
        /// The section that inherits.
        child: String,
        /// The missing section.
        parent: String,
    },
    /// A section inherits from itself, directly or through others.
    #[error("{place}: {section} inherit from each other in a circle: {circle}")]
    Circle {
        /// `FILE:LINE:COLUMN` of what closes it.
        place: String,
        /// Which part of the file.
        section: &'static str,
        /// The way round.
        circle: String,
    },
}

type Sections = BTreeMap<String, Template>;

/// The two sections of a site's and a user's file.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ContainerTemplates {
    containers: Sections,
    modules: Sections,
    /// The files that were there, for messages.
    #[serde(skip)]
    files: Vec<PathBuf>,
}

impl ContainerTemplates {
    /// Reads the system's file and the user's over it; files that do not exist are passed over.
    pub fn load(system: &Path, user: &Path) -> Result<Self, ConfigError> {
        let mut templates = Self::default();
        for file in [system, user] {
            templates.overlay(SectionsFile::read(file)?);
            if file.exists() {
                templates.files.push(file.to_owned());
            }
        }
        Ok(templates)
    }

    /// Parses `text`, the content of the `containers.yaml` called `file`.
    pub fn parse(text: &str, file: &Path) -> Result<Self, ConfigError> {
        let mut templates = Self::default();
        templates.overlay(SectionsFile::parse(text, file)?);
        templates.files.push(file.to_owned());
        Ok(templates)
    }

    /// The files that were read.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    fn overlay(&mut self, file: SectionsFile) {
        for (sections, more) in [
            (&mut self.containers, file.containers),
            (&mut self.modules, file.modules),
        ] {
            for (name, user) in more.unwrap_or_default() {
                let system = sections.remove(&name).unwrap_or_default();
                sections.insert(name, system.overlaid(user.unwrap_or_default()));
            }
        }
    }

    /// The settings of an image's containers. `names` are the image's names, of which the first with a section counts;
    /// `defaults` says whether the section `default` applies.
    pub fn settings(
        &self,
        names: &[&str],
        modules: &[String],
        defaults: bool,
    ) -> Result<Settings, TemplateChoiceError> {
        let mut settings = Settings::default();
        let own = names
            .iter()
            .find(|name| self.containers.contains_key(**name));
        let default = Some(DEFAULT).filter(|_| defaults && self.containers.contains_key(DEFAULT));
        for name in default.into_iter().chain(own.copied()) {
            settings.overlay(self.inherited("containers", name)?);
        }
        for name in modules {
            settings.overlay(self.module(name)?);
        }
        Ok(settings)
    }

    /// The names of all modules, in order.
    pub fn module_names(&self) -> impl Iterator<Item = &str> {
        self.modules.keys().map(String::as_str)
    }

    /// What the module `name` adds.
    pub fn module(&self, name: &str) -> Result<Settings, TemplateChoiceError> {
        if !self.modules.contains_key(name) {
            let names: Vec<&str> = self.module_names().collect();
            return Err(TemplateChoiceError::UnknownModule {
                name: name.to_owned(),
                known: match names.as_slice() {
                    [] => "it defines none".to_owned(),
                    names => format!("there are: {}", names.join(", ")),
                },
            });
        }
        self.inherited("modules", name)
    }

    fn sections(&self, section: &str) -> &Sections {
        match section {
            "modules" => &self.modules,
            _ => &self.containers,
        }
    }

    /// A section over all it inherits from.
    fn inherited(
        &self,
        section: &'static str,
        name: &str,
    ) -> Result<Settings, TemplateChoiceError> {
        let mut settings = Settings::default();
        if let Some((name, _)) = self.sections(section).get_key_value(name) {
            self.add(section, name, &mut Vec::new(), &mut settings)?;
        }
        Ok(settings)
    }

    /// Lays a section over `settings`, after its parents; `way` are its children.
    fn add<'s>(
        &'s self,
        section: &'static str,
        name: &'s str,
        way: &mut Vec<&'s str>,
        settings: &mut Settings,
    ) -> Result<(), TemplateChoiceError> {
        let child = way.last().copied().unwrap_or(name);
        if way.contains(&name) {
            way.push(name);
            return Err(TemplateChoiceError::Circle {
                place: self.place(section, child),
                section,
                circle: way.join(" → "),
            });
        }
        let Some(template) = self.sections(section).get(name) else {
            return Err(TemplateChoiceError::UnknownParent {
                place: self.place(section, child),
                section,
                child: child.to_owned(),
                parent: name.to_owned(),
            });
        };
        way.push(name);
        // The first one named is the closest, as in pcocc 0.7.
        for parent in template.inherits.names().iter().rev() {
            self.add(section, parent, way, settings)?;
        }
        way.pop();
        settings.overlay(template.own());
        Ok(())
    }

    /// Position of the key `inherits` of the section `name`; reads the files again, so only for errors.
    fn place(&self, section: &str, name: &str) -> String {
        yaml::place(&self.strongest_first(), |positions| {
            positions.position(&[section, name, "inherits"])
        })
        .unwrap_or_else(|| super::FILE.to_owned())
    }

    /// `FILE:LINE:COLUMN` of an item of `env`, `pathprefix`, `pathsuffix` or `generator` in any section; for messages
    /// about that item.
    pub fn place_of(&self, item: &str) -> Option<String> {
        let sections = [("containers", &self.containers), ("modules", &self.modules)];
        yaml::place(&self.strongest_first(), |positions| {
            sections.iter().find_map(|(section, templates)| {
                templates.keys().find_map(|name| {
                    LISTS
                        .iter()
                        .find_map(|list| positions.item(&[section, name, list], item))
                })
            })
        })
    }

    /// The user's file, then the system's.
    fn strongest_first(&self) -> Vec<PathBuf> {
        self.files.iter().rev().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::containers::Namespace;

    fn parse(text: &str) -> ContainerTemplates {
        ContainerTemplates::parse(text, Path::new("containers.yaml")).unwrap()
    }

    const SITE: &str = "
containers:
    default:
        mounts:
            home: {source: '%{env:HOME}'}
            data: {source: /site/data, destination: /data}
        env: ['SITE=yes', 're(SLURM_.*)']
        ns: [pid]
    centos:
        inherits: with-scratch
        mounts:
            data: {source: /centos/data, destination: /data, options: [ro]}
        env: ['ME=centos']
    with-scratch:
        inherits: [far, near]
        mounts:
            scratch: {source: /scratch}
        pathprefix: ['PATH=/scratch/bin']
    near: {env: ['WHO=near']}
    far: {env: ['WHO=far'], ns: [ipc]}
modules:
    nvidia:
        generator: [nvidia-container-list]
    mpi:
        inherits: nvidia
        pathsuffix: ['LD_LIBRARY_PATH=/mpi/lib']
";

    #[test]
    fn the_particular_lies_over_the_general() {
        let found = parse(SITE)
            .settings(&["user:centos", "centos"], &["mpi".to_owned()], true)
            .unwrap();
        let source = |name: &str| {
            let mount = found.mounts.iter().find(|(known, _)| known == name);
            mount.and_then(|(_, mount)| mount.source.as_deref())
        };
        assert_eq!(source("home"), Some("%{env:HOME}"));
        assert_eq!(source("data"), Some("/centos/data"));
        assert_eq!(source("scratch"), Some("/scratch"));
        assert_eq!(
            found.env,
            [
                "SITE=yes",
                "re(SLURM_.*)",
                "WHO=near",
                "WHO=far",
                "ME=centos"
            ]
        );
        assert_eq!(found.namespaces, Some(vec![Namespace::Pid, Namespace::Ipc]));
        assert_eq!(found.generators, ["nvidia-container-list"]);
        assert_eq!(found.path_prefix, ["PATH=/scratch/bin"]);
        assert_eq!(found.path_suffix, ["LD_LIBRARY_PATH=/mpi/lib"]);
    }

    #[test]
    fn without_defaults_the_images_own_section_stays() {
        let templates = parse(SITE);
        let found = templates.settings(&["near"], &[], false).unwrap();
        assert_eq!(found.env, ["WHO=near"]);
        assert_eq!(found.namespaces, None);
        let none = templates.settings(&["other"], &[], false).unwrap();
        assert_eq!(none, Settings::default());
    }

    #[test]
    fn the_users_file_lies_over_the_systems() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let system = file("system", SITE);
        let user = file(
            "user",
            "containers: {default: {mounts: {data: {source: /mine}}}}\nmodules:\n",
        );
        let found = ContainerTemplates::load(&system, &user)
            .unwrap()
            .settings(&[], &[], true)
            .unwrap();
        let names: Vec<_> = found.mounts.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["data", "home"]);
        assert_eq!(found.mounts[0].1.source.as_deref(), Some("/mine"));
        let place = found.mounts[0].1.place.as_deref();
        assert_eq!(place, Some(&*format!("{}:1:39", user.display())));
        let templates = ContainerTemplates::load(&system, &user).unwrap();
        for (item, place) in [("SITE=yes", "7:15"), ("PATH=/scratch/bin", "18:22")] {
            let wanted = format!("{}:{place}", system.display());
            assert_eq!(templates.place_of(item), Some(wanted), "{item}");
        }
        assert_eq!(templates.place_of("/site/data"), None);
        let circle = file("circle", "containers:\n  a: {}\n  b:\n    inherits: [c]\n");
        let wrong = ContainerTemplates::load(&system, &circle)
            .unwrap()
            .settings(&["b"], &[], true)
            .unwrap_err();
        let start = format!("{}:4:5: \"b\" inherits from \"c\"", circle.display());
        assert!(wrong.to_string().starts_with(&start), "{wrong}");
        let nothing =
            ContainerTemplates::load(&folder.path().join("a"), &folder.path().join("b")).unwrap();
        assert_eq!(nothing.settings(&[], &[], true), Ok(Settings::default()));
        assert!(nothing.files().is_empty());
    }

    #[test]
    fn circles_and_strangers_are_named() {
        let text = "
containers:
    default: {inherits: a}
    a: {inherits: [b]}
    b: {inherits: c}
    c: {inherits: [a]}
    lost: {inherits: nobody}
modules:
    m: {inherits: m}
";
        let templates = parse(text);
        let words = |result: Result<Settings, TemplateChoiceError>| result.unwrap_err().to_string();
        assert!(words(templates.settings(&[], &[], true)).contains("a → b → c → a"));
        let lost = words(templates.settings(&["lost"], &[], false));
        assert!(
            lost.contains("\"lost\"") && lost.contains("\"nobody\""),
            "{lost}"
        );
        assert!(words(templates.module("m")).contains("m → m"));
        assert!(words(templates.module("x")).contains("there are: m"));
        // A circle is nobody's business who does not run into it.
        assert!(templates.settings(&["other"], &[], false).is_ok());
    }

    #[test]
    fn two_ways_to_the_same_parent_are_no_circle() {
        let text = "containers: {a: {inherits: [b, c]}, b: {inherits: d}, c: {inherits: d}, d: {env: [D=1]}}";
        let found = parse(text).settings(&["a"], &[], false).unwrap();
        assert_eq!(found.env, ["D=1"]);
    }

    #[test]
    fn what_is_misspelt_is_refused_with_its_place() {
        for text in [
            "containers:\n  default:\n    mount: {}\n",
            "containers:\n  default:\n    mounts:\n      a: {src: /a}\n",
            "containers:\n  default:\n    ns: [cgroup]\n",
            "modules:\n  a:\n    env: X=1\n",
        ] {
            let error = ContainerTemplates::parse(text, Path::new("containers.yaml")).unwrap_err();
            assert!(error.to_string().starts_with("containers.yaml:"), "{error}");
        }
    }
}
