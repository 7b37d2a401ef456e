//! `pcocc docker guest`: the inside of docker VMs.

mod build;
mod console;
mod shell;
mod show;

use std::path::PathBuf;

use pcocc_image::reference::ImageUri;
use pcocc_image::repository::Kind;

use crate::errors::{Failure, Outcome};
use crate::invocation::Invocation;

/// Build and look into the guest of docker VMs
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  pcocc docker guest build\n  pcocc docker guest shell -j 1756495"
)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    Build(build::Args),
    Show(show::Args),
    Shell(shell::Args),
    Console(console::Args),
}

impl Args {
    /// Runs the verb that was chosen.
    pub(crate) fn run(self, invocation: &Invocation) -> Outcome {
        match self.verb {
            Verb::Build(args) => invocation.run(args),
            Verb::Show(args) => invocation.run(args),
            Verb::Shell(args) => invocation.run(args),
            Verb::Console(args) => invocation.run(args),
        }
    }
}

/// Finds the guest image `name` in the repositories: its disk, and what identifies its content.
pub(crate) fn image(invocation: &Invocation, name: &str) -> Outcome<(PathBuf, String)> {
    const HINT: &str = "make it with `pcocc docker guest build`";
    let uri: ImageUri = name.parse()?;
    let repositories = invocation.host.repositories()?;
    let (repository, meta) = repositories
        .find(&uri)
        .map_err(|error| Failure::from(error).hint(HINT))?;
    let blob = meta.data_blobs().last().copied();
    let (Kind::VirtualMachine, Some(blob)) = (meta.kind(), blob) else {
        let why = format!("image {name} is no image of a virtual machine");
        return Err(Failure::because(why).hint(HINT));
    };
    let id = blob.to_string().replace("sha256:", "");
    Ok((repository.blob_path(blob), id))
}
