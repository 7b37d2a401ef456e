//! What the machine offers: FUSE, user namespaces, QEMU, KVM.

use std::fs::OpenOptions;
use std::time::Duration;

use super::ask;
use super::{Answer, failed, warning};
use crate::host::Host;

const SOON: Duration = Duration::from_secs(5);

/// FUSE: its device, and the helper that lets ordinary users mount.
pub(super) fn fuse(_: &Host) -> Answer {
    let device = "/dev/fuse";
    if let Err(error) = OpenOptions::new().read(true).write(true).open(device) {
        return Err(failed(
            format!("{device}: {error}"),
            "ask an administrator: modprobe fuse; chmod 666 /dev/fuse",
        ));
    }
    match ask("fusermount3", &["--version"], SOON) {
        Ok(said) if said.succeeded() => Ok(format!("{device}, {}", said.words())),
        Ok(said) => Err(failed(said.words(), "install the package fuse3")),
        Err(_) if rustix::process::geteuid().is_root() => {
            Ok(format!("{device}; root mounts without fusermount3"))
        }
        Err(error) => Err(failed(
            format!("fusermount3: {error}"),
            "install the package fuse3",
        )),
    }
}

/// User namespaces, which `pcocc run` needs.
pub(super) fn user_namespaces(_: &Host) -> Answer {
    let fix = "ask an administrator: sysctl kernel.unprivileged_userns_clone=1 user.max_user_namespaces=10000";
    match ask(
        "unshare",
        &["--user", "--map-root-user", "--mount", "true"],
        SOON,
    ) {
        Ok(said) if said.succeeded() => Ok("can be made".to_owned()),
        Ok(said) => Err(warning(
            format!("{}; pcocc run cannot work", said.words()),
            fix,
        )),
        Err(error) => Err(warning(
            format!("unshare: {error}, so they could not be tried"),
            "install the package util-linux",
        )),
    }
}

/// The program of this machine's QEMU.
fn program() -> String {
    format!("qemu-system-{}", std::env::consts::ARCH)
}

/// QEMU, which runs docker VMs on this machine, and what connects them.
pub(super) fn qemu(_: &Host) -> Answer {
    let fix = "install the package qemu-system-x86, or set DOCKER_HOST to a docker daemon";
    let version = match ask(&program(), &["--version"], SOON) {
        Ok(said) if said.succeeded() => said.words().to_owned(),
        Ok(said) => return Err(failed(said.words(), fix)),
        Err(error) => return Err(failed(format!("{}: {error}", program()), fix)),
    };
    // Only VMs that may reach nothing at all do without.
    match ask("slirp4netns", &["--version"], SOON) {
        Ok(said) if said.succeeded() => Ok(format!("{version}, {}", said.words())),
        Ok(said) => Err(failed(said.words(), NETWORK)),
        Err(error) => Err(failed(
            format!("{version}, but slirp4netns: {error}"),
            NETWORK,
        )),
    }
}

const NETWORK: &str = "install the package slirp4netns, which connects docker VMs";

/// KVM: a device that opens proves nothing, so firmware has to say a word on it.
pub(super) fn kvm(_: &Host) -> Answer {
    let slow = "docker VMs run without it, several times slower";
    let device = "/dev/kvm";
    if let Err(error) = OpenOptions::new().read(true).write(true).open(device) {
        let fix = match error.kind() {
            std::io::ErrorKind::PermissionDenied => {
                "ask an administrator to add you to the group kvm"
            }
            _ => "enable virtualization in the machine's firmware, or choose another machine",
        };
        return Err(warning(format!("{device}: {error}; {slow}"), fix));
    }
    let arguments = [
        "-accel",
        "kvm",
        "-cpu",
        "host",
        "-machine",
        "q35",
        "-m",
        "64",
        "-nodefaults",
        "-no-user-config",
        "-no-reboot",
        "-display",
        "none",
        "-chardev",
        "stdio,id=firmware,signal=off",
        // SeaBIOS writes its log to this port.
        "-device",
        "isa-debugcon,iobase=0x402,chardev=firmware",
    ];
    match ask(&program(), &arguments, Duration::from_secs(3)) {
        Ok(said) if said.out.contains("SeaBIOS") => Ok("firmware runs on it".to_owned()),
        Ok(said) => Err(warning(
            format!(
                "{device} opens, but nothing runs on it ({}); {slow}",
                said.words()
            ),
            "this machine is a VM without nested virtualization: choose another machine",
        )),
        Err(error) => Err(warning(
            format!(
                "{device} opens, but could not be tried: {}: {error}",
                program()
            ),
            "install the package qemu-system-x86",
        )),
    }
}
