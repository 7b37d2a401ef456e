//! `pcocc manpages`: the manual pages, made from the command line itself. `scripts/install` and `scripts/deb`
//! call it.

use std::path::PathBuf;

use crate::errors::{Outcome, While as _};

/// Write the manual pages
///
/// One page for pcocc and one for every command: pcocc.1, pcocc-docker-import.1 and so on.
#[derive(Debug, clap::Args)]
#[command(hide = true)]
pub(crate) struct Args {
    /// Folder for them, made when it is missing
    folder: PathBuf,
}

impl Args {
    /// Writes the pages of `command`.
    pub(crate) fn run(self, command: clap::Command) -> Outcome {
        std::fs::create_dir_all(&self.folder)
            .and_then(|()| clap_mangen::generate_to(command, &self.folder))
            .when(|| format!("write the manual pages to {}", self.folder.display()))
    }
}
