//! Generators: commands of the site whose output adds to a container's settings.
//!
//! A generator is given two paths, of the container's `config.json` (an OCI runtime configuration) and of
//! the image's root folder, and prints lines: `MOUNT SRC[:DST]`, `ENV VAR[=VALUE]`, `PATHPREFIX VAR=VALUE`,
//! `PATHSUFFIX VAR=VALUE`, `MODULE NAME`. Other lines are passed over, as in pcocc 0.7.

use std::collections::BTreeSet;

use pcocc_core::containers::{ContainerTemplates, Settings, TemplateChoiceError};
use pcocc_core::template::Variables;

use crate::mount::{Mount, MountError};

/// What a generator printed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// Mounts; devices work in them.
    pub mounts: Vec<String>,
    /// Variables.
    pub settings: Settings,
    /// Modules to apply.
    pub modules: Vec<String>,
}

/// Reads what a generator printed.
pub fn parse(text: &str) -> Output {
    let mut output = Output::default();
    for line in text.lines() {
        let Some((word, rest)) = line.split_once(' ') else {
            continue;
        };
        let rest = rest.trim();
        if rest.is_empty() {
            continue;
        }
        let list = match word {
            "MOUNT" => &mut output.mounts,
            "ENV" => &mut output.settings.env,
            "PATHPREFIX" => &mut output.settings.path_prefix,
            "PATHSUFFIX" => &mut output.settings.path_suffix,
            "MODULE" => &mut output.modules,
            _ => continue,
        };
        list.push(rest.to_owned());
    }
    output
}

/// Why generators failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GeneratorError {
    /// The command did not do its work.
    #[error("generator {command:?} of containers.yaml {why}")]
    Failed {
        /// The command as it is configured.
        command: String,
        /// What happened.
        why: String,
    },
    /// A module it named.
    #[error(transparent)]
    Module(#[from] TemplateChoiceError),
    /// A mount it named.
    #[error(transparent)]
    Mount(#[from] MountError),
}

/// Runs all generators of `settings` through `run`, and those of modules that generators name, each once; gives
/// their mounts.
pub fn apply(
    settings: &mut Settings,
    templates: &ContainerTemplates,
    variables: &Variables,
    run: &mut dyn FnMut(&str) -> Result<String, GeneratorError>,
) -> Result<Vec<Mount>, GeneratorError> {
    let mut pending = settings.generators.clone();
    let mut seen: BTreeSet<String> = BTreeSet::new();
    let mut modules: BTreeSet<String> = BTreeSet::new();
    let mut mounts = Vec::new();
    while !pending.is_empty() {
        let command = pending.remove(0);
        if !seen.insert(command.clone()) {
            continue;
        }
        let output = parse(&run(&command)?);
        for mount in output.mounts {
            mounts.push(Mount::of_generator(&mount, variables)?);
        }
        settings.overlay(output.settings);
        for module in output.modules {
            if modules.insert(module.clone()) {
                let module = templates.module(&module)?;
                pending.extend(module.generators.iter().cloned());
                settings.overlay(module);
            }
        }
    }
    Ok(mounts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn lines_of_a_generator() {
        let output = parse(
            "# words\nMOUNT /dev/nvidia0\nMOUNT /a:/b\nENV A=1\nENVY no\nENV\nMODULE  mpi \n\
             PATHPREFIX PATH=/x\nPATHSUFFIX PATH=/y",
        );
        assert_eq!(output.mounts, ["/dev/nvidia0", "/a:/b"]);
        assert_eq!(output.settings.env, ["A=1"]);
        assert_eq!(output.settings.path_prefix, ["PATH=/x"]);
        assert_eq!(output.settings.path_suffix, ["PATH=/y"]);
        assert_eq!(output.modules, ["mpi"]);
    }

    #[test]
    fn modules_of_generators_bring_their_own() {
        let text = "modules: {mpi: {generator: [two], env: [M=1]}, loop: {generator: [one]}}";
        let templates = ContainerTemplates::parse(text, Path::new("containers.yaml")).unwrap();
        let mut settings = Settings {
            generators: vec!["one".into()],
            ..Settings::default()
        };
        let mut ran = Vec::new();
        let mounts = apply(
            &mut settings,
            &templates,
            &Variables::default(),
            &mut |command| {
                ran.push(command.to_owned());
                Ok(match command {
                    "one" => "MODULE mpi\nMODULE loop\nENV ONE=1".to_owned(),
                    _ => "MOUNT /dev/null".to_owned(),
                })
            },
        )
        .unwrap();
        assert_eq!(ran, ["one", "two"]);
        assert_eq!(settings.env, ["ONE=1", "M=1"]);
        assert!(mounts[0].options.devices);
    }

    #[test]
    fn unknown_modules_and_failures_end_it() {
        let mut settings = Settings {
            generators: vec!["one".into()],
            ..Settings::default()
        };
        let templates = ContainerTemplates::default();
        let variables = Variables::default();
        let error = apply(&mut settings, &templates, &variables, &mut |_| {
            Ok("MODULE nope".into())
        });
        assert!(error.unwrap_err().to_string().contains("nope"));
    }
}
