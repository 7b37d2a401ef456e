//! `pcocc image cache`: the squashfs files that images run from.

mod gc;
mod list;

use crate::errors::{Failure, Outcome};
use crate::invocation::Invocation;

/// List and manage the cache of root filesystems
///
/// Running an image, or looking into it in a mounted tree, needs its root filesystem as one squashfs
/// file. Import makes it; it is kept in the cache and made again when it is missing.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  pcocc image cache list\n  pcocc image cache gc")]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    List(list::Args),
    Gc(gc::Args),
}

impl Args {
    /// Runs the chosen verb.
    pub(crate) fn run(self, invocation: &Invocation) -> Outcome {
        match self.verb {
            Verb::List(args) => invocation.run(args),
            Verb::Gc(args) => invocation.run(args),
        }
    }
}

/// The failure of a request without a configured cache.
fn no_cache() -> Failure {
    Failure::because("no cache is configured")
        .hint("set `cache: {path: ...}` in ~/.pcocc/repos.yaml")
}
