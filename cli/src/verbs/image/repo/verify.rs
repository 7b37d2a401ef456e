//! `pcocc image repo verify`: reads a repository through.

use crate::app::Invocation;
use crate::errors::Outcome;

/// Check that every image of a repository is complete and intact
///
/// Reads all data and compares it with its digests; changes nothing.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  pcocc image repo verify user")]
pub(crate) struct Args {
    /// The repository
    repo: String,
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
