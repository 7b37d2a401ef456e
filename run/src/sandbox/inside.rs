//! The first process of a container: mounts everything, starts the command and waits for it.
//!
//! Phases: dies with its starter from now on → user and group numbers → the image's root file system, from a
//! FUSE device that the starter serves → everything else below it → it becomes the root, and the host's
//! file systems are gone → the command is started → signals are handed on and children buried until the
//! command has ended. In a process namespace this process is number 1, and all others die with it.

use std::ffi::{CString, c_int};
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use pcocc_core::containers::Namespace;
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::mount::{MountFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags};
use rustix::process::{Pid, Signal, WaitOptions};

use super::FAILED;
use super::channel::{Channel, Message};
use super::command;
use super::descendants::Descendants;
use super::own::{self, Ids};
use super::prepare::Target;
use super::sys;
use crate::mount::Source;
use crate::plan::Plan;

/// Folders that the root file system may be put on until it is the root: each is on every machine.
const BASES: [&str; 4] = ["/tmp", "/mnt", "/media", "/opt"];

/// What the host's `/dev` must have for a program to feel at home.
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// Links in `/dev`, and where they lead.
const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// Tells the first process that its starter is gone, where it has others to end. Nobody else sends it.
const ORPHANED: Signal = Signal::POWER;

/// Parts of `/proc` through which root, even without any capability, could change the machine.
const KERNEL: [&str; 5] = ["sys", "sysrq-trigger", "irq", "bus", "fs"];

/// Why a container cannot be set up, and the exit code of that.
#[derive(Debug)]
pub(super) struct Stop {
    pub(super) code: u8,
    pub(super) text: String,
}

impl Stop {
    pub(super) fn new(code: u8, text: impl Into<String>) -> Self {
        Self {
            code,
            text: text.into(),
        }
    }
}

/// Says what failed.
fn failed<E: Into<io::Error>>(what: impl std::fmt::Display) -> impl FnOnce(E) -> Stop {
    move |error| Stop::new(FAILED, format!("{what}: {}", error.into()))
}

/// What the first process needs to know.
#[derive(Debug)]
pub(super) struct Inside<'a> {
    pub(super) plan: &'a Plan,
    pub(super) targets: &'a [Target],
    /// User and group, the same inside as outside.
    pub(super) ids: Ids,
    pub(super) program: &'a Path,
    /// Signals that keep being ignored.
    pub(super) ignored: &'a [c_int],
    /// Signals are held back until the command takes its place.
    pub(super) blocked: &'a sys::Blocked,
}

