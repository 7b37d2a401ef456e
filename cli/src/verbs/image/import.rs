//! `pcocc image import`: a file or registry image into a repository.

use pcocc_image::formats::Location;
use pcocc_image::oci::Platform;

use crate::errors::Outcome;
use crate::invocation::{Invocation, Run};
use crate::verbs::transfer;

/// Import an image into a repository
///
/// SOURCE is a container image:
///
///   docker://REFERENCE              in a registry (docker.io unless REFERENCE names one)
///   docker-archive:FILE[:TAG]       saved with docker save; may be compressed
///   oci:FOLDER[:TAG]                an OCI image layout
///   docker-daemon:REFERENCE         in the docker daemon that DOCKER_HOST names
///
/// or the file of a virtual machine disk: raw, qcow2, qed, vdi, vpc or vmdk. Its format is known by
/// extension and content, or given with -t.
///
/// DEST is [REPO:]IMAGE; its name must be free in the repository.
#[derive(Debug, clap::Args)]
#[command(
    verbatim_doc_comment,
    after_help = "Examples:\n  pcocc image import docker://centos user:centos\n  \
    pcocc image import docker-archive:bb.tar bb\n  \
    pcocc image import $HOME/CentOS-7-x86_64-GenericCloud.qcow2 global:centos7-cloud"
)]
pub(crate) struct Args {
    /// Format of SOURCE, when it does not say
    #[arg(short = 't', long = "fmt", value_name = "FORMAT")]
    format: Option<String>,
    /// Platform whose image to take, by default this machine's: OS/ARCH[/VARIANT], such as linux/arm64
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<Platform>,
    /// What to import
    source: String,
    /// Image to make: [REPO:]IMAGE
    dest: String,
}

impl Run for Args {
    fn action(&self) -> String {
        format!("import {} as {}", self.source, self.dest)
    }

    fn run(self, invocation: &Invocation) -> Outcome {
        let home = &invocation.environment.home;
        let source = Location::source(&self.source, self.format.as_deref(), Some(home))?;
        let machine = self.platform.unwrap_or_else(Platform::host);
        transfer::import(
            invocation,
            &source,
            machine,
            &self.dest,
            "pcocc image import",
        )
    }
}
