//! QEMU's command line, built by a pure function.
//!
//! The machine that the guest sees (CPUs, memory, devices and their slots on the bus) is the same for a cold boot and for a
//! resume, or the resume would fail: only files, sockets and the state of the memory differ. All shares are plugged in from
//! the start, because the folder behind a 9p device may change between boot and resume until the device is mounted.

use std::ffi::{OsStr, OsString};
use std::net::SocketAddr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use pcocc_guest::protocol::{CONTROL_PORT, ENDPOINT_PORT};

use super::accel::Accelerator;
use crate::machine::{GuestFiles, MAX_SHARES};

/// The guest's network, a range of addresses that no site uses (RFC 2544).
pub(crate) const GUEST_NET: &str = "198.18.0.0/24";
/// The guest's address in it.
pub(crate) const GUEST_ADDRESS: &str = "198.18.0.15";
/// The guest's gateway: QEMU itself.
pub(crate) const GUEST_GATEWAY: &str = "198.18.0.2";

/// The values of the command line.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options<'a> {
    /// Number of virtual CPUs.
    pub(crate) cpus: u32,
    /// Memory in MiB.
    pub(crate) memory_mib: u64,
    /// The accelerator.
    pub(crate) accelerator: Accelerator,
    /// The guest's files.
    pub(crate) image: &'a GuestFiles,
    /// Where the guest's memory is.
    pub(crate) memory: Memory<'a>,
    /// The data disk.
    pub(crate) data: &'a Path,
    /// Folder of the sockets.
    pub(crate) sockets: &'a Path,
    /// How the docker endpoint is reached from outside.
    pub(crate) forward: Forward,
    /// The folder behind each share, and whether it may only be read; at most [`MAX_SHARES`].
    pub(crate) shares: &'a [(&'a Path, bool)],
    /// An empty folder, behind the shares that are not used.
    pub(crate) nothing: &'a Path,
}

/// How the docker endpoint is reached from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Forward {
    /// Through the namespace.
    Namespace,
    /// QEMU itself listens on the node, and lets nothing out.
    Direct(SocketAddr),
}

