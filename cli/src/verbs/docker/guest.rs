//! `pcocc docker guest`: the inside of docker VMs.

mod build;

use crate::app::Invocation;
use crate::errors::Outcome;

/// Build and look into the guest of docker VMs
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    Build(build::Args),
}

impl Args {
    /// Runs the verb that was chosen.
    pub(crate) fn run(self, invocation: &Invocation) -> Outcome {
        match self.verb {
            Verb::Build(args) => args.run(invocation),
        }
    }
}
