//! `pcocc image delete`: takes an image out of a repository.

use crate::app::Invocation;
use crate::errors::Outcome;

/// Delete an image from a repository
///
/// Deletes all revisions of the image, or the one that is named. Space is given back by `pcocc image repo
/// gc`, once no other image needs the data.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  pcocc image delete user:mycentos7@5\n  pcocc image delete myrepo:centos7-cloud"
)]
pub(crate) struct Args {
    /// Image to delete: [REPO:]IMAGE[@REVISION]
    image: String,
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
