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
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use pcocc_core::beneath::{OpenFolder, path_for_children};
use pcocc_core::cancel::Cancel;
use pcocc_core::durable;
use pcocc_core::qcow2::{self, Header};
use serde::{Deserialize, Serialize};

use crate::machine::{GuestFiles, MachineError};
use crate::program;

/// Name of the image in the repository.
pub const IMAGE_NAME: &str = "docker-vm";

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

/// Opens the files of a disk, from the bottom to the top.
type Open = dyn Fn() -> io::Result<Vec<File>> + Send + Sync;

/// The disk of a guest image: an archive, or a chain of qcow2 files that holds one. Opened when it is needed.
#[derive(Clone)]
pub struct GuestDisk {
    name: String,
    open: Arc<Open>,
}

impl std::fmt::Debug for GuestDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GuestDisk")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl GuestDisk {
    /// The disk called `name` in messages, in the files that `open` gives, from the bottom of a chain to its top.
    pub fn new(
        name: impl Into<String>,
        open: impl Fn() -> io::Result<Vec<File>> + Send + Sync + 'static,
    ) -> Self {
        Self {
            name: name.into(),
            open: Arc::new(open),
        }
    }

    /// The disk in one file.
    pub fn in_file(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        Self::new(path.display().to_string(), move || {
            Ok(vec![File::open(&path)?])
        })
    }

    /// Opens the raw disk: the file itself, or a nameless one in `folder` made from the chain.
    fn raw(&self, folder: &Path) -> Result<File, MachineError> {
        let unreadable = |error: io::Error| MachineError::Image {
            what: self.name.clone(),
            why: format!("cannot be read: {error}"),
        };
        let files = (self.open)().map_err(unreadable)?;
        let is_raw = match files.as_slice() {
            [file] => Header::read(file).map_err(unreadable)?.is_none(),
            _ => false,
        };
        if let (true, Some(file)) = (is_raw, files.first()) {
            return File::open(path_for_children(file)).map_err(unreadable);
        }
        let no_disk = || unreadable(io::ErrorKind::NotFound.into());
        let source = qcow2::source(&files).ok_or_else(no_disk)?;
        let raw =
            tempfile::tempfile_in(folder).map_err(MachineError::io("make a file in", folder))?;
        let mut convert = Command::new("qemu-img");
        convert.args(["convert", "-O", "raw", "--"]);
        // Some hundred milliseconds, once on a node: not worth stopping.
        let cancel = Cancel::new();
        let target = path_for_children(&raw);
        program::run(convert.arg(source).arg(target), "qemu-utils", &cancel)?;
        Ok(raw)
    }
}

/// A guest image, and where its files are on a node.
#[derive(Clone, Debug)]
pub struct GuestImage {
    /// The image.
    pub disk: GuestDisk,
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

fn unpack(source: &GuestDisk, target: &Path) -> Result<(), MachineError> {
    let parent = target.parent().unwrap_or(Path::new("/"));
    let name = target.file_name().unwrap_or_default();
    let images = durable::create_folders(parent, 0o700)
        .and_then(|()| OpenFolder::open(parent))
        .map_err(MachineError::io("make the folder", parent))?;
    if !images.has(name) {
        let temp = tempfile::Builder::new()
            .prefix(".guest-")
            .tempdir_in(parent)
            .map_err(MachineError::io("make a folder in", parent))?;
        let folder =
            OpenFolder::open(temp.path()).map_err(MachineError::io("make a folder in", parent))?;
        extract(source, source.raw(temp.path())?, &folder)?;
        let temporary = temp.path().file_name().unwrap_or_default();
        if let Err(error) = images.rename(temporary, &images, name)
            // Somebody else unpacked the same image meanwhile.
            && !images.has(name)
        {
            return Err(MachineError::io("make the folder", target)(error));
        }
    }
    let folder = images.folder(name);
    check(&folder.map_err(MachineError::io("open", target))?)
}

/// Reads what the guest image `source` says of itself, without unpacking it; `temporary` is a folder for 100 MB.
pub fn manifest(source: &GuestDisk, temporary: &Path) -> Result<Manifest, MachineError> {
    let bad = |why: String| MachineError::Image {
        what: source.name.clone(),
        why: format!("is not a guest image of pcocc: {why}"),
    };
    let mut archive = tar::Archive::new(source.raw(temporary)?);
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

fn extract(source: &GuestDisk, disk: File, folder: &OpenFolder) -> Result<(), MachineError> {
    let bad = |why: String| MachineError::Image {
        what: source.name.clone(),
        why,
    };
    let unreadable = |error: io::Error| bad(format!("is not a guest image of pcocc: {error}"));
    let mut archive = tar::Archive::new(disk);
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
        let path = folder.path().join(name);
        let part = folder.create_file(name, 0o666);
        let mut part = part.map_err(MachineError::io("make", &path))?;
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
fn check(folder: &OpenFolder) -> Result<(), MachineError> {
    let path = folder.path().join(MANIFEST);
    let text = folder.read(MANIFEST, MAX_MANIFEST);
    let text = text.map_err(MachineError::io("read", &path))?;
    let bad = |why: String| MachineError::Image {
        what: folder.path().display().to_string(),
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
    use std::fs;

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
                disk: GuestDisk::in_file(disk),
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
            let source = GuestDisk::in_file(source);
            assert_eq!(super::manifest(&source, folder.path()).unwrap(), manifest);
        }
    }

    #[test]
    fn others_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let mut manifest = Manifest::new("6.12".into(), BTreeMap::new(), BTreeMap::new());
        manifest.protocol += 1;
        let image = image(folder.path(), &manifest);
        let error =
            unpack(&GuestDisk::in_file(image), &folder.path().join("cache/ab")).unwrap_err();
        assert!(error.to_string().contains("guest build"), "{error}");
        let disk = folder.path().join("disk");
        fs::write(&disk, vec![7; 4096]).unwrap();
        let disk = GuestDisk::in_file(disk);
        assert!(super::manifest(&disk, folder.path()).is_err());
        let error = unpack(&disk, &folder.path().join("cache/cd")).unwrap_err();
        assert!(error.to_string().contains("not a guest image"), "{error}");
        assert!(!folder.path().join("cache/cd").exists());
    }
}
