//! Mounts the tree and takes it down again.
//!
//! Phases: the mount point is checked, and a stale mount on it (its process was killed) taken away →
//! fuser mounts, directly as root and through `fusermount3` otherwise → event loops answer requests, a
//! watcher looks after interrupted commits and abandoned copies → the mount is taken down, lazily when
//! someone still has it open, and commits under way are cancelled.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use fuser::{BackgroundSession, Config, MountOption, Session};
use pcocc_core::cancel::Cancel;
use pcocc_image::store::Store;
use rustix::io::Errno;
use rustix::mount::UnmountFlags;

use crate::fuse::Adapter;
use crate::tree::{Tree, TreeOptions};
use crate::workers::Workers;

/// Threads that take requests from the kernel.
const EVENT_LOOPS: usize = 3;

/// How often the watcher looks.
const WATCH: Duration = Duration::from_millis(100);

/// How long taking the mount down may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Type and source of our mounts, as `/proc/self/mountinfo` tells them: `fusermount3` gives the subtype,
/// mounting directly as root does not.
const OURS: [(&str, &str); 2] = [("fuse.pcocc", "pcocc"), ("fuse", "pcocc")];

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
}

impl std::fmt::Debug for MountOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MountOptions")
            .field("mountpoint", &self.mountpoint)
            .finish_non_exhaustive()
    }
}

/// Why the tree could not be mounted or unmounted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MountError {
    /// The mount point cannot be used.
    #[error("mount point {} {why}", path.display())]
    MountPoint {
        /// The folder.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        why: String,
    },
    /// The machine lacks something.
    #[error("{what}")]
    Missing {
        /// What, and what to do.
        what: String,
    },
    /// A system call failed.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

impl MountError {
    fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }

    fn point(path: &Path, why: impl Into<String>) -> Self {
        Self::MountPoint {
            path: path.to_owned(),
            why: why.into(),
        }
    }
}

/// A mounted tree; dropping it unmounts.
#[derive(Debug)]
pub struct Mounted {
    mountpoint: PathBuf,
    session: Option<BackgroundSession>,
    tree: Arc<Tree>,
    cancel: Cancel,
    stop: Arc<AtomicBool>,
    watcher: Option<JoinHandle<()>>,
}

impl Mounted {
    /// Serves until someone unmounts the tree or `cancel` is raised, then takes the mount down.
    pub fn wait(mut self, cancel: &Cancel) -> Result<(), MountError> {
        loop {
            let ended = self
                .session
                .as_ref()
                .is_none_or(|session| session.guard.is_finished());
            if ended || cancel.is_cancelled() {
                return self.end();
            }
            thread::sleep(WATCH);
        }
    }

    /// The tree that is mounted.
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    fn end(&mut self) -> Result<(), MountError> {
        self.cancel.cancel();
        self.tree.cancel_all();
        let Some(session) = self.session.take() else {
            return Ok(());
        };
        let mut result = Ok(());
        if !session.guard.is_finished() {
            result = unmount_now(&self.mountpoint);
            // Someone may still sit in the folder: then the mount is out of sight already, and goes
            // with the process.
            let until = Instant::now() + PATIENCE;
            while !session.guard.is_finished() && Instant::now() < until {
                thread::sleep(Duration::from_millis(10));
            }
        }
        if session.guard.is_finished() {
            if let Err(error) = session.join() {
                tracing::debug!(%error, "the mount ended with an error");
            }
        } else {
            // Dropping it would unmount whatever is mounted there by now.
            std::mem::forget(session);
        }
        self.stop.store(true, Ordering::Release);
        if let Some(watcher) = self.watcher.take()
            && watcher.join().is_err()
        {
            tracing::debug!("the watcher ended in an unforeseen way");
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
    let mountpoint = prepare(&options.mountpoint)?;
    check_fuse()?;
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
    let adapter = Adapter::new(Arc::clone(&tree), Workers::default());
    let session = Session::new(adapter, &mountpoint, &config)
        .and_then(Session::spawn)
        .map_err(|error| explain(&mountpoint, error))?;
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
        session: Some(session),
        tree,
        cancel,
        stop,
        watcher: None,
    };
    mounted.watcher = Some(watcher.map_err(MountError::io("start a thread for", &mountpoint))?);
    Ok(mounted)
}

/// Unmounts the tree at `mountpoint`, a stale one too.
pub fn unmount(mountpoint: &Path) -> Result<(), MountError> {
    let mountpoint = absolute(mountpoint)?;
    match mounted_type(&mountpoint)? {
        Some((kind, source)) if is_ours(&kind, &source) => unmount_now(&mountpoint),
        Some((kind, _)) => Err(MountError::point(
            &mountpoint,
            format!("holds another file system ({kind}); unmount it with umount"),
        )),
        None => Err(MountError::point(&mountpoint, "has nothing mounted on it")),
    }
}

/// Checks the mount point and takes a stale mount off it.
fn prepare(path: &Path) -> Result<PathBuf, MountError> {
    let path = absolute(path)?;
    if let Some((kind, source)) = mounted_type(&path)? {
        // The kernel may still know the attributes of a folder whose process is gone; listing asks.
        let stale = matches!(fs::read_dir(&path), Err(error) if [
            Some(Errno::NOTCONN.raw_os_error()),
            Some(Errno::CONNABORTED.raw_os_error()),
        ].contains(&error.raw_os_error()));
        if !is_ours(&kind, &source) {
            return Err(MountError::point(
                &path,
                format!("holds another file system ({kind}); choose an empty folder"),
            ));
        }
        if !stale {
            return Err(MountError::point(
                &path,
                "is mounted already; use it, or unmount it first",
            ));
        }
        tracing::info!(mountpoint = %path.display(), "a stale mount is replaced");
        unmount_now(&path)?;
    }
    match fs::metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(MountError::point(&path, "does not exist; create it first"));
        }
        Err(error) => return Err(MountError::io("look at", &path)(error)),
        Ok(found) if !found.is_dir() => {
            return Err(MountError::point(&path, "is not a folder"));
        }
        Ok(_) => {}
    }
    let mut names = fs::read_dir(&path).map_err(MountError::io("list", &path))?;
    if names.next().is_some() {
        return Err(MountError::point(
            &path,
            "is not empty; choose an empty folder",
        ));
    }
    Ok(path)
}

