//! `pcocc image export`: an image of a repository into a file or registry.

use pcocc_image::formats::Location;
use pcocc_image::repository::Kind;

use crate::errors::Outcome;
use crate::invocation::{Invocation, Run};
use crate::verbs::transfer;

/// Export an image from a repository
///
/// DEST, for a container image, is
///
///   docker-archive:FILE[:TAG]       for docker load
///   oci:FOLDER[:TAG]                an OCI image layout
///   docker-daemon:REFERENCE         the docker daemon that DOCKER_HOST names
///   docker://REFERENCE              a registry
///
/// and for a virtual machine disk a file in the format its extension says (raw, qcow2, qed, vdi,
/// vpc or vmdk), or -t. A file that exists is never overwritten.
#[derive(Debug, clap::Args)]
#[command(
    verbatim_doc_comment,
    after_help = "Examples:\n  pcocc image export centos docker-archive:centos.tar\n  \
    pcocc image export user:centos7-cloud ./centos7.qcow2"
)]
pub(crate) struct Args {
    /// Format of DEST, when it does not say
    #[arg(short = 't', long = "fmt", value_name = "FORMAT")]
    format: Option<String>,
    /// Image to export: [REPO:]IMAGE[@REVISION]
    source: String,
    /// Where to
    dest: String,
}

impl Run for Args {
    fn action(&self) -> String {
        format!("export image {} to {}", self.source, self.dest)
    }

    fn run(self, invocation: &Invocation) -> Outcome {
        let home = &invocation.environment.home;
        let dest = |kind| {
            Location::destination(
                &self.dest,
                self.format.as_deref(),
                Some(home),
                kind == Kind::VirtualMachine,
            )
        };
        transfer::export(invocation, &self.source, dest)
    }
}
