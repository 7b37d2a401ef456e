//! The verbs: one file each, with its arguments, its help and its run.

mod docker;
mod image;

use crate::app::Invocation;
use crate::errors::Outcome;

/// What to do.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    Image(image::Args),
    Docker(docker::Args),
}

impl Verb {
    /// Does it.
    pub(crate) fn run(self, invocation: &Invocation) -> Outcome {
        match self {
            Self::Image(args) => args.run(invocation),
            Self::Docker(args) => args.run(invocation),
        }
    }
}
