//! `pcocc image list`: what the repositories hold.

use crate::app::Invocation;
use crate::errors::Outcome;
use crate::output::Format;

/// List images in repositories
///
/// Shows the highest revision of every image, repository by repository, in the order in which they are
/// searched. An image that an earlier repository hides is listed as well: name it REPO:IMAGE.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  pcocc image list\n  pcocc image list -R user '^centos'\n\n\
    JSON: a list of {name, kind, revision, repo, owner, date, size, id, description}."
)]
pub(crate) struct Args {
    /// Only images whose name matches this regular expression
    regex: Option<String>,
    /// Only this repository
    #[arg(short = 'R', long, value_name = "REPO")]
    repo: Option<String>,
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
