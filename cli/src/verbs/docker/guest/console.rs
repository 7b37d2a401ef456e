//! `pcocc docker guest console`: the VM's serial console.

use crate::errors::Outcome;
use crate::host::jobs::JobOption;
use crate::invocation::{Invocation, Run};
use crate::verbs::docker::logs::{self, Source};

/// Watch a docker VM's console
///
/// From its beginning until the job is over, or Ctrl-C: what the guest's kernel and its docker daemon say. Nothing can be
/// typed there, because nothing listens: `pcocc docker guest shell` starts a shell. On a terminal control sequences are left out.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  pcocc docker guest console -j 1756495")]
pub(crate) struct Args {
    #[command(flatten)]
    job: JobOption,
}

impl Run for Args {
    fn action(&self) -> String {
        "show the log of a docker VM".to_owned()
    }

    fn run(self, invocation: &Invocation) -> Outcome {
        logs::show(invocation, &self.job, Source::Console, true)
    }
}
