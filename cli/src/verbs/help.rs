//! `pcocc help`: the help of a verb by its name.

use std::io::IsTerminal as _;

use crate::errors::{Failure, Outcome, USAGE};
use crate::output;

/// Show the help of a command
///
/// The same as `pcocc COMMAND --help`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  pcocc help\n  pcocc help docker import")]
pub(crate) struct Args {
    /// The command, such as `docker import`; all of pcocc when missing
    #[arg(value_name = "COMMAND")]
    verb: Vec<String>,
}

impl Args {
    /// Shows the help of a verb of `command`.
    pub(crate) fn run(self, command: &clap::Command) -> Outcome {
        let mut found = command;
        for name in &self.verb {
            found = found.find_subcommand(name).ok_or_else(|| {
                let known: Vec<&str> = found
                    .get_subcommands()
                    .filter(|verb| !verb.is_hide_set())
                    .map(clap::Command::get_name)
                    .collect();
                let parent = found.get_bin_name().unwrap_or(found.get_name());
                Failure::message(
                    format!("show the help of {:?}", self.verb.join(" ")),
                    match known.as_slice() {
                        [] => format!("{parent} has no commands of its own"),
                        known => format!(
                            "{parent} has no command {name:?}; it has: {}",
                            known.join(", ")
                        ),
                    },
                )
                .code(USAGE)
            })?;
        }
        let help = found.clone().render_long_help();
        // Its own text, and the terminal's own style.
        let help = match std::io::stdout().is_terminal() {
            true => help.ansi().to_string(),
            false => help.to_string(),
        };
        output::bytes(help.as_bytes())
    }
}