impl Inside<'_> {
    /// Runs the container, and ends this process with the command's exit code.
    pub(super) fn run(&self, channel: Channel) -> ! {
        let starter = rustix::process::getppid();
        let code = match self.start(&channel) {
            Ok((command, descendants)) => {
                // The starter sees by this that the command runs.
                drop(channel);
                let code = wait_for(command, starter);
                if let Some(descendants) = descendants {
                    // What is left becomes the starter's, who goes on with it.
                    let _ = descendants.end();
                }
                code
            }
            Err(stop) => {
                // A starter that is gone has no use for it.
                let _ = channel.send(&Message::Failed(stop.code, stop.text));
                stop.code
            }
        };
        sys::exit_now(code)
    }

    /// Gives the command, and the care for those it leaves behind, where that is not the namespace's.
    fn start(&self, channel: &Channel) -> Result<(Pid, Option<Descendants>), Stop> {
        let what = "cannot arrange to end with pcocc";
        let (signal, descendants) = match self.has(Namespace::Pid) {
            true => (Signal::KILL, None),
            false => (ORPHANED, Some(Descendants::adopt().map_err(failed(what))?)),
        };
        rustix::process::set_parent_process_death_signal(Some(signal)).map_err(failed(what))?;
        own::settle(self.ids).map_err(|error| self.refused(error))?;
        // Before anything is hidden by a mount.
        let sources = self.take_sources()?;
        let devices = take_devices();
        let root = self.mount_root(channel)?;
        for (target, source) in self.targets.iter().zip(&sources) {
            self.mount(&root, target, source.as_ref(), &devices)?;
        }
        drop((sources, devices));
        let terminal = match self.plan.pty {
            true => Some(self.terminal(&root, channel)?),
            false => None,
        };
        root.become_root()?;
        match sys::fork().map_err(failed("cannot start a process"))? {
            Some(command) => Ok((command, descendants)),
            None => {
                let stop = command::start(self, terminal, channel);
                let _ = channel.send(&Message::Failed(stop.code, stop.text));
                sys::exit_now(stop.code)
            }
        }
    }

    fn refused(&self, error: impl Into<io::Error>) -> Stop {
        let why = super::refusal::Knobs::read().explain(&error.into(), self.program);
        Stop::new(FAILED, why)
    }

    /// Takes what is mounted from the host, each with its attributes, before the image hides some of it.
    fn take_sources(&self) -> Result<Vec<Option<OwnedFd>>, Stop> {
        let take = |target: &Target| {
            let options = &target.mount.options;
            let path = match &target.mount.source {
                Source::Bind(path) => path.as_path(),
                Source::Sys => Path::new("/sys"),
                Source::Proc if !self.has(Namespace::Pid) => Path::new("/proc"),
                Source::Queues if !self.has(Namespace::Ipc) => Path::new("/dev/mqueue"),
                _ => return Ok(None),
            };
            let mut attributes = libc::MOUNT_ATTR_NOSUID;
            for (wanted, attribute) in [
                (!options.devices, libc::MOUNT_ATTR_NODEV),
                (options.no_exec, libc::MOUNT_ATTR_NOEXEC),
                (options.read_only, libc::MOUNT_ATTR_RDONLY),
            ] {
                if wanted {
                    attributes |= attribute;
                }
            }
            if target.mount.source == Source::Sys {
                attributes |= libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOEXEC;
            }
            match take(path, attributes) {
                Ok(taken) => Ok(Some(taken)),
                // Machines without queues do not miss them.
                Err(error)
                    if target.mount.source == Source::Queues
                        && error.kind() == io::ErrorKind::NotFound =>
                {
                    Ok(None)
                }
                Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => {
                    Err(Stop::new(FAILED, "the kernel is older than Linux 5.12"))
                }
                Err(error) => Err(failed(format!("cannot mount {}", path.display()))(error)),
            }
        };
        self.targets.iter().map(take).collect()
    }

    fn has(&self, namespace: Namespace) -> bool {
        self.plan.namespaces.contains(&namespace)
    }

    /// Mounts the root file system on a folder of the host's that only this container sees so.
    fn mount_root(&self, channel: &Channel) -> Result<Root, Stop> {
        let device = own::open_device().map_err(|error| Stop::new(FAILED, error.to_string()))?;
        let base = BASES
            .iter()
            .map(Path::new)
            .find(|base| base.is_dir())
            .ok_or_else(|| Stop::new(FAILED, "this machine has no /tmp"))?;
        own::mount_image(&device, base, self.ids).map_err(|error| self.refused(error))?;
        channel
            .send(&Message::Device(device))
            .map_err(failed("cannot reach pcocc"))?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = rustix::fs::open(base, flags, Mode::empty())
            .map_err(failed("cannot open the image"))?;
        Ok(Root {
            folder,
            base: base.to_owned(),
        })
    }

    fn mount(
        &self,
        root: &Root,
        target: &Target,
        source: Option<&OwnedFd>,
        devices: &[(&str, OwnedFd)],
    ) -> Result<(), Stop> {
        let mount = &target.mount;
        let destination = mount.destination.as_path();
        let place = root.place(target)?;
        let on = through_proc(&place);
        let what = || format!("cannot mount on {}", destination.display());
        let mut flags = MountFlags::NOSUID;
        if mount.options.no_exec {
            flags |= MountFlags::NOEXEC;
        }
        let safe = flags | MountFlags::NODEV | MountFlags::NOEXEC;
        let data = CString::new(mount.options.data.join(",")).map_err(failed(what()))?;
        if let Some(source) = source {
            put(source, &place).map_err(failed(what()))?;
            if mount.source == Source::Proc {
                self.guard_kernel(root)?;
            }
            return Ok(());
        }
        match &mount.source {
            Source::Tmpfs => {
                let mut flags = flags | MountFlags::NODEV;
                if mount.options.read_only {
                    flags |= MountFlags::RDONLY;
                }
                rustix::mount::mount("tmpfs", &on, "tmpfs", flags, &*data)
                    .map_err(failed(what()))?;
            }
            Source::Proc => {
                rustix::mount::mount("proc", &on, "proc", safe, None).map_err(|error| {
                    Stop::new(
                        FAILED,
                        format!(
                            "{}: {}; inside of another container, whose /proc is covered in parts, say \
                             `ns: [mount]` in containers.yaml",
                            what(),
                            io::Error::from(error)
                        ),
                    )
                })?;
                self.guard_kernel(root)?;
            }
            Source::Devices => {
                rustix::mount::mount("tmpfs", &on, "tmpfs", MountFlags::NOSUID, c"mode=755")
                    .map_err(failed(what()))?;
                fill_devices(root, destination, devices).map_err(failed(what()))?;
            }
            Source::Terminals => {
                let flags = MountFlags::NOSUID | MountFlags::NOEXEC;
                let data = c"newinstance,ptmxmode=0666,mode=620";
                rustix::mount::mount("devpts", &on, "devpts", flags, data)
                    .map_err(failed(what()))?;
            }
            Source::Queues if self.has(Namespace::Ipc) => {
                rustix::mount::mount("mqueue", &on, "mqueue", safe, None)
                    .map_err(failed(what()))?;
            }
            // What the host does not have.
            Source::Queues | Source::Bind(_) | Source::Sys => {}
        }
        Ok(())
    }

    /// Keeps the machine's root from changing the machine by way of `/proc`.
    fn guard_kernel(&self, root: &Root) -> Result<(), Stop> {
        if self.ids.0 != 0 {
            return Ok(());
        }
        for name in KERNEL {
            let path = Path::new("/proc").join(name);
            let what = || format!("cannot protect {}", path.display());
            let guard = || -> io::Result<()> {
                let place = root.open(&path)?;
                put(&take_at(&place, libc::MOUNT_ATTR_RDONLY)?, &place)
            };
            match guard() {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                result => result.map_err(failed(what()))?,
            }
        }
        Ok(())
    }

    /// Makes a pseudo terminal of the container's, and gives its near end to the starter.
    fn terminal(&self, root: &Root, channel: &Channel) -> Result<OwnedFd, Stop> {
        let what = "cannot make a terminal";
        let master = root
            .open(Path::new("/dev/pts/ptmx"))
            .map_err(failed(what))?;
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let master =
            rustix::fs::open(through_proc(&master), flags, Mode::empty()).map_err(failed(what))?;
        let far = sys::open_terminal(master.as_fd()).map_err(failed(what))?;
        channel
            .send(&Message::Terminal(master))
            .map_err(failed(what))?;
        Ok(far)
    }
}

