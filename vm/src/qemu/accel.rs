//! The accelerator that executes the guest: KVM where it truly works, else QEMU's own emulator.
//!
//! A `/dev/kvm` that opens proves little: some only run special kernels. So the guest's own kernel is started on
//! it once in a boot of the node, and has to say something on its console; the answer is kept in a file.

use std::fs::{self, OpenOptions};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use pcocc_core::cancel::Cancel;

use super::process::Process;
use crate::machine::{GuestFiles, MachineError};

/// How long a kernel on a working KVM may take to its first output.
const PROBE: Duration = Duration::from_secs(8);
/// File with the boot and the answer.
const REMEMBERED: &str = "accelerator";

/// An accelerator of QEMU's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accelerator {
    /// The kernel's virtual machine.
    Kvm,
    /// QEMU's emulator.
    Tcg,
}

impl Accelerator {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg,thread=multi",
        }
    }

    /// The CPU model: all there is, but for five-level page tables, which only cost an emulator time.
    pub(crate) fn cpu(self) -> &'static str {
        match self {
            Self::Kvm => "host",
            Self::Tcg => "max,la57=off",
        }
    }
}

/// Finds the accelerator that works on this node in this boot; calls `probing` before a slow trial.
pub(crate) fn find(
    qemu: &Path,
    image: &GuestFiles,
    cache: &Path,
    cancel: &Cancel,
    probing: impl FnOnce(),
) -> Result<Accelerator, MachineError> {
    let device = OpenOptions::new().read(true).write(true).open("/dev/kvm");
    if device.is_err() {
        return Ok(Accelerator::Tcg);
    }
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let (remembered, boot) = (cache.join(REMEMBERED), boot.trim());
    let known = fs::read_to_string(&remembered).unwrap_or_default();
    match known.split_once(' ') {
        Some((of, "kvm")) if of == boot => return Ok(Accelerator::Kvm),
        Some((of, "tcg")) if of == boot => return Ok(Accelerator::Tcg),
        _ => {}
    }
    probing();
    let (answer, word) = match probe(qemu, image, cache, cancel)? {
        true => (Accelerator::Kvm, "kvm"),
        false => (Accelerator::Tcg, "tcg"),
    };
    // Without the file the next start tries again.
    if let Err(error) = fs::write(&remembered, format!("{boot} {word}")) {
        tracing::debug!(%error, "the accelerator is not remembered");
    }
    Ok(answer)
}

/// Starts the guest's kernel on KVM and waits for its first output.
#[expect(unsafe_code, reason = "the code between fork and exec does nothing")]
fn probe(
    qemu: &Path,
    image: &GuestFiles,
    cache: &Path,
    cancel: &Cancel,
) -> Result<bool, MachineError> {
    let console = tempfile::NamedTempFile::new_in(cache)
        .map_err(MachineError::io("make a file in", cache))?;
    let mut command = Command::new(qemu);
    command
        .args([
            "-nodefaults",
            "-no-user-config",
            "-no-reboot",
            "-display",
            "none",
        ])
        .args([
            "-machine", "q35", "-accel", "kvm", "-cpu", "host", "-m", "256M",
        ])
        .args([
            "-append",
            "console=ttyS0 earlyprintk=ttyS0 panic=-1",
            "-kernel",
        ])
        .arg(&image.kernel)
        .args([
            "-chardev",
            "stdio,id=console,signal=off",
            "-serial",
            "chardev:console",
        ])
        .stdin(Stdio::null())
        .stdout(
            console
                .reopen()
                .map_err(MachineError::io("open", console.path()))?,
        )
        .stderr(Stdio::null());
    // SAFETY: nothing is done before the program.
    let started = unsafe { Process::start(command, || Ok(())) };
    let mut process = started.map_err(MachineError::io("start", qemu))?;
    let begun = Instant::now();
    while begun.elapsed() < PROBE {
        if cancel.is_cancelled() {
            return Err(MachineError::Cancelled);
        }
        let text = fs::read(console.path()).unwrap_or_default();
        if text.windows(13).any(|window| window == b"Linux version") {
            return Ok(true);
        }
        if process.wait(Duration::from_millis(50)).is_some() {
            break;
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_of_this_boot_is_believed() {
        let cache = tempfile::tempdir().unwrap();
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        let text = format!("{} tcg", boot.trim());
        fs::write(cache.path().join(REMEMBERED), text).unwrap();
        let image = GuestFiles {
            kernel: "/nonexistent".into(),
            initramfs: "/nonexistent".into(),
            root: "/nonexistent".into(),
            data: "/nonexistent".into(),
            id: String::new(),
        };
        let qemu = Path::new("/nonexistent");
        let found = find(qemu, &image, cache.path(), &Cancel::new(), || {
            panic!("probes")
        });
        assert_eq!(found.unwrap(), Accelerator::Tcg);
    }
}
