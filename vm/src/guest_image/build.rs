//! Builds the guest image; see [`super`] for the data path.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use pcocc_core::cancel::Cancel;
use pcocc_core::progress::Reporter;

use super::archive::{self, Manifest};
use super::contents::{Contents, PACKAGES, read_kernel};
use super::cpio::Cpio;
use super::modules::{BOOT, RUN};
use super::packages::{Apt, Package};
use crate::machine::MachineError;
use crate::program;

/// Size of the empty data disk; the guest grows it.
const DATA_SIZE: u64 = 1 << 30;

/// What a build is made with.
#[derive(Clone, Debug)]
pub struct BuildOptions {
    /// The agent: a static build of `pcocc-guest`.
    pub agent: PathBuf,
    /// Debian's suite.
    pub suite: String,
    /// Debian's mirror; that of the machine's own apt when `None`.
    pub mirror: Option<String>,
    /// Folder for temporary files: about 700 MB.
    pub temporary: PathBuf,
}

/// Builds a guest image and writes it to `output`, a new or empty file.
pub fn build(
    options: &BuildOptions,
    output: &Path,
    progress: &Reporter,
    cancel: &Cancel,
) -> Result<Manifest, MachineError> {
    let agent = read_agent(&options.agent)?;
    let work = tempfile::Builder::new()
        .prefix("pcocc-guest-build-")
        .tempdir_in(&options.temporary)
        .map_err(MachineError::io("make a folder in", &options.temporary))?;
    progress.stage("Fetching Debian packages");
    let mirror = options.mirror.as_deref();
    let apt = Apt::new(&work.path().join("apt"), &options.suite, mirror, cancel)?;
    let kernel = apt.behind("linux-image-amd64", cancel)?;
    let names: Vec<&str> = PACKAGES
        .iter()
        .map(|(name, _)| *name)
        .chain([kernel.as_str()])
        .collect();
    let packages = apt.download(&names, cancel)?;
    progress.stage("Taking what the guest needs out of them");
    let parts = work.path().join("parts");
    fs::create_dir(&parts).map_err(MachineError::io("make the folder", &parts))?;
    let mut contents = Contents::default();
    for (package, (_, wanted)) in packages.iter().zip(PACKAGES) {
        files_of(package, cancel, |stream| {
            contents.add_package(wanted, stream)
        })?;
    }
    let missing = contents.missing();
    if !missing.is_empty() {
        return Err(MachineError::Image {
            what: "cannot be built:".into(),
            why: format!("Debian's packages do not have {}", missing.join(", ")),
        });
    }
    let last = packages.last().ok_or(MachineError::Cancelled)?;
    let (release, image, modules) = files_of(last, cancel, |stream| read_kernel(stream))?;
    let mut loaded = BTreeSet::new();
    let resolved = |error: io::Error| MachineError::Image {
        what: format!("kernel {release}"),
        why: error.to_string(),
    };
    let boot = modules.resolve(&BOOT, &mut loaded).map_err(resolved)?;
    contents.add_modules(modules.resolve(&RUN, &mut loaded).map_err(resolved)?);
    drop(modules);
    contents.finish();
    progress.stage("Writing kernel, initramfs, root and data disk");
    let path = parts.join("kernel");
    fs::write(&path, image).map_err(MachineError::io("write", &path))?;
    write_initramfs(&parts.join("initramfs"), &agent, &boot)?;
    write_root(&parts.join("root.squashfs"), &contents, cancel)?;
    write_data(&parts, cancel)?;
    let versions: BTreeMap<String, String> = packages
        .into_iter()
        .map(|package| (package.name, package.version))
        .collect();
    let manifest = Manifest::new(release, versions, contents.list());
    let mut file = File::create(output).map_err(MachineError::io("write", output))?;
    archive::write(&parts, &manifest, &mut file).map_err(MachineError::io("write", output))?;
    Ok(manifest)
}

/// Reads the agent, which must run where there is no libc: before the root is mounted.
fn read_agent(path: &Path) -> Result<Vec<u8>, MachineError> {
    let bytes = fs::read(path).map_err(MachineError::io("read the guest's agent", path))?;
    let bad = |why: &str| MachineError::Image {
        what: format!("agent {}", path.display()),
        why: why.to_owned(),
    };
    if !bytes.starts_with(b"\x7fELF\x02\x01") || bytes.get(18..20) != Some(&[62, 0]) {
        return Err(bad("is not a program for x86-64"));
    }
    if has_interpreter(&bytes) {
        return Err(bad(
            "is not linked statically; build it with scripts/build-guest-agent",
        ));
    }
    Ok(bytes)
}

