//! `pcocc docker export`: an image of a repository into the docker daemon.

use pcocc_image::Error;
use pcocc_image::formats::Location;
use pcocc_image::repository::Kind;

use crate::errors::Outcome;
use crate::invocation::{Invocation, Run};
use crate::verbs::transfer;

/// Send an image from a repository to docker
///
/// The image keeps its ID. Layers that docker has are not sent again.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  pcocc docker export busybox bb\n  docker run -ti --rm bb")]
pub(crate) struct Args {
    /// Image to send: [REPO:]IMAGE[@REVISION]
    source: String,
    /// Name in docker: NAME[:TAG], by default :latest; taken away from the image that has it
    dest: String,
}

impl Run for Args {
    fn action(&self) -> String {
        format!("export image {} to docker as {}", self.source, self.dest)
    }

    fn run(self, invocation: &Invocation) -> Outcome {
        let dest = |kind| match kind {
            Kind::Container => Ok(Location::DockerDaemon {
                reference: self.dest,
            }),
            Kind::VirtualMachine => Err(Error::invalid(
                format!("image {}", self.source),
                "is the disk of a virtual machine, which docker cannot run",
            )),
        };
        transfer::export(invocation, &self.source.clone(), dest)
    }
}
