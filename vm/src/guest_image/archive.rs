//! The form in which a guest image is kept and moved: a tar archive of its parts, whose first entry says what
//! they are. As the content of a virtual disk it is followed by zeros, which tar takes for its end.
//!
//! ```text
//! guest.json     Manifest
//! kernel         Linux, bzImage
//! initramfs      cpio archive, not compressed
//! root.squashfs  the root file system
//! data.qcow2     an empty ext4 of 1 GiB, grown by the guest to the size of its disk
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use pcocc_core::cancel::Cancel;
use serde::{Deserialize, Serialize};

use crate::machine::{GuestFiles, MachineError};
use crate::program;

/// Version of the archive's layout.
const FORMAT: u32 = 1;
const MANIFEST: &str = "guest.json";
/// The parts, in the archive's order.
pub(crate) const PARTS: [&str; 4] = ["kernel", "initramfs", "root.squashfs", "data.qcow2"];
/// Most bytes a part may have: a forged archive must not fill the node's disk.
const MAX_PART: u64 = 2 << 30;
/// Most bytes of the manifest.
const MAX_MANIFEST: u64 = 1 << 20;

/// What a guest image says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of the archive's layout.
    pub format: u32,
    /// Version of the protocol its agent speaks.
    pub protocol: u32,
    /// Version of pcocc that built it.
    pub pcocc: String,
    /// Release of its kernel.
    pub kernel: String,
    /// Debian packages it was made from, with their versions.
    pub packages: BTreeMap<String, String>,
    /// The files of its root by path: mode and sha256 of a file, mode of a folder, target of a link.
    #[serde(default)]
    pub files: BTreeMap<String, String>,
}

impl Manifest {
    pub(crate) fn new(
        kernel: String,
        packages: BTreeMap<String, String>,
        files: BTreeMap<String, String>,
    ) -> Self {
        Self {
            format: FORMAT,
            protocol: pcocc_guest::protocol::VERSION,
            pcocc: env!("CARGO_PKG_VERSION").to_owned(),
            kernel,
            packages,
            files,
        }
    }
}

/// Writes the archive of the parts in `folder` to `output`.
pub(crate) fn write(folder: &Path, manifest: &Manifest, output: &mut File) -> io::Result<()> {
    let mut archive = tar::Builder::new(output);
    let text = serde_json::to_vec_pretty(manifest)?;
    archive.append_data(&mut header(text.len() as u64), MANIFEST, text.as_slice())?;
    for part in PARTS {
        let file = File::open(folder.join(part))?;
        let size = file.metadata()?.len();
        archive.append_data(&mut header(size), part, file)?;
    }
    archive.into_inner()?.flush()
}

/// A header that says nothing about who built the image, or when.
fn header(size: u64) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_mode(0o644);
    header.set_size(size);
    header
}

/// A guest image, and where its files are on a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestImage {
    /// The image: an archive, or a qcow2 disk that holds one.
    pub disk: PathBuf,
    /// Folder of the node for the unpacked files; made all at once, by whoever needs it first.
    pub folder: PathBuf,
    /// Identifies the content, as hex digits.
    pub id: String,
}

impl GuestImage {
    /// Gives the image's files, after unpacking them if the folder is missing; checks that this pcocc can use them.
    pub fn unpack(&self) -> Result<GuestFiles, MachineError> {
        unpack(&self.disk, &self.folder).map_err(|error| match error {
            // A full disk names no image.
            MachineError::Hypervisor { .. } | MachineError::File(_) => MachineError::Image {
                what: self.id.clone(),
                why: format!("cannot be unpacked to {}: {error}", self.folder.display()),
            },
            error => error,
        })?;
        Ok(GuestFiles {
            kernel: self.folder.join("kernel"),
            initramfs: self.folder.join("initramfs"),
            root: self.folder.join("root.squashfs"),
            data: self.folder.join("data.qcow2"),
            id: self.id.clone(),
        })
    }
}

