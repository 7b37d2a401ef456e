//! What the machine offers: FUSE, user namespaces, QEMU, KVM.

use std::fs::OpenOptions;
use std::time::Duration;

use super::probe;
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
    match probe("fusermount3", &["--version"], SOON) {
        Ok(output) if output.succeeded() => Ok(format!("{device}, {}", output.words())),
        Ok(output) => Err(failed(output.words(), "install the package fuse3")),
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
    match probe(
        "unshare",
        &["--user", "--map-root-user", "--mount", "true"],
        SOON,
    ) {
        Ok(output) if output.succeeded() => Ok("can be made".to_owned()),
        Ok(output) => Err(warning(
            format!("{}; pcocc run cannot work", output.words()),
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

/// QEMU, which runs docker VMs on this machine, and the helper that connects them.
pub(super) fn qemu(_: &Host) -> Answer {
    let fix = "install the package qemu-system-x86, or set DOCKER_HOST to a docker daemon";
    let version = match probe(&program(), &["--version"], SOON) {
        Ok(output) if output.succeeded() => output.words().to_owned(),
        Ok(output) => return Err(failed(output.words(), fix)),
        Err(error) => return Err(failed(format!("{}: {error}", program()), fix)),
    };
    // Only VMs without any network do without the helper.
    match probe("slirp4netns", &["--version"], SOON) {
        Ok(output) if output.succeeded() => Ok(format!("{version}, {}", output.words())),
        Ok(output) => Err(failed(output.words(), NETWORK)),
        Err(error) => Err(failed(
            format!("{version}, but slirp4netns: {error}"),
            NETWORK,
        )),
    }
}

const NETWORK: &str = "install the package slirp4netns, which connects docker VMs";

/// KVM. A device that opens proves nothing, so firmware has to print a line on it.
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
    match probe(&program(), &arguments, Duration::from_secs(3)) {
        Ok(output) if output.out.contains("SeaBIOS") => Ok("firmware runs on it".to_owned()),
        Ok(output) => Err(warning(
            format!(
                "{device} opens, but nothing runs on it ({}); {slow}",
                output.words()
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
