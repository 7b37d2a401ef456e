//! Mounts and unmounts the tree.
//!
//! Phases: the mount point is checked, and a stale mount (of a killed process) is unmounted → a guard starts,
//! which unmounts if this process is killed → fuser mounts the tree, directly as root and through `fusermount3`
//! otherwise. As root, the root file systems get a mount of their own on the folder `rootfs` ([`Roots`]); for
//! other users `fusermount3` would do this, and the tree would not admit it → event loops answer requests, a
//! watcher stops interrupted commits and removes abandoned copies → the tree is unmounted, lazily if a process
//! uses it, and running commits are cancelled.

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

/// Interval of the watcher.
const WATCH: Duration = Duration::from_millis(100);

/// Longest time for unmounting.
const PATIENCE: Duration = Duration::from_secs(2);

/// Interval at which the mount checks whether it is still in its place.
const PRESENCE: Duration = Duration::from_secs(1);

/// What is mounted, and where.
pub struct MountOptions {
    /// The empty folder the tree appears in.
    pub mountpoint: PathBuf,
    /// The daemon whose images are under `docker/`.
    pub docker: Option<Arc<dyn Store>>,
    /// The repositories under `repo/`, by name.
    pub repositories: Vec<(String, Arc<dyn Store>)>,
    /// Whether `rm -r` of an image folder removes the image.
    pub allow_delete: bool,
    /// An existing folder on a local disk, for images that are being copied in.
    pub staging_dir: PathBuf,
    /// Starts a process that runs [`crate::guard::guard`] on its standard input. Without a guard, the mount
    /// stays when this process is killed.
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
    /// The sessions of the tree and perhaps of its root file systems; none after their end.
    sessions: Vec<BackgroundSession>,
    guard: Option<Guard>,
    /// The mount's ID, if it is known.
    id: Option<String>,
    tree: Arc<Tree>,
    cancel: Cancel,
    stop: Arc<AtomicBool>,
    watcher: Option<JoinHandle<()>>,
}

impl Mounted {
    /// Serves until the tree is unmounted or `cancel` is raised; then unmounts.
    pub fn wait(mut self, cancel: &Cancel) -> Result<(), MountError> {
        let mut looked = Instant::now();
        let why = loop {
            let ended = self
                .sessions
                .first()
                .is_none_or(|session| session.guard.is_finished());
            // A mount that was detached while in use ends for the kernel only with its last user.
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

    /// Whether the mount point shows this mount.
    fn is_in_place(&self) -> bool {
        match (mount_at(&self.mountpoint), &self.id) {
            (Ok(found), Some(id)) => found.is_some_and(|mounted| mounted.id == *id),
            // Unknown counts as in place.
            _ => true,
        }
    }

    /// The mounted tree.
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
            // This unmounts `rootfs` as well.
            result = unmount_now(&self.mountpoint);
        }
        // A process may still have the folder open: the mount is out of sight already, and ends with this
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
                // Dropping the session would unmount whatever is mounted there by now.
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
                // The guard tries once more after the end of this process.
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

/// Mounts the tree. The tree answers from the moment of return: the caller reports it then.
pub fn mount(options: MountOptions) -> Result<Mounted, MountError> {
    let (mountpoint, lock) = prepare(&options.mountpoint)?;
    check_fuse()?;
    // Before the mount: the guard must not inherit the connection, which would keep the mount alive.
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
            // The tree shows root file systems as well, only slower.
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

/// Lets the kernel read ahead whole requests. A file system can only ask for less than the usual 128 KB; root
/// can set more, in the folder of the device (sysfs-class-bdi).
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

/// Checks that the machine has FUSE: the errors of a failed mount do not say what is missing.
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