/// Says whether an ELF program for 64 bits names a loader: one of its program headers is PT_INTERP.
fn has_interpreter(elf: &[u8]) -> bool {
    const PT_INTERP: u64 = 3;
    let number = |at: usize, length: usize| {
        let end = at.saturating_add(length);
        let bytes = elf.get(at..end).unwrap_or_default();
        bytes
            .iter()
            .rev()
            .fold(0_u64, |number, byte| number << 8 | u64::from(*byte))
    };
    let (table, size, count) = (number(32, 8), number(54, 2), number(56, 2));
    (0..count).any(|index| {
        let at = usize::try_from(table.saturating_add(index * size)).unwrap_or(usize::MAX);
        number(at, 4) == PT_INTERP
    })
}

/// Gives `take` the stream of a package's files.
fn files_of<T>(
    package: &Package,
    cancel: &Cancel,
    take: impl FnOnce(&mut dyn Read) -> io::Result<T>,
) -> Result<T, MachineError> {
    if cancel.is_cancelled() {
        return Err(MachineError::Cancelled);
    }
    let mut command = Command::new("dpkg-deb");
    command.arg("--fsys-tarfile").arg(&package.file);
    let mut child = program::spawn(&mut command, "dpkg")?;
    drop(child.stdin.take());
    drop(child.stderr.take());
    let result = match child.stdout.take() {
        Some(mut stdout) => {
            let taken = take(&mut stdout);
            // Padding after the last entry: a broken pipe would look like a failure.
            taken.and_then(|value| io::copy(&mut stdout, &mut io::sink()).map(|_| value))
        }
        None => Err(io::Error::other("no output")),
    };
    let status = child
        .wait()
        .map_err(MachineError::io("wait for", "dpkg-deb"))?;
    match result {
        Ok(value) if status.success() => Ok(value),
        Ok(_) => Err(MachineError::Hypervisor {
            program: "dpkg-deb".into(),
            why: format!("ended with {status} on {}", package.file.display()),
        }),
        Err(error) => Err(MachineError::io("unpack", &package.file)(error)),
    }
}

fn write_initramfs(
    path: &Path,
    agent: &[u8],
    modules: &[(String, Vec<u8>)],
) -> Result<(), MachineError> {
    let write = || -> io::Result<()> {
        let mut cpio = Cpio::new(BufWriter::new(File::create_new(path)?));
        cpio.folder("dev")?;
        cpio.device("dev/console", 5, 1)?;
        cpio.file("init", agent)?;
        cpio.folder("modules")?;
        let list: String = modules
            .iter()
            .map(|(name, _)| format!("{name}\n"))
            .collect();
        cpio.file("modules/list", list.as_bytes())?;
        for (name, module) in modules {
            cpio.file(&format!("modules/{name}"), module)?;
        }
        cpio.finish().map(drop)
    };
    write().map_err(MachineError::io("write", path))
}

fn write_root(path: &Path, contents: &Contents, cancel: &Cancel) -> Result<(), MachineError> {
    let mut command = Command::new("mksquashfs");
    command.arg("-").arg(path).args([
        "-tar",
        "-quiet",
        "-no-progress",
        "-all-time",
        "0",
        "-mkfs-time",
        "0",
        "-comp",
        "zstd",
        "-Xcompression-level",
        "8",
        "-b",
        "256K",
    ]);
    program::feed(&mut command, "squashfs-tools", cancel, |input| {
        let mut input = BufWriter::with_capacity(1 << 20, input);
        contents.write(&mut input)?;
        input.flush()
    })?;
    Ok(())
}

/// No journal: what a VM writes goes with it. No two builds differ: names and times of the file system are fixed.
fn write_data(parts: &Path, cancel: &Cancel) -> Result<(), MachineError> {
    let raw = parts.join("data.raw");
    File::create_new(&raw)
        .and_then(|file| file.set_len(DATA_SIZE))
        .map_err(MachineError::io("write", &raw))?;
    let mut mke2fs = Command::new("mke2fs");
    mke2fs.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    for variable in ["SOURCE_DATE_EPOCH", "E2FSPROGS_FAKE_TIME"] {
        mke2fs.env(variable, "1");
    }
    mke2fs.args([
        "-q",
        "-t",
        "ext4",
        "-O",
        "^has_journal",
        "-m",
        "0",
        "-L",
        "data",
        "-U",
        "70636f63-632d-4461-8461-000000000001",
        "-E",
        "lazy_itable_init=1,nodiscard,root_owner=0:0,hash_seed=70636f63-632d-4461-8461-000000000002",
    ]);
    program::run(mke2fs.arg(&raw), "e2fsprogs", cancel)?;
    let mut convert = Command::new("qemu-img");
    convert.args(["convert", "-f", "raw", "-O", "qcow2", "--"]);
    convert.arg(&raw).arg(parts.join("data.qcow2"));
    program::run(&mut convert, "qemu-utils", cancel)?;
    fs::remove_file(&raw).map_err(MachineError::io("remove", &raw))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dynamic_programs_are_told_from_static_ones() {
        let own = fs::read(std::env::current_exe().unwrap()).unwrap();
        assert!(has_interpreter(&own));
        assert!(!has_interpreter(b"\x7fELF\x02\x01"));
        assert!(!has_interpreter(&[0xff; 100]));
    }
}