/// Where the guest's memory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Memory<'a> {
    /// Nowhere but in the process.
    Anonymous,
    /// In a file that keeps it: to be saved.
    Kept(&'a Path),
    /// A copy-on-write mapping of a saved file, with the machine's state to come.
    Resumed(&'a Path),
}

/// Name of QEMU's own control socket below the folder of the sockets.
pub(crate) const QMP_SOCKET: &str = "qmp";
/// Name of the console's socket below the folder of the sockets.
pub(crate) const CONSOLE_SOCKET: &str = "console";
/// Name of the agent's socket below the folder of the sockets.
pub(crate) const CONTROL_SOCKET: &str = "control";

/// Tag by which the guest mounts a share.
pub(crate) fn share_tag(index: usize) -> String {
    format!("share{index}")
}

/// Builds the arguments, without the program's name.
pub(crate) fn arguments(options: &Options<'_>) -> Vec<OsString> {
    let mut line = Line::default();
    let Options {
        cpus, memory_mib, ..
    } = options;
    line.flags(&["-nodefaults", "-no-user-config", "-no-reboot", "-S"]);
    line.pair("-display", "none");
    line.pair(
        "-sandbox",
        "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
    );
    line.pair("-name", "pcocc-docker");
    line.pair("-machine", "q35,memory-backend=ram");
    line.pair("-accel", options.accelerator.name());
    line.pair("-cpu", options.accelerator.cpu());
    line.pair("-smp", &cpus.to_string());
    line.pair("-m", &format!("{memory_mib}M"));
    match options.memory {
        Memory::Anonymous => {
            line.pair(
                "-object",
                &format!("memory-backend-ram,id=ram,size={memory_mib}M"),
            );
        }
        Memory::Kept(path) | Memory::Resumed(path) => {
            let share = match options.memory {
                Memory::Kept(_) => "on",
                _ => "off",
            };
            let start =
                format!("memory-backend-file,id=ram,size={memory_mib}M,share={share},mem-path=");
            line.path("-object", &start, path, "");
        }
    }
    if let Memory::Resumed(_) = options.memory {
        line.pair("-incoming", "defer");
    }
    boot(&mut line, options);
    disks(&mut line, options);
    channels(&mut line, options);
    network(&mut line, options);
    shares(&mut line, options);
    line.0
}

fn boot(line: &mut Line, options: &Options<'_>) {
    line.file("-kernel", &options.image.kernel);
    line.file("-initrd", &options.image.initramfs);
    // A panic ends the machine at once. Speculation is not modelled by an emulator, so there is nothing to
    // mitigate there.
    let extra = match options.accelerator {
        Accelerator::Tcg => " mitigations=off no_timer_check",
        Accelerator::Kvm => "",
    };
    line.pair(
        "-append",
        &format!(
            "console=ttyS0 loglevel=4 panic=-1 8250.nr_uarts=1 cryptomgr.notests random.trust_cpu=on{extra}"
        ),
    );
}

fn disks(line: &mut Line, options: &Options<'_>) {
    let root = "driver=raw,node-name=root,read-only=on,file.driver=file,file.filename=";
    line.path("-blockdev", root, &options.image.root, "");
    line.pair("-device", "virtio-blk-pci,drive=root");
    // The disk goes with the VM: nothing is ever flushed.
    let data = "driver=qcow2,node-name=data,discard=unmap,detect-zeroes=unmap,cache.no-flush=on,\
                file.driver=file,file.discard=unmap,file.cache.no-flush=on,file.filename=";
    line.path("-blockdev", data, options.data, "");
    line.pair("-device", "virtio-blk-pci,drive=data");
}

fn channels(line: &mut Line, options: &Options<'_>) {
    let socket = |name: &str| options.sockets.join(name);
    let ending = ",server=on,wait=off";
    line.path(
        "-chardev",
        "socket,id=console,path=",
        &socket(CONSOLE_SOCKET),
        ending,
    );
    line.pair("-serial", "chardev:console");
    line.path(
        "-chardev",
        "socket,id=qmp,path=",
        &socket(QMP_SOCKET),
        ending,
    );
    line.pair("-mon", "chardev=qmp,mode=control");
    line.path(
        "-chardev",
        "socket,id=control,path=",
        &socket(CONTROL_SOCKET),
        ending,
    );
    line.pair("-device", "virtio-serial-pci");
    line.pair(
        "-device",
        &format!("virtserialport,chardev=control,name={CONTROL_PORT}"),
    );
    line.pair("-object", "rng-random,id=rng,filename=/dev/urandom");
    line.pair("-device", "virtio-rng-pci,rng=rng");
}

fn network(line: &mut Line, options: &Options<'_>) {
    let (restrict, listen) = match options.forward {
        Forward::Namespace => ("", format!("0.0.0.0:{ENDPOINT_PORT}")),
        Forward::Direct(listen) => (",restrict=on", listen.to_string()),
    };
    line.pair(
        "-netdev",
        &format!(
            "user,id=net,ipv6=off,net={GUEST_NET},host={GUEST_GATEWAY}{restrict},\
             hostfwd=tcp:{listen}-{GUEST_ADDRESS}:{ENDPOINT_PORT}"
        ),
    );
    line.pair(
        "-device",
        "virtio-net-pci,netdev=net,romfile=,mac=52:54:00:70:63:6f",
    );
}

/// User numbers are not mapped: the guest's root writes with the user's own rights or not at all.
fn shares(line: &mut Line, options: &Options<'_>) {
    for index in 0..MAX_SHARES {
        let (path, read_only) = options
            .shares
            .get(index)
            .copied()
            .unwrap_or((options.nothing, true));
        let ending = match read_only {
            true => ",security_model=none,multidevs=remap,readonly=on",
            false => ",security_model=none,multidevs=remap",
        };
        let tag = share_tag(index);
        line.path("-fsdev", &format!("local,id={tag},path="), path, ending);
        // One slot holds eight functions.
        let first = match index {
            0 => ",multifunction=on",
            _ => "",
        };
        line.pair(
            "-device",
            &format!("virtio-9p-pci,fsdev={tag},mount_tag={tag},addr=0x10.{index}{first}"),
        );
    }
}

/// A command line being built.
#[derive(Debug, Default)]
struct Line(Vec<OsString>);

impl Line {
    fn flags(&mut self, flags: &[&str]) {
        self.0.extend(flags.iter().map(OsString::from));
    }

    fn pair(&mut self, option: &str, value: &str) {
        self.0.extend([option.into(), value.into()]);
    }

    fn file(&mut self, option: &str, path: &Path) {
        self.0.extend([option.into(), path.into()]);
    }

    /// A value with a path inside.
    fn path(&mut self, option: &str, start: &str, path: &Path, end: &str) {
        let mut value = OsString::from(start);
        value.push(doubled(path.as_os_str()));
        value.push(end);
        self.0.extend([option.into(), value]);
    }
}

/// QEMU separates values by commas, and takes two for one that is meant.
fn doubled(value: &OsStr) -> OsString {
    let mut bytes = Vec::with_capacity(value.len());
    for byte in value.as_bytes() {
        bytes.push(*byte);
        if *byte == b',' {
            bytes.push(b',');
        }
    }
    OsString::from_vec(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(memory: Memory<'_>, forward: Forward, shares: &[(&Path, bool)]) -> String {
        let image = GuestFiles {
            kernel: "/i/kernel".into(),
            initramfs: "/i/initramfs".into(),
            root: "/i/ro,ot".into(),
            data: "/i/data".into(),
            id: "ab".into(),
        };
        let options = Options {
            cpus: 2,
            memory_mib: 1024,
            accelerator: Accelerator::Tcg,
            image: &image,
            memory,
            data: Path::new("/s/data.qcow2"),
            sockets: Path::new("/r"),
            forward,
            shares,
            nothing: Path::new("/r/nothing"),
        };
        let line = arguments(&options);
        line.join(OsStr::new(" ")).to_string_lossy().into_owned()
    }

    #[test]
    fn commas_in_paths_are_doubled() {
        let shares = [(Path::new("/home/a,readonly=off"), true)];
        let line = shown(Memory::Anonymous, Forward::Namespace, &shares);
        assert!(line.contains("file.filename=/i/ro,,ot"), "{line}");
        let share = "path=/home/a,,readonly=off,security_model=none,multidevs=remap,readonly=on";
        assert!(line.contains(share), "{line}");
    }

    #[test]
    fn what_the_guest_sees_is_the_same_cold_and_resumed() {
        let devices = |line: &str| -> Vec<String> {
            let words: Vec<&str> = line.split(' ').collect();
            words
                .windows(2)
                .filter(|pair| matches!(pair[0], "-device" | "-machine" | "-cpu" | "-smp" | "-m"))
                .map(|pair| pair[1].to_owned())
                .collect()
        };
        let cold = shown(Memory::Kept(Path::new("/c/ram")), Forward::Namespace, &[]);
        let shares = [(Path::new("/home/doe"), false)];
        let listen = Forward::Direct("127.0.0.1:4000".parse().unwrap());
        let resumed = shown(Memory::Resumed(Path::new("/c/ram")), listen, &shares);
        assert_eq!(devices(&cold), devices(&resumed));
        assert!(devices(&cold).len() > 15);
        assert!(
            cold.contains("share=on") && !cold.contains("-incoming"),
            "{cold}"
        );
        assert!(resumed.contains("share=off") && resumed.contains("-incoming defer"));
    }

    #[test]
    fn without_a_namespace_the_guest_is_cut_off() {
        let listen = Forward::Direct("127.0.0.1:4000".parse().unwrap());
        let line = shown(Memory::Anonymous, listen, &[]);
        assert!(
            line.contains("restrict=on,hostfwd=tcp:127.0.0.1:4000-198.18.0.15:2376"),
            "{line}"
        );
    }
}