/// Resolves everything but the last name, which may be a mount point that does not answer.
fn absolute(path: &Path) -> Result<PathBuf, MountError> {
    let full = std::path::absolute(path).map_err(MountError::io("find", path))?;
    match (full.parent(), full.file_name()) {
        (Some(parent), Some(name)) => {
            let parent = parent
                .canonicalize()
                .map_err(MountError::io("find", parent))?;
            let candidate = parent.join(name);
            match fs::symlink_metadata(&candidate) {
                Ok(found) if found.is_symlink() => candidate
                    .canonicalize()
                    .map_err(MountError::io("find", &candidate)),
                _ => Ok(candidate),
            }
        }
        _ => Err(MountError::point(&full, "cannot be mounted on")),
    }
}

fn is_ours(kind: &str, source: &str) -> bool {
    OURS.contains(&(kind, source))
}

/// Type and source of the file system mounted exactly at `path` (proc_pid_mountinfo(5)).
fn mounted_type(path: &Path) -> Result<Option<(String, String)>, MountError> {
    let table = Path::new("/proc/self/mountinfo");
    let text = fs::read(table).map_err(MountError::io("read", table))?;
    let mut found = None;
    for line in text.split(|byte| *byte == b'\n') {
        let mut fields = line.split(|byte| *byte == b' ');
        let Some(point) = fields.nth(4) else { continue };
        if unescape(point) != path.as_os_str().as_bytes() {
            continue;
        }
        let mut named = fields
            .skip_while(|field| *field != b"-")
            .skip(1)
            .map(|field| String::from_utf8_lossy(field).into_owned());
        // The last one covers the others.
        found = named.next().zip(named.next());
    }
    Ok(found)
}

/// Undoes the octal escapes of mountinfo.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        let octal = (*first == b'\\')
            .then(|| tail.get(..3))
            .flatten()
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match octal {
            Some(byte) => {
                plain.push(byte);
                rest = tail.get(3..).unwrap_or_default();
            }
            None => {
                plain.push(*first);
                rest = tail;
            }
        }
    }
    plain
}

/// Takes a mount out of sight at once, also when someone still has it open.
fn unmount_now(path: &Path) -> Result<(), MountError> {
    match rustix::mount::unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        Ok(()) => return Ok(()),
        Err(Errno::PERM) => {}
        // Nothing is mounted there any more.
        Err(Errno::INVAL) => return Ok(()),
        Err(error) => return Err(MountError::io("unmount", path)(error.into())),
    }
    let output = Command::new("fusermount3")
        .args(["-u", "-z", "--"])
        .arg(path)
        .output()
        .map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => missing_helper(),
            _ => MountError::io("run fusermount3 for", path)(error),
        })?;
    if output.status.success() || mounted_type(path)?.is_none() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(MountError::point(
        path,
        format!("cannot be unmounted: {text}"),
    ))
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
        Err(_) => Err(missing_helper()),
    }
}

fn missing_helper() -> MountError {
    MountError::Missing {
        what:
            "fusermount3 was not found; ordinary users mount through it: install the package fuse3"
                .into(),
    }
}

fn explain(path: &Path, error: io::Error) -> MountError {
    match error.kind() {
        io::ErrorKind::NotFound => missing_helper(),
        _ => MountError::io("mount on", path)(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_of_mountinfo_are_undone() {
        assert_eq!(unescape(br"/a\040b\134c"), br"/a b\c");
        assert_eq!(unescape(br"/a\9"), br"/a\9");
    }

    #[test]
    fn a_mount_point_that_cannot_be_one_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        for (path, why) in [
            (file, "is not a folder"),
            (folder.path().join("none"), "does not exist"),
            (folder.path().to_owned(), "is not empty"),
            ("/proc".into(), "holds another file system"),
        ] {
            let error = prepare(&path).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
        let error = unmount(folder.path()).unwrap_err().to_string();
        assert!(error.contains("nothing mounted"), "{error}");
    }
}
