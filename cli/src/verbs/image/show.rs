//! `pcocc image show`: one image in detail.

use crate::app::Invocation;
use crate::errors::Outcome;
use crate::output::Format;

/// Show one image in detail
///
/// Names its digests, layers and platform, what it runs, and its revisions.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  pcocc image show user:mycentos7\n  pcocc image show --format json centos@3"
)]
pub(crate) struct Args {
    /// The image: [REPO:]IMAGE[@REVISION]
    image: String,
    /// How to write the details
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