fn unpack(source: &Path, target: &Path) -> Result<(), MachineError> {
    if !target.exists() {
        let parent = target.parent().unwrap_or(Path::new("/"));
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(parent)
            .map_err(MachineError::io("make the folder", parent))?;
        let temp = tempfile::Builder::new()
            .prefix(".guest-")
            .tempdir_in(parent)
            .map_err(MachineError::io("make a folder in", parent))?;
        let disk = raw(source, temp.path())?;
        extract(&disk, temp.path())?;
        if disk != source {
            fs::remove_file(&disk).map_err(MachineError::io("remove", &disk))?;
        }
        let temp = temp.keep();
        if let Err(error) = fs::rename(&temp, target) {
            let _ = fs::remove_dir_all(&temp);
            // Somebody else unpacked the same image meanwhile.
            if !target.exists() {
                return Err(MachineError::io("make the folder", target)(error));
            }
        }
    }
    check(target)
}

/// Reads what the guest image `source` says of itself, without unpacking it; `temporary` is a folder for 100 MB.
pub fn manifest(source: &Path, temporary: &Path) -> Result<Manifest, MachineError> {
    let temp = tempfile::Builder::new()
        .prefix("pcocc-guest-")
        .tempdir_in(temporary)
        .map_err(MachineError::io("make a folder in", temporary))?;
    let disk = raw(source, temp.path())?;
    let bad = |why: String| MachineError::Image {
        what: source.display().to_string(),
        why: format!("is not a guest image of pcocc: {why}"),
    };
    let file = File::open(&disk).map_err(MachineError::io("open", &disk))?;
    let mut archive = tar::Archive::new(file);
    let mut entries = archive.entries().map_err(|error| bad(error.to_string()))?;
    let entry = entries
        .next()
        .transpose()
        .map_err(|error| bad(error.to_string()))?;
    match entry {
        Some(entry) if entry.path().is_ok_and(|path| path == Path::new(MANIFEST)) => {
            serde_json::from_reader(entry.take(MAX_MANIFEST))
                .map_err(|error| bad(error.to_string()))
        }
        _ => Err(bad(format!("it does not begin with {MANIFEST}"))),
    }
}

/// Gives the raw disk of `source`: itself, or made from it in `folder`.
fn raw(source: &Path, folder: &Path) -> Result<PathBuf, MachineError> {
    if !is_qcow2(source)? {
        return Ok(source.to_owned());
    }
    let raw = folder.join("disk.raw");
    let mut convert = Command::new("qemu-img");
    convert.args(["convert", "-f", "qcow2", "-O", "raw", "--"]);
    // Some hundred milliseconds, once on a node: not worth stopping.
    let cancel = Cancel::new();
    program::run(convert.arg(source).arg(&raw), "qemu-utils", &cancel)?;
    Ok(raw)
}

/// Repositories keep disks as qcow2.
fn is_qcow2(source: &Path) -> Result<bool, MachineError> {
    let mut magic = [0; 4];
    let mut file = File::open(source).map_err(MachineError::io("open", source))?;
    Ok(file.read_exact(&mut magic).is_ok() && &magic == b"QFI\xfb")
}

fn extract(source: &Path, folder: &Path) -> Result<(), MachineError> {
    let bad = |why: String| MachineError::Image {
        what: source.display().to_string(),
        why,
    };
    let unreadable = |error: io::Error| bad(format!("is not a guest image of pcocc: {error}"));
    let file = File::open(source).map_err(MachineError::io("open", source))?;
    let mut archive = tar::Archive::new(file);
    let mut missing: BTreeSet<&str> = PARTS.into_iter().chain([MANIFEST]).collect();
    for entry in archive.entries().map_err(unreadable)? {
        let mut entry = entry.map_err(unreadable)?;
        let path = entry.path().map_err(unreadable)?.into_owned();
        let Some(name) = missing.iter().find(|name| path == Path::new(name)).copied() else {
            return Err(bad(format!(
                "has an entry {} it should not",
                path.display()
            )));
        };
        missing.remove(name);
        if entry.size() > MAX_PART {
            return Err(bad(format!("has a {name} that is too large")));
        }
        let path = folder.join(name);
        let mut part = File::create_new(&path).map_err(MachineError::io("make", &path))?;
        io::copy(&mut entry, &mut part).map_err(MachineError::io("write", &path))?;
        if missing.is_empty() {
            return Ok(());
        }
    }
    let missing: Vec<&str> = missing.into_iter().collect();
    Err(bad(format!(
        "is not a guest image of pcocc: it has no {}",
        missing.join(", ")
    )))
}

