//! `pcocc docker guest build`: makes the image docker VMs boot from.

use std::path::{Path, PathBuf};

use pcocc_image::Error;
use pcocc_image::formats::Location;
use pcocc_image::reference::ImageUri;
use pcocc_image::vmdisk::DiskFormat;
use pcocc_vm::guest_image::{self, BuildOptions, IMAGE_NAME};

use crate::errors::{Failure, Outcome, While as _};
use crate::invocation::Invocation;
use crate::session::Session;
use crate::stores;
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

impl Args {
    /// Builds the image.
    pub(crate) fn run(self, invocation: &Invocation) -> Outcome {
        let action = format!("build the guest image {}", self.dest);
        let uri: ImageUri = self.dest.parse().when(|| &*action)?;
        let repositories = stores::repositories(&invocation.environment)?;
        let repository = repositories.destination(&uri).when(|| &*action)?;
        // Known before the build, which takes minutes.
        repository.check_writable().when(|| &*action)?;
        let exists = match repository.check_free(&uri.name) {
            Ok(()) => false,
            Err(Error::Exists(_)) if self.replace => true,
            Err(error @ Error::Exists(_)) => {
                return Err(Failure::new(action, error)
                    .hint("build it anew with --replace, or give another name"));
            }
            Err(error) => return Err(Failure::new(action, error)),
        };
        let temporary = &invocation.environment.temporary;
        let archive = tempfile::Builder::new()
            .prefix("pcocc-guest-image-")
            .tempfile_in(temporary)
            .when(|| format!("{action}: make a file in {}", temporary.display()))?;
        let options = BuildOptions {
            agent: match self.agent {
                Some(agent) => agent,
                None => find_agent(&action)?,
            },
            suite: self.suite,
            mirror: self.mirror,
            temporary: temporary.clone(),
        };
        {
            let (_drawing, context) = invocation.draw();
            guest_image::build(&options, archive.path(), &context.progress, &context.cancel)
                .when(|| &*action)?;
        }
        if exists {
            repositories.delete(&uri).when(|| &*action)?;
        }
        let source = Location::VmDisk {
            path: archive.path().to_owned(),
            format: DiskFormat::Raw,
        };
        let verb = "pcocc docker guest build";
        transfer::import(invocation, &source, &self.dest, verb, &action)?;
        match self.snapshot {
            true => make_snapshot(invocation),
            false => Ok(()),
        }
    }
}

/// Starts a VM as a job of this machine, of the size and with the image a job without options has; that makes the snapshot.
fn make_snapshot(invocation: &Invocation) -> Outcome {
    let action = "make a snapshot of the guest";
    let machine = MachineArgs::default();
    let local = LocalJob::create(invocation, &[], true, None, machine, action)?;
    let session = Session {
        launcher: local.launch(action)?,
        folder: local.folder,
        script: Some("true"),
        mount: None,
        give_up: None,
        elsewhere: false,
    };
    match session.run(invocation)? {
        0 => Ok(()),
        code => Err(Failure::reported(code)),
    }
}

/// Finds the agent where an installation has it: beside pcocc, or below its `libexec`.
fn find_agent(action: &str) -> Outcome<PathBuf> {
    let own = std::env::current_exe().when(|| format!("{action}: find pcocc itself"))?;
    let folder = own.parent().unwrap_or(Path::new("/"));
    [
        folder.join(AGENT),
        folder.join("../libexec/pcocc").join(AGENT),
    ]
    .into_iter()
    .find(|path| path.is_file())
    .ok_or_else(|| {
        Failure::message(
            action,
            format!("the guest's agent {AGENT} is not in {}", folder.display()),
        )
        .hint("build it with scripts/build-guest-agent and name it with --agent, or put it there")
    })
}
