//! `pcocc docker guest`: the inside of docker VMs.

mod build;
mod console;
mod shell;
mod show;

use crate::errors::Outcome;
use crate::invocation::Invocation;

/// Build and look into the guest of docker VMs
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  pcocc docker guest build\n  pcocc docker guest shell -j 1756495"
)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    Build(build::Args),
    Show(show::Args),
    Shell(shell::Args),
    Console(console::Args),
}

impl Args {
    /// Runs the chosen verb.
    pub(crate) fn run(self, invocation: &Invocation) -> Outcome {
        match self.verb {
            Verb::Build(args) => invocation.run(args),
            Verb::Show(args) => invocation.run(args),
            Verb::Shell(args) => invocation.run(args),
            Verb::Console(args) => invocation.run(args),
        }
    }
}
