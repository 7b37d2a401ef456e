//! Mounts the tree and takes it down again.
//!
//! Phases: the mount point is checked, and a stale mount on it (its process was killed) taken away → a
//! guard is started, which unmounts if this process is killed → fuser mounts the tree, directly as root and
//! through `fusermount3` otherwise; as root also the root file systems on its folder `rootfs` ([`Roots`]), where
//! `fusermount3`, which is another user to the tree, would not be let in → event loops answer requests, a watcher looks after interrupted commits and abandoned copies → the mount is taken down, lazily when
//! someone still has it open, and commits under way are cancelled.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use fuser::{BackgroundSession, Config, MountOption, Session};
use pcocc_core::cancel::Cancel;
use pcocc_image::store::Store;

use crate::fuse::{Adapter, Roots};
use crate::guard::Guard;
use crate::mount_error::MountError;
use crate::mountpoint::{mount_at, prepare, unmount_now};
use crate::reply::MAX_REQUEST;
use crate::tree::{Tree, TreeOptions};
use crate::workers::Workers;

/// Threads that take requests from the kernel.
const EVENT_LOOPS: usize = 3;

/// How often the watcher looks.
const WATCH: Duration = Duration::from_millis(100);

/// How long taking the mount down may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// How often the mount looks whether it is still in its place.
const PRESENCE: Duration = Duration::from_secs(1);

/// What is mounted, and where.
pub struct MountOptions {
    /// The empty folder the tree appears in.
    pub mountpoint: PathBuf,
    /// The daemon whose images stand under `docker/`.
    pub docker: Option<Arc<dyn Store>>,
    /// The repositories under `repo/`, by name.
    pub repositories: Vec<(String, Arc<dyn Store>)>,
    /// Whether `rm -r` of an image folder removes the image.
    pub allow_delete: bool,
    /// An existing folder on a local disk for images that are being copied in.
    pub staging_dir: PathBuf,
    /// Starts a process that runs [`crate::guard::guard`] on its standard input; without one nobody unmounts
    /// when this process is killed.
    pub guard: Option<Command>,
}

impl std::fmt::Debug for MountOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MountOptions")
            .field("mountpoint", &self.mountpoint)
            .finish_non_exhaustive()
    }
}

/// A mounted tree; dropping it unmounts.
#[derive(Debug)]
pub struct Mounted {
    mountpoint: PathBuf,
    /// The tree's, and perhaps that of its root file systems; none when it has ended.
    sessions: Vec<BackgroundSession>,
    guard: Option<Guard>,
    /// The mount's ID; none when it could not be found out.
    id: Option<String>,
    tree: Arc<Tree>,
    cancel: Cancel,
    stop: Arc<AtomicBool>,
    watcher: Option<JoinHandle<()>>,
}

impl Mounted {
    /// Serves until someone unmounts the tree or `cancel` is raised, then takes the mount down.
    pub fn wait(mut self, cancel: &Cancel) -> Result<(), MountError> {
        let mut looked = Instant::now();
        let why = loop {
            let ended = self
                .sessions
                .first()
                .is_none_or(|session| session.guard.is_finished());
            // Detached while someone has it open: the kernel says so only when that one has left.
            let look = looked.elapsed() > PRESENCE;
            if look {
                looked = Instant::now();
            }
            if ended || look && !self.is_in_place() {
                break "it was unmounted";
            }
            if cancel.is_cancelled() {
                break "its process was told to end";
            }
            thread::sleep(WATCH);
        };
        tracing::info!(mountpoint = %self.mountpoint.display(), why, "the mount ends");
        self.end()
    }

    /// Whether the mount point still shows this mount.
    fn is_in_place(&self) -> bool {
        match (mount_at(&self.mountpoint), &self.id) {
            (Ok(found), Some(id)) => found.is_some_and(|mounted| mounted.id == *id),
            // It cannot be told: then it is.
            _ => true,
        }
    }

    /// The tree that is mounted.
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    fn end(&mut self) -> Result<(), MountError> {
        self.cancel.cancel();
        self.tree.cancel_all();
        let sessions = std::mem::take(&mut self.sessions);
        let Some(tree) = sessions.first() else {
            return Ok(());
        };
        let mut result = Ok(());
        if !tree.guard.is_finished() && self.is_in_place() {
            // What is mounted on `rootfs` goes along.
            result = unmount_now(&self.mountpoint);
        }
        // Someone may still sit in the folder: then the mount is out of sight already, and goes with the
        // process.
        let until = Instant::now() + PATIENCE;
        let all_ended = || sessions.iter().all(|session| session.guard.is_finished());
        while !all_ended() && Instant::now() < until {
            thread::sleep(Duration::from_millis(10));
        }
        for session in sessions {
            if session.guard.is_finished() {
                if let Err(error) = session.join() {
                    tracing::debug!(%error, "the mount ended with an error");
                }
            } else {
                // Dropping it would unmount whatever is mounted there by now.
                std::mem::forget(session);
            }
        }
        self.stop.store(true, Ordering::Release);
        if let Some(watcher) = self.watcher.take()
            && watcher.join().is_err()
        {
            tracing::debug!("the watcher ended in an unforeseen way");
        }
        if let Some(guard) = self.guard.take() {
            match &result {
                Ok(()) => guard.dismiss(),
                // It tries once more when this process is gone.
                Err(_) => drop(guard),
            }
        }
        result
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            tracing::warn!(%error, "cannot unmount");
        }
    }
}

