//! `pcocc image cache gc`: shrinks the cache.

use crate::app::Invocation;
use crate::errors::Outcome;

/// Remove cached root filesystems that no image needs
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

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
