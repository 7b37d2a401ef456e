//! `pcocc config`: the configuration files.

mod schema;
mod show;

use crate::errors::Outcome;
use crate::invocation::Invocation;

/// Show and check the configuration
///
/// The files lie in /etc/pcocc (the site's) and ~/.pcocc (yours); none has to be there.
/// PCOCC_SYSTEM_CONF_DIR and PCOCC_USER_CONF_DIR name other folders.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  pcocc config show --origin")]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    Show(show::Args),
    Schema(schema::Args),
}

impl Args {
    /// Runs the chosen verb.
    pub(crate) fn run(self, invocation: &Invocation) -> Outcome {
        match self.verb {
            Verb::Show(args) => invocation.run(args),
            Verb::Schema(args) => args.run(),
        }
    }
}
