//! `pcocc image repo gc`: frees what no image needs.

use std::time::Duration;

use pcocc_image::repository::GcOptions;

use crate::errors::Outcome;
use crate::invocation::{Invocation, Run};
use crate::output;

/// Free the space of data that no image needs
///
/// Safe while others use the repository: only what is older than a grace time goes. A repository in
/// the format of old versions of pcocc is upgraded.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  pcocc image repo gc user")]
pub(crate) struct Args {
    /// The repository
    repo: String,
    /// Spare what is younger than this, in hours; not less than the longest import takes [default: 24]
    #[arg(long, value_name = "HOURS", value_parser = clap::value_parser!(u64).range(..1_000_000))]
    grace: Option<u64>,
}

impl Run for Args {
    fn action(&self) -> String {
        format!("clean repository {}", self.repo)
    }

    fn run(self, invocation: &Invocation) -> Outcome {
        let repositories = invocation.host.repositories()?;
        let repository = repositories.get(&self.repo)?;
        let options = match self.grace {
            Some(hours) => GcOptions {
                grace: Duration::from_secs(hours * 3600),
            },
            None => GcOptions::default(),
        };
        let collected = invocation.drawn(|context| repository.collect(options, context))?;
        let mut text = String::new();
        if collected.upgraded {
            text += &format!("Upgraded repository {} to version 2\n", self.repo);
        }
        text += &format!(
            "Freed {} ({} blobs, {} temporary files)",
            output::size(collected.bytes),
            collected.blobs,
            collected.temporary
        );
        if collected.spared > 0 {
            text += &format!("; {} unused blobs are too young to go", collected.spared);
        }
        text.push('\n');
        output::text(&text)
    }
}