/// The root file system while it is still a folder.
#[derive(Debug)]
struct Root {
    folder: OwnedFd,
    base: PathBuf,
}

impl Root {
    /// Opens a path of the container as a place; links in what was mounted already do not lead out of it.
    fn open(&self, path: &Path) -> io::Result<OwnedFd> {
        let path = path.strip_prefix("/").unwrap_or(path);
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let found = rustix::fs::openat2(&self.folder, path, flags, Mode::empty(), resolve);
        Ok(found?)
    }

    /// Opens the place of a mount, made when it is on a file system in memory.
    fn place(&self, target: &Target) -> Result<OwnedFd, Stop> {
        let path = target.mount.destination.as_path();
        let what = || format!("cannot mount on {}", path.display());
        match self.open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && target.can_make => {
                self.make(path, target.is_folder).map_err(failed(what()))?;
                self.open(path).map_err(failed(what()))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Stop::new(
                FAILED,
                format!(
                    "{}: it is not there in the folder of the host that is mounted around it; make it \
                     there first",
                    what()
                ),
            )),
            result => result.map_err(failed(what())),
        }
    }

    fn make(&self, path: &Path, is_folder: bool) -> io::Result<()> {
        let mut missing = Vec::new();
        let mut above = path;
        let mut folder = loop {
            let (Some(parent), Some(name)) = (above.parent(), above.file_name()) else {
                return Err(io::ErrorKind::InvalidInput.into());
            };
            missing.push(name);
            above = parent;
            match self.open(above) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                result => break result?,
            }
        };
        while let Some(name) = missing.pop() {
            let mode = Mode::from_raw_mode(0o755);
            if missing.is_empty() && !is_folder {
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
                rustix::fs::openat(&folder, name, flags, mode)?;
                break;
            }
            rustix::fs::mkdirat(&folder, name, mode)?;
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            folder = rustix::fs::openat(&folder, name, flags, Mode::empty())?;
        }
        Ok(())
    }

    /// Makes it the root of this process, and lets go of the host's.
    fn become_root(self) -> Result<(), Stop> {
        let what = "cannot enter the image";
        rustix::process::fchdir(&self.folder).map_err(failed(what))?;
        match rustix::process::pivot_root(".", ".") {
            Ok(()) => rustix::mount::unmount(".", UnmountFlags::DETACH).map_err(failed(what))?,
            // The host's root is its boot medium, which cannot be put elsewhere: it is covered.
            Err(rustix::io::Errno::INVAL) => {
                rustix::mount::mount_move(&self.base, "/").map_err(failed(what))?;
                rustix::process::chroot(".").map_err(failed(what))?;
            }
            Err(error) => return Err(failed(what)(error)),
        }
        rustix::process::chdir("/").map_err(failed(what))
    }
}

/// A path that leads to an open file, whatever was mounted in between.
fn through_proc(file: &impl AsRawFd) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

