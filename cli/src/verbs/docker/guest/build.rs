//! `pcocc docker guest build`: makes the image docker VMs boot from.

use std::path::{Path, PathBuf};

use pcocc_image::Error;
use pcocc_image::formats::Location;
use pcocc_image::oci::Platform;
use pcocc_image::reference::ImageUri;
use pcocc_image::vmdisk::DiskFormat;
use pcocc_vm::guest_image::{self, BuildOptions, IMAGE_NAME};

use crate::errors::{Failure, Outcome, While as _};
use crate::invocation::{Invocation, Run};
use crate::session::Session;
use crate::verbs::docker::launch::{LocalJob, MachineArgs};
use crate::verbs::transfer;

/// The agent's program.
const AGENT: &str = "pcocc-guest";

/// Build the guest image of docker VMs
///
/// Fetches Debian packages through the mirror that this machine's apt uses, takes out of them what a docker daemon needs,
/// and stores the result in the repository as a virtual machine image. Needs neither root nor docker, and installs
/// nothing. Machines without apt get the image from another one with pcocc image export and import.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  pcocc docker guest build\n  pcocc docker guest build --replace --mirror http://debian.example.com/debian"
)]
pub(crate) struct Args {
    /// Image to make: [REPO:]IMAGE
    #[arg(default_value = IMAGE_NAME)]
    dest: String,
    /// Replace the image if there is one: it is deleted once the new one is built
    #[arg(long)]
    replace: bool,
    /// Debian's suite
    #[arg(long, default_value = "trixie")]
    suite: String,
    /// Debian's mirror; that of this machine's apt unless given
    #[arg(long, value_name = "URL")]
    mirror: Option<String>,
    /// The guest's agent, a static program; pcocc-guest beside pcocc unless given
    #[arg(long, value_name = "FILE")]
    agent: Option<PathBuf>,
    /// Start a VM on this machine once, so that the first job here finds a snapshot to resume
    #[arg(long)]
    snapshot: bool,
}

impl Run for Args {
    fn action(&self) -> String {
        format!("build the guest image {}", self.dest)
    }

    fn run(self, invocation: &Invocation) -> Outcome {
        let uri: ImageUri = self.dest.parse()?;
        let repositories = invocation.host.repositories()?;
        let repository = repositories.destination(&uri)?;
        // This must fail before the build, which takes minutes.
        repository.check_writable()?;
        let exists = match repository.check_free(&uri.name) {
            Ok(()) => false,
            Err(Error::Exists(_)) if self.replace => true,
            Err(error @ Error::Exists(_)) => {
                return Err(
                    Failure::from(error).hint("build it anew with --replace, or give another name")
                );
            }
            Err(error) => return Err(Failure::from(error)),
        };
        let temporary = &invocation.environment.temporary;
        let archive = tempfile::Builder::new()
            .prefix("pcocc-guest-image-")
            .tempfile_in(temporary)
            .part(|| format!("make a file in {}", temporary.display()))?;
        let options = BuildOptions {
            agent: match self.agent {
                Some(agent) => agent,
                None => find_agent()?,
            },
            suite: self.suite,
            mirror: self.mirror,
            temporary: temporary.clone(),
        };
        invocation.drawn(|context| {
            guest_image::build(&options, archive.path(), &context.progress, &context.cancel)
        })?;
        if exists {
            repositories.delete(&uri)?;
        }
        let source = Location::VmDisk {
            path: archive.path().to_owned(),
            format: DiskFormat::Raw,
        };
        let verb = "pcocc docker guest build";
        transfer::import(invocation, &source, Platform::host(), &self.dest, verb)?;
        match self.snapshot {
            true => make_snapshot(invocation).when(|| "make a snapshot of the guest"),
            false => Ok(()),
        }
    }
}

/// Starts a VM as a job of this machine, with the size and image of a job without options; that makes the
/// snapshot.
fn make_snapshot(invocation: &Invocation) -> Outcome {
    let machine = MachineArgs::default();
    let local = LocalJob::create(invocation, &[], true, None, machine)?;
    let session = Session {
        launcher: local.launch()?,
        folder: local.folder,
        script: Some("true"),
        mount: None,
        give_up: None,
        elsewhere: false,
    };
    Failure::passed_on(session.run(invocation)?)
}

/// Finds the agent of an installation: beside pcocc, or below `libexec`.
fn find_agent() -> Outcome<PathBuf> {
    let own = std::env::current_exe().part(|| "find pcocc itself")?;
    let folder = own.parent().unwrap_or(Path::new("/"));
    [
        folder.join(AGENT),
        folder.join("../libexec/pcocc").join(AGENT),
    ]
    .into_iter()
    .find(|path| path.is_file())
    .ok_or_else(|| {
        Failure::because(format!(
            "the guest's agent {AGENT} is not in {}",
            folder.display()
        ))
        .hint("build it with scripts/build-guest-agent and name it with --agent, or put it there")
    })
}
