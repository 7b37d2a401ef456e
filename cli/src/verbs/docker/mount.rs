//! `pcocc docker mount`: the images of docker and of the repositories as folders.

use std::path::PathBuf;

use crate::app::Invocation;
use crate::errors::Outcome;

/// Show docker and the repositories as folders
///
/// In MOUNTPOINT, docker/ holds the images of the docker daemon and repo/REPO/ those of the repositories;
/// copying an image folder from one side to the other, by cp -r or any other tool, moves the image.
/// rootfs/ shows the same images as file trees. README in there tells more.
///
/// Comes back once the folders are there and goes on in the background until `pcocc docker umount`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  pcocc docker mount ~/img\n  cp -r ~/img/repo/user/centos ~/img/docker/work\n  \
    docker run -ti --name w work yum install gcc && docker commit w work:gcc\n  \
    cp -r ~/img/docker/work:gcc ~/img/repo/user/centos-gcc"
)]
pub(crate) struct Args {
    /// An empty folder, made when it is missing
    #[arg(value_name = "MOUNTPOINT")]
    mount_point: PathBuf,
    /// Stay in the foreground; Ctrl-C unmounts
    #[arg(short, long)]
    foreground: bool,
    /// Let rm -r delete images
    #[arg(long)]
    allow_delete: bool,
}

impl Args {
    /// Runs the verb.
    pub(crate) fn run(self, invocation: &Invocation) -> Outcome {
        let _ = invocation;
        Err(crate::errors::Failure::message(
            "do this",
            "this build lacks it",
        ))
    }
}
