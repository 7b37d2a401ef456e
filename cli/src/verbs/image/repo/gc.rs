//! `pcocc image repo gc`: frees what no image needs.

use crate::app::Invocation;
use crate::errors::Outcome;

/// Free the space of data that no image needs
///
/// Safe while others use the repository: only data older than a grace time goes.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  pcocc image repo gc user")]
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
