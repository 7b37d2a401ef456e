//! `pcocc docker import`: an image of the docker daemon into a repository.

use pcocc_image::formats::Location;
use pcocc_image::oci::Platform;

use crate::errors::Outcome;
use crate::invocation::{Invocation, Run};
use crate::verbs::transfer;

/// Import an image from docker into a repository
///
/// The image keeps its ID. Layers that the repository has are not stored again.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  pcocc docker import bb newbb")]
pub(crate) struct Args {
    /// Image in docker: NAME[:TAG], by default :latest; or an image ID
    source: String,
    /// Image to make: [REPO:]IMAGE; its name must be free
    dest: String,
}

impl Run for Args {
    fn action(&self) -> String {
        format!("import docker image {} as {}", self.source, self.dest)
    }

    fn run(self, invocation: &Invocation) -> Outcome {
        let source = Location::DockerDaemon {
            reference: self.source,
        };
        transfer::import(
            invocation,
            &source,
            Platform::host(),
            &self.dest,
            "pcocc docker import",
        )
    }
}
