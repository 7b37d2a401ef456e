//! `pcocc image repo verify`: reads a repository through.

use crate::errors::{Failure, Outcome};
use crate::invocation::{Invocation, Run};
use crate::messages::printable;
use crate::output;

/// Check that every image of a repository is complete and intact
///
/// Reads all data and compares it with its digests; changes nothing.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  pcocc image repo verify user")]
pub(crate) struct Args {
    /// The repository
    repo: String,
}

impl Run for Args {
    fn action(&self) -> String {
        format!("verify repository {}", self.repo)
    }

    fn run(self, invocation: &Invocation) -> Outcome {
        let repositories = invocation.host.repositories()?;
        let repository = repositories.get(&self.repo)?;
        let verified = invocation.drawn(|context| repository.verify(context))?;
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
            Err(Failure::because("it is damaged")
                .hint("delete the damaged images and import them again, then run gc"))
        }
    }
}
