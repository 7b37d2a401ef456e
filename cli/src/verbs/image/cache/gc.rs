//! `pcocc image cache gc`: shrinks the cache.

use pcocc_image::repository::GcOptions;

use super::no_cache;
use crate::errors::{Outcome, While as _};
use crate::invocation::Invocation;
use crate::output;
use crate::stores;

/// Remove cached root filesystems that no image needs
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  pcocc image cache gc")]
pub(crate) struct Args {
    /// Remove all of them; they are made again when they are needed
    #[arg(short = 'c', long)]
    force_clear: bool,
}

impl Args {
    /// Shrinks the cache.
    pub(crate) fn run(self, invocation: &Invocation) -> Outcome {
        let action = || "clean the cache";
        let repositories = stores::repositories(&invocation.environment)?;
        let Some(cache) = repositories.cache() else {
            return Err(no_cache(action()));
        };
        let max = if self.force_clear { Some(0) } else { None };
        let collected = cache
            .collect(&repositories, GcOptions::default(), max)
            .when(action)?;
        output::text(&format!(
            "Freed {} ({} root filesystems, {} temporary files)\n",
            output::size(collected.bytes),
            collected.entries,
            collected.temporary
        ))
    }
}
