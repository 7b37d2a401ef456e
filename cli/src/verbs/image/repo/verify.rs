//! `pcocc image repo verify`: reads a repository through.

use crate::errors::{Failure, Outcome, While as _};
use crate::invocation::Invocation;
use crate::output::{self, printable};
use crate::stores;

/// Check that every image of a repository is complete and intact
///
/// Reads all data and compares it with its digests; changes nothing.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  pcocc image repo verify user")]
pub(crate) struct Args {
    /// The repository
    repo: String,
}

impl Args {
    /// Checks the repository.
    pub(crate) fn run(self, invocation: &Invocation) -> Outcome {
        let action = || format!("verify repository {}", self.repo);
        let repositories = stores::repositories(&invocation.environment)?;
        let repository = repositories.get(&self.repo).when(action)?;
        let verified = {
            let (_drawing, context) = invocation.draw();
            repository.verify(&context).when(action)?
        };
        let mut text = String::new();
        for problem in &verified.problems {
            text += &format!("{}\n", printable(&problem.to_string()));
        }
        text += &format!(
            "Checked {} image revisions, {} blobs, {}: ",
            verified.images,
            verified.blobs,
            output::size(verified.bytes)
        );
        text += &match verified.problems.len() {
            0 => "all intact\n".to_owned(),
            n => format!("{n} problems\n"),
        };
        output::text(&text)?;
        if verified.problems.is_empty() {
            Ok(())
        } else {
            Err(Failure::message(action(), "it is damaged")
                .hint("delete the damaged images and import them again, then run gc"))
        }
    }
}
