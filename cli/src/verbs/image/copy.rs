//! `pcocc image copy`: between repositories, or under a second name.

use crate::app::Invocation;
use crate::errors::Outcome;

/// Copy an image to another name or repository
///
/// Data that both repositories have on one file system is shared, not copied.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  pcocc image copy global:centos7-cloud user:mycentos7")]
pub(crate) struct Args {
    /// Image to copy: [REPO:]IMAGE[@REVISION]
    source: String,
    /// Image to make: [REPO:]IMAGE; its name must be free
    dest: String,
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
