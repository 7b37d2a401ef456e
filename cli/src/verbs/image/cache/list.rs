//! `pcocc image cache list`: the root filesystems in the cache.

use crate::app::Invocation;
use crate::errors::Outcome;
use crate::output::Format;

/// List cached root filesystems, least recently used first
#[derive(Debug, clap::Args)]
#[command(after_help = "JSON: a list of {repo, name, revision, type, size, used, key}.")]
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
