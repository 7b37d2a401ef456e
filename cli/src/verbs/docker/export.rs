//! `pcocc docker export`: an image of a repository into the docker daemon.

use crate::app::Invocation;
use crate::errors::Outcome;

/// Send an image from a repository to docker
///
/// The image keeps its ID. Layers that docker has are not sent again.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  pcocc docker export busybox bb\n  docker run -ti --rm bb")]
pub(crate) struct Args {
    /// Image to send: [REPO:]IMAGE[@REVISION]
    source: String,
    /// Name in docker: NAME[:TAG], by default :latest; taken away from the image that has it
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
