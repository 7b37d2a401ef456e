//! The first process of a container: mounts everything, starts the command and waits for it.
//!
//! Phases: arrange to end with the starter → map user and group → mount the image from a FUSE device that the starter
//! serves → mount everything else below it → make it the root and detach the host's file systems → start the
//! command → forward signals and reap children until the command ends. In a process namespace this process is number 1,
//! and the kernel ends all others with it.

use std::ffi::{CString, c_int};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use pcocc_core::containers::Namespace;
use rustix::fs::{Mode, OFlags};
use rustix::mount::MountFlags;
use rustix::process::{Pid, Signal, WaitOptions};

use super::FAILED;
use super::channel::{Channel, Message};
use super::command;
use super::descendants::Descendants;
use super::namespace::{self, Ids};
use super::prepare::Target;
use super::root::{
    Root, attach, clone_devices, clone_mount, clone_mount_at, fill_devices, through_proc,
};
use super::stop::{Stop, failed};
use super::sys;
use crate::mount::Source;
use crate::plan::Plan;

/// Folders for the root file system until it becomes the root; every machine has them.
const BASES: [&str; 4] = ["/tmp", "/mnt", "/media", "/opt"];

/// The signal by which the kernel tells the first process that its starter is gone. Nothing else sends it.
const ORPHANED: Signal = Signal::POWER;

/// Parts of `/proc` through which root, even without any capability, could change the machine.
const KERNEL: [&str; 5] = ["sys", "sysrq-trigger", "irq", "bus", "fs"];

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
                    // Processes that are left become children of the starter, which ends them.
                    let _ = descendants.end();
                }
                code
            }
            Err(stop) => {
                // The starter may be gone.
                let _ = channel.send(&Message::Failed(stop.code, stop.text));
                stop.code
            }
        };
        sys::exit_now(code)
    }

    /// Starts the command; without a process namespace, also gives the descendants to end after it.
    fn start(&self, channel: &Channel) -> Result<(Pid, Option<Descendants>), Stop> {
        let what = "cannot arrange to end with pcocc";
        let (signal, descendants) = match self.has(Namespace::Pid) {
            true => (Signal::KILL, None),
            false => (ORPHANED, Some(Descendants::adopt().map_err(failed(what))?)),
        };
        rustix::process::set_parent_process_death_signal(Some(signal)).map_err(failed(what))?;
        namespace::set_up(self.ids).map_err(|error| self.refused(error))?;
        // Before anything is hidden by a mount.
        let sources = self.clone_sources()?;
        let devices = clone_devices();
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
                let stop = command::start(self.plan, self.ignored, self.blocked, terminal, channel);
                let _ = channel.send(&Message::Failed(stop.code, stop.text));
                sys::exit_now(stop.code)
            }
        }
    }

    fn refused(&self, error: impl Into<io::Error>) -> Stop {
        let why = super::refusal::Knobs::read().explain(&error.into(), self.program);
        Stop::new(FAILED, why)
    }

    /// Clones the host's mounts of the plan, each with its attributes, before the image hides them.
    fn clone_sources(&self) -> Result<Vec<Option<OwnedFd>>, Stop> {
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
            match clone_mount(path, attributes) {
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

    /// Mounts the root file system on a folder of the host, for this container alone.
    fn mount_root(&self, channel: &Channel) -> Result<Root, Stop> {
        let device =
            namespace::open_device().map_err(|error| Stop::new(FAILED, error.to_string()))?;
        let base = BASES
            .iter()
            .map(Path::new)
            .find(|base| base.is_dir())
            .ok_or_else(|| Stop::new(FAILED, "this machine has no /tmp"))?;
        namespace::mount_image(&device, base, self.ids).map_err(|error| self.refused(error))?;
        channel
            .send(&Message::Device(device))
            .map_err(failed("cannot reach pcocc"))?;
        Root::new(base)
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
            attach(source, &place).map_err(failed(what()))?;
            if mount.source == Source::Proc {
                self.guard_kernel(root)?;
            }
            return Ok(());
        }
        let mount_new = |kind: &str, flags, data| {
            rustix::mount::mount(kind, &on, kind, flags, data).map_err(io::Error::from)
        };
        match &mount.source {
            Source::Tmpfs => {
                let mut flags = flags | MountFlags::NODEV;
                if mount.options.read_only {
                    flags |= MountFlags::RDONLY;
                }
                mount_new("tmpfs", flags, Some(&*data)).map_err(failed(what()))?;
            }
            Source::Proc => {
                mount_new("proc", safe, None).map_err(|error| {
                    let why = format!(
                        "{}: {error}; inside of another container, whose /proc is covered in parts, say \
                         `ns: [mount]` in containers.yaml",
                        what()
                    );
                    Stop::new(FAILED, why)
                })?;
                self.guard_kernel(root)?;
            }
            Source::Devices => {
                let mounted = mount_new("tmpfs", MountFlags::NOSUID, Some(c"mode=755"));
                let filled = mounted.and_then(|()| fill_devices(root, destination, devices));
                filled.map_err(failed(what()))?;
            }
            Source::Terminals => {
                let flags = MountFlags::NOSUID | MountFlags::NOEXEC;
                let data = c"newinstance,ptmxmode=0666,mode=620";
                mount_new("devpts", flags, Some(data)).map_err(failed(what()))?;
            }
            Source::Queues if self.has(Namespace::Ipc) => {
                mount_new("mqueue", safe, None).map_err(failed(what()))?;
            }
            // What the host does not have.
            Source::Queues | Source::Bind(_) | Source::Sys => {}
        }
        Ok(())
    }

    /// Makes the parts of `/proc` read-only through which root could change the machine.
    fn guard_kernel(&self, root: &Root) -> Result<(), Stop> {
        if self.ids.0 != 0 {
            return Ok(());
        }
        for name in KERNEL {
            let path = Path::new("/proc").join(name);
            let what = || format!("cannot protect {}", path.display());
            let guard = || -> io::Result<()> {
                let place = root.open(&path)?;
                attach(&clone_mount_at(&place, libc::MOUNT_ATTR_RDONLY)?, &place)
            };
            match guard() {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                result => result.map_err(failed(what()))?,
            }
        }
        Ok(())
    }

    /// Makes a pseudo terminal in the container and sends its near end to the starter.
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

/// Forwards signals to the command and reaps children until the command ends; gives its exit code.
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
            // The terminal sent the signal to the command as well.
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
