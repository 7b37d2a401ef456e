//! `pcocc image repo list`: the configured repositories.

use crate::app::Invocation;
use crate::errors::Outcome;
use crate::output::Format;

/// List the configured repositories
///
/// In the order in which they are searched; the first is the default to write to.
#[derive(Debug, clap::Args)]
#[command(after_help = "JSON: a list of {name, path, writable, version, images}.")]
pub(crate) struct Args {
    /// How to write the list
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
    format: Format,
}

impl Args {
    /// Runs the verb.
    pub(crate) fn run(self, invocation: &Invocation) -> Outcome {
        let _ = invocation;
        Err(crate::errors::Failure::message(
            "do this",
            "this build lacks it",
        ))
    }
}
