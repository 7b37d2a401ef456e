//! `pcocc image copy`: an image to another repository or another name.

use crate::errors::Outcome;
use crate::invocation::{Invocation, Run};
use crate::verbs::transfer;

/// Copy an image to another name or repository
///
/// Data that the destination repository has already is not copied again.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  pcocc image copy global:centos7-cloud user:mycentos7")]
pub(crate) struct Args {
    /// Image to copy: [REPO:]IMAGE[@REVISION]
    source: String,
    /// Image to make: [REPO:]IMAGE; its name must be free
    dest: String,
}

impl Run for Args {
    fn action(&self) -> String {
        format!("copy image {} to {}", self.source, self.dest)
    }

    fn run(self, invocation: &Invocation) -> Outcome {
        transfer::copy(invocation, &self.source, &self.dest)
    }
}
