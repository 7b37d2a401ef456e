//! Where a setting of a container comes from: a line of `containers.yaml`, or a line that a generator printed.
//!
//! The files are searched again when a setting turns out to be wrong: nothing of them is kept.

use pcocc_core::containers::{Settings, TemplateChoiceError, Templates};
use pcocc_run::generator::GeneratorError;
use pcocc_run::plan::PlanError;
use pcocc_run::variables::VariableError;

use crate::errors::Failure;

/// The sources of settings.
#[derive(Debug)]
pub(super) struct Sources<'a> {
    templates: &'a Templates,
    /// Generators and what they printed, in the order they ran.
    outputs: Vec<(String, String)>,
}

impl<'a> Sources<'a> {
    /// Sources with these files.
    pub(super) fn new(templates: &'a Templates) -> Self {
        Self {
            templates,
            outputs: Vec::new(),
        }
    }

    /// Notes what a generator printed.
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
            // Mounts of the files know their place, and the rest is of the command line.
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

    /// The failure of a generator, or of what it printed.
    pub(super) fn of_generator(&self, error: GeneratorError) -> Failure {
        let place = match &error {
            GeneratorError::Failed { command, .. } => self.templates.place_of(command),
            GeneratorError::Module(TemplateChoiceError::UnknownModule { name, .. }) => {
                self.printed(name)
            }
            // Its words are in quotes as Rust writes them, and so are those that are looked for.
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

    /// The last line with such words behind its keyword: which generator printed it, and where that is configured.
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
