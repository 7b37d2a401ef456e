//! `pcocc image repo`: the repositories themselves.

mod gc;
mod list;
mod verify;

use crate::errors::Outcome;
use crate::invocation::Invocation;

/// List and manage image repositories
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  pcocc image repo list\n  pcocc image repo verify user")]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    List(list::Args),
    Gc(gc::Args),
    Verify(verify::Args),
}

impl Args {
    /// Runs the chosen verb.
    pub(crate) fn run(self, invocation: &Invocation) -> Outcome {
        match self.verb {
            Verb::List(args) => invocation.run(args),
            Verb::Gc(args) => invocation.run(args),
            Verb::Verify(args) => invocation.run(args),
        }
    }
}
