//! From the kernel's first program to a mounted root.
//!
//! Phases: kernel file systems → modules of the initramfs → squashfs root with an overlay in memory over it →
//! move into it → the root's own modules → data disk. Everything written outside `/data` is gone with the VM,
//! and so is `/data`: no journal, no flushes.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::mount::{MountFlags, mount, mount_move};
use rustix::process::{Resource, Rlimit, chdir, chroot, setrlimit};
use rustix::system::{RebootCommand, finit_module, reboot};

use crate::{Failure, say};

/// The disk with the root file system.
const ROOT_DISK: &str = "/dev/vda";
/// The disk for docker's data.
pub(crate) const DATA_DISK: &str = "/dev/vdb";
/// Modules to load, in order, one file name a line.
const MODULE_LIST: &str = "/modules/list";
/// Most open files, also the containers' default.
const MAX_FILES: u64 = 1 << 20;

/// Prepares the guest for its daemons.
pub(crate) fn run() -> Result<(), Failure> {
    file_system("proc", "/proc", "proc", "")?;
    file_system("sysfs", "/sys", "sysfs", "")?;
    file_system("devtmpfs", "/dev", "devtmpfs", "")?;
    load_modules()?;
    mount_root()?;
    for (kind, place, options) in [
        ("tmpfs", "/run", "mode=755"),
        ("tmpfs", "/tmp", "mode=1777"),
        ("devpts", "/dev/pts", "mode=620,gid=5,ptmxmode=666"),
        ("tmpfs", "/dev/shm", "mode=1777"),
        ("mqueue", "/dev/mqueue", ""),
        ("cgroup2", "/sys/fs/cgroup", ""),
    ] {
        file_system(kind, place, kind, options)?;
    }
    load_modules()?;
    for (link, target) in [
        ("/dev/fd", "/proc/self/fd"),
        ("/dev/stdin", "/proc/self/fd/0"),
        ("/dev/stdout", "/proc/self/fd/1"),
        ("/dev/stderr", "/proc/self/fd/2"),
    ] {
        std::os::unix::fs::symlink(target, link).map_err(Failure::of(format!("link {link}")))?;
    }
    wait_for(DATA_DISK)?;
    make_folder("/data")?;
    mount(DATA_DISK, "/data", "ext4", MountFlags::NOATIME, c"")
        .map_err(Failure::of("mount the data disk"))?;
    let files = Rlimit {
        current: Some(MAX_FILES),
        maximum: Some(MAX_FILES),
    };
    setrlimit(Resource::Nofile, files).map_err(Failure::of("raise the limit of open files"))
}

/// Turns the machine off; returns only when the kernel cannot.
pub(crate) fn power_off() {
    rustix::fs::sync();
    if let Err(error) = reboot(RebootCommand::PowerOff) {
        say(&format!("failed to power off: {error}"));
    }
}

/// Makes a folder and mounts a file system without a device on it.
fn file_system(source: &str, place: &str, kind: &str, options: &str) -> Result<(), Failure> {
    make_folder(place)?;
    let flags = MountFlags::NOSUID;
    let options = std::ffi::CString::new(options).unwrap_or_default();
    mount(source, place, kind, flags, &*options)
        .map_err(Failure::of(format!("mount {kind} on {place}")))
}

pub(crate) fn make_folder(path: impl AsRef<Path>) -> Result<(), Failure> {
    let path = path.as_ref();
    fs::create_dir_all(path).map_err(Failure::of(format!("make the folder {}", path.display())))
}

/// Loads the modules listed on the present root, and removes their files from the initramfs.
fn load_modules() -> Result<(), Failure> {
    let list = fs::read_to_string(MODULE_LIST).map_err(Failure::of(format!(
        "read the list of modules {MODULE_LIST}"
    )))?;
    for name in list.lines() {
        let path = Path::new("/modules").join(name);
        let file = fs::File::open(&path).map_err(Failure::of(format!("open the module {name}")))?;
        match finit_module(&file, c"", 0) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(Failure(format!("failed to load {name}: {error}"))),
        }
        // A file of the initramfs takes memory; on the root the overlay would only note the deletion.
        if !Path::new("/data").exists() {
            let _ = fs::remove_file(&path);
        }
    }
    Ok(())
}

fn wait_for(device: &str) -> Result<(), Failure> {
    let begun = Instant::now();
    while !Path::new(device).exists() {
        if begun.elapsed() > Duration::from_secs(20) {
            return Err(Failure(format!("the disk {device} does not appear")));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// Mounts the root disk below an overlay in memory, and makes that `/`.
fn mount_root() -> Result<(), Failure> {
    wait_for(ROOT_DISK)?;
    for folder in ["/disk", "/memory", "/root"] {
        make_folder(folder)?;
    }
    mount(ROOT_DISK, "/disk", "squashfs", MountFlags::RDONLY, c"")
        .map_err(Failure::of("mount the root disk"))?;
    mount(
        "tmpfs",
        "/memory",
        "tmpfs",
        MountFlags::empty(),
        c"mode=755",
    )
    .map_err(Failure::of("mount a tmpfs"))?;
    make_folder("/memory/upper")?;
    make_folder("/memory/work")?;
    let options = c"lowerdir=/disk,upperdir=/memory/upper,workdir=/memory/work";
    mount("root", "/root", "overlay", MountFlags::empty(), options)
        .map_err(Failure::of("lay a writable overlay over the root disk"))?;
    for folder in ["proc", "sys", "dev"] {
        let target = format!("/root/{folder}");
        make_folder(&target)?;
        mount_move(format!("/{folder}"), &target).map_err(Failure::of(format!("move {folder}")))?;
    }
    chdir("/root").map_err(Failure::of("enter the root"))?;
    mount_move(".", "/").map_err(Failure::of("move the root"))?;
    chroot(".").map_err(Failure::of("change to the root"))?;
    chdir("/").map_err(Failure::of("enter the root"))?;
    Ok(())
}
