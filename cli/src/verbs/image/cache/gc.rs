//! `pcocc image cache gc`: shrinks the cache.

use pcocc_image::repository::GcOptions;

use super::no_cache;
use crate::errors::Outcome;
use crate::invocation::{Invocation, Run};
use crate::output;

/// Remove cached root filesystems that no image needs
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  pcocc image cache gc")]
pub(crate) struct Args {
    /// Remove all of them; they are made again when they are needed
    #[arg(short = 'c', long)]
    force_clear: bool,
}

impl Run for Args {
    fn action(&self) -> String {
        "clean the cache".to_owned()
    }

    fn run(self, invocation: &Invocation) -> Outcome {
        let repositories = invocation.host.repositories()?;
        let Some(cache) = repositories.cache() else {
            return Err(no_cache());
        };
        let max = if self.force_clear { Some(0) } else { None };
        let collected = cache.collect(repositories, GcOptions::default(), max)?;
        output::text(&format!(
            "Freed {} ({} root filesystems, {} temporary files)\n",
            output::size(collected.bytes),
            collected.entries,
            collected.temporary
        ))
    }
}
