//! The source of a container's setting: a line of `containers.yaml`, or a line of a generator's output.
//!
//! The files are read again when a setting is wrong: nothing of them is kept.

use pcocc_core::containers::{ContainerTemplates, Settings, TemplateChoiceError};
use pcocc_run::generator::GeneratorError;
use pcocc_run::plan::PlanError;
use pcocc_run::variables::VariableError;

use crate::errors::Failure;

/// The sources of settings.
#[derive(Debug)]
pub(super) struct Sources<'a> {
    templates: &'a ContainerTemplates,
    /// Generators with their output, in order.
    outputs: Vec<(String, String)>,
}

impl<'a> Sources<'a> {
    /// Sources with these files.
    pub(super) fn new(templates: &'a ContainerTemplates) -> Self {
        Self {
            templates,
            outputs: Vec::new(),
        }
    }

    /// Notes a generator's output.
    pub(super) fn note(&mut self, generator: &str, output: &str) {
        self.outputs.push((generator.to_owned(), output.to_owned()));
    }

    /// The failure of a plan made with `settings`.
    pub(super) fn of_plan(&self, error: PlanError, settings: &Settings) -> Failure {
        let item = match &error {
            PlanError::Variable(VariableError::NoName(text)) => {
                text.to_str().unwrap_or_default().to_owned()
            }
            PlanError::Variable(VariableError::Unset { name }) => name.clone(),
            PlanError::Variable(VariableError::Expression { text, .. }) => text.clone(),
            // Mounts of the files know their line; the rest comes from the command line.
            _ => return Failure::from(error),
        };
        let lists = [&settings.env, &settings.path_prefix, &settings.path_suffix];
        let place = lists.iter().any(|list| list.contains(&item)).then(|| {
            self.templates
                .place_of(&item)
                .or_else(|| self.printed(&item))
        });
        match place.flatten() {
            Some(place) => Failure::from(error).part(place),
            None => Failure::from(error),
        }
    }

    /// The failure of a generator, or of its output.
    pub(super) fn of_generator(&self, error: GeneratorError) -> Failure {
        let place = match &error {
            GeneratorError::Failed { command, .. } => self.templates.place_of(command),
            GeneratorError::Module(TemplateChoiceError::UnknownModule { name, .. }) => {
                self.printed(name)
            }
            // The error has its words in quotes, as Rust writes them: the words of the output are quoted in the
            // same way.
            GeneratorError::Mount(error) => self.find(|words| format!("{words:?}") == error.mount),
            _ => None,
        };
        match place {
            Some(place) => Failure::from(error).part(place),
            None => Failure::from(error),
        }
    }

    fn printed(&self, item: &str) -> Option<String> {
        self.find(|words| words == item)
    }

    /// The last line with such words behind its keyword: the generator that printed it, and where the generator
    /// is configured.
    fn find(&self, wanted: impl Fn(&str) -> bool) -> Option<String> {
        self.outputs.iter().rev().find_map(|(generator, output)| {
            let mut lines = output.lines();
            let line = lines.position(|line| {
                line.split_once(' ')
                    .is_some_and(|(_, words)| wanted(words.trim()))
            })?;
            let place = self.templates.place_of(generator);
            let place = place.unwrap_or_else(|| "containers.yaml".to_owned());
            Some(format!(
                "{place}: line {} of what generator {generator:?} printed",
                line + 1
            ))
        })
    }
}