/// Reads the manifest of an unpacked image and refuses one of another pcocc.
fn check(folder: &Path) -> Result<(), MachineError> {
    let path = folder.join(MANIFEST);
    let mut text = Vec::new();
    File::open(&path)
        .and_then(|file| file.take(MAX_MANIFEST).read_to_end(&mut text))
        .map_err(MachineError::io("read", &path))?;
    let bad = |why: String| MachineError::Image {
        what: folder.display().to_string(),
        why,
    };
    let manifest: Manifest = serde_json::from_slice(&text)
        .map_err(|error| bad(format!("has a {MANIFEST} that cannot be read: {error}")))?;
    let ours = (FORMAT, pcocc_guest::protocol::VERSION);
    if (manifest.format, manifest.protocol) != ours {
        return Err(bad(format!(
            "was built by pcocc {} for another protocol ({}, this one speaks {}); build it again with `pcocc \
             docker guest build --replace`",
            manifest.pcocc, manifest.protocol, ours.1
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(folder: &Path, manifest: &Manifest) -> std::path::PathBuf {
        for part in PARTS {
            fs::write(folder.join(part), part).unwrap();
        }
        let path = folder.join("image");
        let mut file = File::create(&path).unwrap();
        write(folder, manifest, &mut file).unwrap();
        // A disk is larger than what is on it.
        file.set_len(1 << 20).unwrap();
        path
    }

    #[test]
    fn goes_in_and_comes_out() {
        let folder = tempfile::tempdir().unwrap();
        let manifest = Manifest::new("6.12".into(), BTreeMap::new(), BTreeMap::new());
        let image = image(folder.path(), &manifest);
        let unpack = |disk: &Path, id: &str| {
            let image = GuestImage {
                disk: disk.to_owned(),
                folder: folder.path().join("cache").join(id),
                id: id.to_owned(),
            };
            image.unpack().unwrap()
        };
        let files = unpack(&image, "ab");
        assert_eq!(fs::read(&files.root).unwrap(), b"root.squashfs");
        assert_eq!(unpack(&image, "ab"), files);
        let disk = folder.path().join("disk.qcow2");
        let mut convert = Command::new("qemu-img");
        convert.args(["convert", "-f", "raw", "-O", "qcow2"]);
        let cancel = Cancel::new();
        program::run(convert.arg(&image).arg(&disk), "qemu-utils", &cancel).unwrap();
        let files = unpack(&disk, "cd");
        assert_eq!(fs::read(&files.kernel).unwrap(), b"kernel");
        assert!(!folder.path().join("cache/cd/disk.raw").exists());
        for source in [&image, &disk] {
            assert_eq!(super::manifest(source, folder.path()).unwrap(), manifest);
        }
    }

    #[test]
    fn others_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let mut manifest = Manifest::new("6.12".into(), BTreeMap::new(), BTreeMap::new());
        manifest.protocol += 1;
        let image = image(folder.path(), &manifest);
        let error = unpack(&image, &folder.path().join("cache/ab")).unwrap_err();
        assert!(error.to_string().contains("guest build"), "{error}");
        let disk = folder.path().join("disk");
        fs::write(&disk, vec![7; 4096]).unwrap();
        assert!(super::manifest(&disk, folder.path()).is_err());
        let error = unpack(&disk, &folder.path().join("cache/cd")).unwrap_err();
        assert!(error.to_string().contains("not a guest image"), "{error}");
        assert!(!folder.path().join("cache/cd").exists());
    }
}
