//! `pcocc config schema`: the JSON schema of a configuration file.

use clap::builder::PossibleValuesParser;
use pcocc_core::schema;

use crate::errors::Outcome;
use crate::output;

/// Print the JSON schema of a configuration file
///
/// Editors use it to complete and check the file while you type.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  pcocc config schema repos.yaml > repos.schema.json\n  \
    echo '# yaml-language-server: $schema=repos.schema.json' >> repos.yaml"
)]
pub(crate) struct Args {
    /// Name of the configuration file
    #[arg(value_parser = PossibleValuesParser::new(schema::FILES))]
    file: String,
}

impl Args {
    /// Prints the schema.
    pub(crate) fn run(self) -> Outcome {
        output::json(&schema::schema(&self.file))
    }
}