/// Mounts the tree. It answers from the moment this returns: tell whoever waits for it then.
pub fn mount(options: MountOptions) -> Result<Mounted, MountError> {
    let (mountpoint, lock) = prepare(&options.mountpoint)?;
    check_fuse()?;
    // Before the mount, so that the guard does not inherit what keeps it alive.
    let mut guard = options.guard.and_then(Guard::start);
    let cancel = Cancel::new();
    let (user, group) = (rustix::process::geteuid(), rustix::process::getegid());
    let tree = Arc::new(Tree::new(
        options.docker,
        options.repositories,
        TreeOptions {
            owner: (user.as_raw(), group.as_raw()),
            allow_delete: options.allow_delete,
            staging_dir: options.staging_dir,
            cancel: cancel.clone(),
        },
    ));
    let mut config = Config::default();
    config.mount_options = vec![
        MountOption::FSName("pcocc".into()),
        MountOption::Subtype("pcocc".into()),
        MountOption::NoDev,
        MountOption::NoSuid,
    ];
    config.n_threads = Some(EVENT_LOOPS);
    let workers = Workers::default();
    let adapter = Adapter::new(Arc::clone(&tree), workers.clone());
    let session = Session::new(adapter, &mountpoint, &config)
        .and_then(Session::spawn)
        .map_err(|error| explain(&mountpoint, error))?;
    let mut sessions = vec![session];
    if user.is_root() {
        config.mount_options.push(MountOption::RO);
        let roots = Roots(Adapter::new(Arc::clone(&tree), workers));
        let on = mountpoint.join("rootfs");
        match Session::new(roots, &on, &config).and_then(Session::spawn) {
            Ok(session) => sessions.push(session),
            // The tree shows them as well, only slower.
            Err(error) => tracing::warn!(%error, on = %on.display(), "one connection serves all"),
        }
        for point in [&mountpoint, &on] {
            if let Err(error) = widen_read_ahead(point) {
                tracing::debug!(%error, point = %point.display(), "read-ahead stays as it is");
            }
        }
    }
    let id = match mount_at(&mountpoint) {
        Ok(found) => found.map(|mounted| mounted.id),
        Err(error) => {
            tracing::debug!(%error, "cannot tell the mount from others");
            None
        }
    };
    if let (Some(guard), Some(id)) = (&mut guard, &id) {
        guard.watch(id);
    }
    drop(lock);
    tracing::debug!(mountpoint = %mountpoint.display(), "mounted");
    let stop = Arc::new(AtomicBool::new(false));
    let watcher = {
        let (tree, stop) = (Arc::clone(&tree), Arc::clone(&stop));
        thread::Builder::new()
            .name("pcocc-fs-watch".into())
            .spawn(move || {
                while !stop.load(Ordering::Acquire) {
                    tree.collect();
                    thread::sleep(WATCH);
                }
            })
    };
    let mut mounted = Mounted {
        mountpoint: mountpoint.clone(),
        sessions,
        guard,
        id,
        tree,
        cancel,
        stop,
        watcher: None,
    };
    mounted.watcher = Some(watcher.map_err(MountError::io("start a thread for", &mountpoint))?);
    Ok(mounted)
}

/// Lets the kernel read whole requests ahead. A file system may only ask for less than the usual 128 KB; more
/// is root's to say, where the kernel keeps what concerns the device (sysfs-class-bdi).
fn widen_read_ahead(mountpoint: &Path) -> Result<(), MountError> {
    let Some(mounted) = mount_at(mountpoint)? else {
        return Ok(());
    };
    let device = mounted.id.rsplit(' ').next().unwrap_or_default();
    let setting = Path::new("/sys/class/bdi")
        .join(device)
        .join("read_ahead_kb");
    let kilobytes = (MAX_REQUEST >> 10).to_string();
    fs::write(&setting, kilobytes).map_err(MountError::io("write", &setting))
}

/// Sees that the machine has FUSE, as the errors of a failed mount do not say what is missing.
fn check_fuse() -> Result<(), MountError> {
    let device = Path::new("/dev/fuse");
    match fs::OpenOptions::new().read(true).write(true).open(device) {
        Ok(_) => {}
        Err(error) => {
            return Err(MountError::Missing {
                what: format!(
                    "cannot open {}: {error}; FUSE file systems are not available to you here, ask \
                     the administrator (modprobe fuse, mode 0666 of /dev/fuse)",
                    device.display()
                ),
            });
        }
    }
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    match Command::new("fusermount3").arg("-V").output() {
        Ok(_) => Ok(()),
        Err(_) => Err(MountError::missing_helper()),
    }
}

fn explain(path: &Path, error: io::Error) -> MountError {
    match error.kind() {
        io::ErrorKind::NotFound => MountError::missing_helper(),
        _ => MountError::io("mount on", path)(error),
    }
}