/// Takes what is at `path` on the host, with all that is mounted below it, and gives it attributes.
fn take(path: &Path, attributes: u64) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    take_at(&rustix::fs::open(path, flags, Mode::empty())?, attributes)
}

fn take_at(place: &OwnedFd, attributes: u64) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE
        | OpenTreeFlags::AT_EMPTY_PATH;
    let taken = rustix::mount::open_tree(place, c"", flags)?;
    if attributes != 0 {
        sys::set_mount_attributes(taken.as_fd(), attributes)?;
    }
    Ok(taken)
}

/// Mounts what was taken on a place in the container.
fn put(taken: &OwnedFd, place: &OwnedFd) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(rustix::mount::move_mount(taken, c"", place, c"", flags)?)
}

/// The host's device files, those that there are.
fn take_devices() -> Vec<(&'static str, OwnedFd)> {
    let take = |name: &'static str| {
        let path = Path::new("/dev").join(name);
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let file = rustix::fs::open(&path, flags, Mode::empty()).ok()?;
        let kind = FileType::from_raw_mode(rustix::fs::fstat(&file).ok()?.st_mode);
        let taken = take_at(&file, 0).ok()?;
        (kind == FileType::CharacterDevice).then_some((name, taken))
    };
    DEVICES.into_iter().filter_map(take).collect()
}

fn fill_devices(root: &Root, path: &Path, devices: &[(&str, OwnedFd)]) -> io::Result<()> {
    let folder = root.open(path)?;
    for name in ["pts", "shm", "mqueue"] {
        rustix::fs::mkdirat(&folder, name, Mode::from_raw_mode(0o755))?;
    }
    for (name, target) in LINKS {
        rustix::fs::symlinkat(target, &folder, name)?;
    }
    for (name, device) in devices {
        let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
        let place = rustix::fs::openat(&folder, *name, flags, Mode::from_raw_mode(0o666))?;
        put(device, &place)?;
    }
    Ok(())
}

/// Hands signals on to the command, and buries all children, until the command has ended; gives its exit
/// code.
fn wait_for(command: Pid, starter: Option<Pid>) -> u8 {
    loop {
        loop {
            match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) if pid == command => {
                    return exit_code(status.as_raw() as c_int);
                }
                Ok(Some(_)) => {}
                // No child is left, or none has ended.
                Ok(None) | Err(_) => break,
            }
        }
        match sys::next_signal() {
            Ok((libc::SIGCHLD, _)) | Err(_) => {}
            Ok(_) if rustix::process::getppid() != starter => {
                return exit_code(Signal::KILL.as_raw());
            }
            // The terminal told the command as well.
            Ok((_, false)) => {}
            Ok((signal, true)) => {
                if let Some(signal) = Signal::from_named_raw(signal) {
                    // It may have ended just now.
                    let _ = rustix::process::kill_process(command, signal);
                }
            }
        }
    }
}

/// The exit code of a process that ended with `status`: 128 and the signal's number when one ended it.
pub(super) fn exit_code(status: c_int) -> u8 {
    match (libc::WIFEXITED(status), libc::WIFSIGNALED(status)) {
        (true, _) => libc::WEXITSTATUS(status) as u8,
        (_, true) => 128 + libc::WTERMSIG(status) as u8,
        _ => FAILED,
    }
}

/// The program file a name stands for in the container: found in `path`, the variable PATH, unless it has
/// a slash. Fails with the exit code that docker gives.
pub(super) fn find_program(
    name: &std::ffi::OsStr,
    path: Option<&std::ffi::OsStr>,
) -> Result<PathBuf, Stop> {
    let shown = name.to_string_lossy();
    if name.as_bytes().contains(&b'/') {
        return Ok(PathBuf::from(name));
    }
    let mut refused = None;
    for folder in path.map(std::env::split_paths).into_iter().flatten() {
        // An empty part is the current folder; a container is no place for surprises.
        if !folder.is_absolute() {
            continue;
        }
        let file = folder.join(name);
        match fs::metadata(&file) {
            Ok(found) if found.is_file() => {
                match rustix::fs::accessat(
                    CWD,
                    &file,
                    rustix::fs::Access::EXEC_OK,
                    rustix::fs::AtFlags::empty(),
                ) {
                    Ok(()) => return Ok(file),
                    Err(_) => refused = refused.or(Some(file)),
                }
            }
            _ => {}
        }
    }
    Err(match refused {
        Some(file) => Stop::new(
            super::NOT_EXECUTABLE,
            format!("{} is not executable in the image", file.display()),
        ),
        None => Stop::new(
            super::NOT_FOUND,
            format!(
                "there is no {shown:?} in the image's PATH ({})",
                path.map(|path| path.to_string_lossy()).unwrap_or_default()
            ),
        ),
    })
}
