//! `pcocc docker mount`: the images of docker and of the repositories as folders.

mod background;
mod guard;
mod job_end;
mod spool_size;
mod work;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use pcocc_fs::MountOptions;
use pcocc_image::repository::{Repositories, RepositoryStore};
use pcocc_image::spool::Spool;
use pcocc_image::store::Store;
use pcocc_remote::docker::DaemonStore;
use rustix::io::Errno;

use crate::errors::{Outcome, While as _};
use crate::invocation::{Invocation, Run};
use crate::messages::warn;
use crate::output;

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
    /// Keep at most SIZE of images read from docker, such as 500M or 20G, in TMPDIR, or /var/tmp (default:
    /// 10 GB, or a tenth of that disk if that is less)
    #[arg(long, value_name = "SIZE", value_parser = pcocc_core::size::parse)]
    spool_size: Option<u64>,
    /// Written by the background start: tell on stdout when the tree can be used
    #[arg(long, hide = true)]
    announce: bool,
    /// Written by the mount's process, PID: be its guard
    #[arg(long, hide = true, value_name = "PID")]
    guard: Option<u32>,
}

impl Run for Args {
    fn action(&self) -> String {
        format!("mount {}", self.mount_point.display())
    }

    fn run(self, invocation: &Invocation) -> Outcome {
        let mount_point = std::path::absolute(&self.mount_point)?;
        // The user may have typed a relative path.
        let action = || format!("mount {}", mount_point.display());
        let serve = || self.serve(invocation, &mount_point).when(action);
        if let Some(server) = self.guard {
            return guard::run(&mount_point, server);
        }
        if self.announce {
            background::leave_session()?;
            return serve();
        }
        create(&mount_point).when(|| format!("create the folder {}", mount_point.display()))?;
        if self.foreground {
            return serve();
        }
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["docker", "mount", "--foreground", "--announce"]);
        if self.allow_delete {
            command.arg("--allow-delete");
        }
        if let Some(size) = self.spool_size {
            command.arg(format!("--spool-size={size}"));
        }
        command.arg("--").arg(&mount_point);
        if let Some(log) = &invocation.log {
            command.env("PCOCC_LOG", log);
        }
        background::start(command, &invocation.cancel).when(action)?;
        output::text(&format!("Mounted at {}\n", mount_point.display()))
    }
}

impl Args {
    fn serve(&self, invocation: &Invocation, mount_point: &Path) -> Outcome {
        let (environment, host) = (&invocation.environment, &invocation.host);
        let work = work::WorkFolders::create(&environment.temporary)?;
        let daemon = host.open_daemon()?;
        let bound = match self.spool_size {
            Some(size) => size,
            None => spool_size::default_for(work.staging())?,
        };
        let spool = Spool::open(work.spool().to_owned(), bound)?;
        let repositories = host.repositories()?;
        let log = self
            .announce
            .then(|| background::log_path(&environment.user_conf, mount_point));
        let options = MountOptions {
            mountpoint: mount_point.to_owned(),
            docker: Some(Arc::new(DaemonStore::new(daemon.clone(), Arc::new(spool)))),
            repositories: repository_stores(repositories)?,
            allow_delete: self.allow_delete,
            staging_dir: work.staging().to_owned(),
            guard: guard::command(mount_point, log.as_deref()),
        };
        if let Some(job) = host.job()? {
            job_end::watch(invocation, job.id(), mount_point)?;
        }
        let mounted = pcocc_fs::mount(options)?;
        if let Err(error) = daemon.ping() {
            // The daemon may start later; the repositories are useful without it.
            warn(&format!("{error}; docker/ works once it is there"));
        }
        if let Some(log) = &log {
            background::announce(log)?;
        } else {
            output::text(&format!("Mounted at {}\n", mount_point.display()))?;
        }
        mounted
            .wait(&invocation.cancel)
            .when(|| format!("serve {}", mount_point.display()))
    }
}

/// Every repository by its name.
fn repository_stores(
    repositories: &Arc<Repositories>,
) -> pcocc_image::Result<Vec<(String, Arc<dyn Store>)>> {
    repositories
        .iter()
        .map(|repository| {
            let name = repository.name();
            let store = RepositoryStore::new(Arc::clone(repositories), name, repository.options())?;
            Ok((name.to_owned(), Arc::new(store) as Arc<dyn Store>))
        })
        .collect()
}

/// Makes the folder to mount on. The mount itself checks an existing file: it may be a dead mount, which
/// answers ENOTCONN and is replaced.
fn create(path: &Path) -> io::Result<()> {
    match fs::create_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(_) if fs::symlink_metadata(path).is_ok() => Ok(()),
        Err(error) if error.raw_os_error() == Some(Errno::NOTCONN.raw_os_error()) => Ok(()),
        result => result,
    }
}
