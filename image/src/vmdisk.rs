//! Disk images of virtual machines: their format is found by content, `qemu-img` converts them.
//!
//! Data path of an import: [`detect`] → [`import`] inspects the file, its format given explicitly → refuses
//! files that would make qemu read other files (backing files, external data files, extents elsewhere) →
//! `qemu-img convert` writes a stand-alone qcow2 to a temporary file of the repository → the repository stores
//! the file as a blob of an image of kind `vm`. [`export`] converts back, to a temporary file beside the
//! destination that is renamed when complete.
//!
//! `qemu-img` runs in its own process group and is killed when the operation is cancelled.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::Command;

use pcocc_core::child;
use pcocc_core::named;
use pcocc_core::qcow2::{self, Header};
use serde::Deserialize;

use crate::error::{Error, Result};
use crate::new_file;
use crate::transfer::Context;
use pcocc_layers::Digest;

/// Largest accepted disk, in bytes: a forged header with a larger disk could keep `qemu-img` busy forever.
pub const MAX_DISK: u64 = 64 << 40;

/// A disk image format that pcocc 0.7 imports and exports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DiskFormat {
    /// The bytes of the disk, without a format.
    Raw,
    /// QEMU copy-on-write, version 2 or 3; the form repositories keep.
    Qcow2,
    /// QEMU enhanced disk.
    Qed,
    /// VirtualBox.
    Vdi,
    /// Virtual PC and Hyper-V (VHD).
    Vpc,
    /// VMware.
    Vmdk,
}

impl DiskFormat {
    /// Parses a format's name, which is also its file extension; `None` for other words.
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "raw" => Self::Raw,
            "qcow2" => Self::Qcow2,
            "qed" => Self::Qed,
            "vdi" => Self::Vdi,
            "vpc" => Self::Vpc,
            "vmdk" => Self::Vmdk,
            _ => return None,
        })
    }

    /// The format's name, as `qemu-img` takes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
            Self::Qed => "qed",
            Self::Vdi => "vdi",
            Self::Vpc => "vpc",
            Self::Vmdk => "vmdk",
        }
    }
}

/// What `qemu-img` says of a disk image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskInfo {
    /// Size of the disk in bytes, as the machine sees it.
    pub virtual_size: u64,
    /// The backing file: the image holds only the differences to it.
    pub backing_file: Option<String>,
    /// Other files that hold the disk's content.
    pub extents: Vec<String>,
}

/// The disk of a `vm` image: its qcow2 files from the bottom to the top, opened and looked at.
#[derive(Debug)]
pub struct Disk {
    files: Vec<File>,
    name: String,
}

impl Disk {
    /// The disk called `name` in the first of `blobs`, which go from the top of a chain to its bottom: as many of them as
    /// the headers ask for.
    ///
    /// Fails with [`Error::Invalid`] when a header asks for anything else.
    pub fn chain(
        name: String,
        blobs: impl IntoIterator<Item = Result<(Digest, File)>>,
    ) -> Result<Self> {
        let refuse = |why: String| Err(Error::invalid(name.clone(), why));
        let mut files = Vec::new();
        let mut wanted: Option<String> = None;
        for blob in blobs {
            let (digest, file) = blob?;
            if let Some(wanted) = &wanted
                && !is_named(wanted, digest)
            {
                continue;
            }
            let header = Header::read(&file).map_err(Error::io("read", digest.hex()))?;
            let Some(header) = header else {
                return refuse(format!("has a disk that is no qcow2 file, blob {digest}"));
            };
            if header.virtual_size > MAX_DISK {
                return refuse(format!(
                    "claims a disk of {} bytes, more than the {MAX_DISK} allowed",
                    header.virtual_size
                ));
            }
            if header.has_data_file {
                return refuse(format!(
                    "keeps its content in another file than blob {digest}"
                ));
            }
            files.push(file);
            wanted = header.backing;
            if wanted.is_none() {
                break;
            }
        }
        if let Some(backing) = wanted {
            return refuse(format!(
                "holds only the differences to {backing:?}, which is not a blob of this image: the file could be any \
                 file of yours"
            ));
        }
        if files.is_empty() {
            return refuse("has no disk".to_owned());
        }
        files.reverse();
        Ok(Self { files, name })
    }

    /// The files.
    pub fn into_files(self) -> Vec<File> {
        self.files
    }
}

/// Whether a header's name of a file below means the blob: pcocc 0.7 writes its path, relative or absolute.
fn is_named(backing: &str, digest: Digest) -> bool {
    let path = Path::new(backing);
    path.file_name()
        .is_some_and(|name| name == digest.hex().as_str())
}

/// Tells a disk image's format by its magic number; `None` for raw disks and whatever else.
pub fn detect(path: &Path) -> Result<Option<DiskFormat>> {
    let mut file = named::open(path).map_err(Error::io("open", path))?;
    let mut start = Vec::with_capacity(80);
    (&mut file)
        .take(80)
        .read_to_end(&mut start)
        .map_err(Error::io("read", path))?;
    let is_vdi = start.get(0x40..0x44) == Some(&[0x7f, 0x10, 0xda, 0xbe]);
    let found = match start.as_slice() {
        [b'Q', b'F', b'I', 0xfb, ..] => Some(DiskFormat::Qcow2),
        [b'Q', b'E', b'D', 0, ..] => Some(DiskFormat::Qed),
        [b'K', b'D', b'M', b'V', ..] | [b'C', b'O', b'W', b'D', ..] => Some(DiskFormat::Vmdk),
        start if start.starts_with(b"# Disk DescriptorFile") => Some(DiskFormat::Vmdk),
        start if start.starts_with(b"conectix") => Some(DiskFormat::Vpc),
        _ if is_vdi => Some(DiskFormat::Vdi),
        _ => None,
    };
    if found.is_some() {
        return Ok(found);
    }
    // A fixed-size VHD has no header, only a footer.
    let mut end = [0; 8];
    let has_footer = file.seek(SeekFrom::End(-512)).is_ok()
        && file.read_exact(&mut end).is_ok()
        && &end == b"conectix";
    Ok(has_footer.then_some(DiskFormat::Vpc))
}

impl DiskInfo {
    /// Parses the output of `qemu-img info --output=json`.
    pub fn parse(output: &[u8]) -> Result<Self> {
        #[derive(Deserialize)]
        #[serde(rename_all = "kebab-case")]
        struct Answer {
            virtual_size: u64,
            backing_filename: Option<String>,
            format_specific: Option<Specific>,
        }
        #[derive(Deserialize)]
        struct Specific {
            data: Option<Data>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "kebab-case")]
        struct Data {
            data_file: Option<String>,
            extents: Option<Vec<Extent>>,
        }
        #[derive(Deserialize)]
        struct Extent {
            filename: String,
        }
        let answer: Answer = serde_json::from_slice(output)
            .map_err(|error| Error::invalid("the answer of qemu-img", error.to_string()))?;
        let data = answer.format_specific.and_then(|specific| specific.data);
        let (data_file, extents) = match data {
            Some(data) => (data.data_file, data.extents.unwrap_or_default()),
            None => (None, Vec::new()),
        };
        Ok(Self {
            virtual_size: answer.virtual_size,
            backing_file: answer.backing_filename,
            extents: extents
                .into_iter()
                .map(|extent| extent.filename)
                .chain(data_file)
                .collect(),
        })
    }
}

/// Inspects the disk image at `path` without following it into other files.
pub fn info(path: &Path, format: DiskFormat, context: &Context) -> Result<DiskInfo> {
    let path = absolute(path)?;
    let mut command = Command::new("qemu-img");
    command.args(["info", "--output=json", "-U", "-f", format.name(), "--"]);
    command.arg(&path);
    DiskInfo::parse(&run(command, "inspect", &path, context)?)
}

/// Converts the disk image at `source` to a stand-alone qcow2 at `temp`, the absolute path of a new or empty file
/// that the caller stores or removes.
///
/// Fails with [`Error::Invalid`] when the image would make qemu read other files.
pub fn import(source: &Path, format: DiskFormat, temp: &Path, context: &Context) -> Result<()> {
    let source = absolute(source)?;
    let kind = fs::metadata(&source).map_err(Error::io("open", &source))?;
    if !kind.is_file() {
        return Err(Error::invalid(
            source.display().to_string(),
            "is not a disk image file",
        ));
    }
    let found = info(&source, format, context)?;
    check_alone(&source, &found)?;
    convert(&source, format, temp, DiskFormat::Qcow2, context)
}

/// Converts `disk` to a new file `destination`.
///
/// Fails with [`Error::Exists`] when the destination is there already.
pub fn export(
    disk: &Disk,
    destination: &Path,
    format: DiskFormat,
    context: &Context,
) -> Result<()> {
    let temp = new_file::create(destination, ".pcocc-export-")?;
    let source = qcow2::source(&disk.files).unwrap_or_default();
    let target = temp.path_for_children();
    announce(DiskFormat::Qcow2, format, context);
    let mut command = Command::new("qemu-img");
    command.args(["convert", "-O", format.name(), "--"]);
    command.arg(source).arg(target);
    run(command, "convert", Path::new(&disk.name), context)?;
    new_file::publish(temp, destination)
}

/// Refuses images whose content lies in other files: those could be any file of the user's.
fn check_alone(path: &Path, found: &DiskInfo) -> Result<()> {
    let refuse = |why: String| Err(Error::invalid(path.display().to_string(), why));
    if found.virtual_size > MAX_DISK {
        return refuse(format!(
            "claims a disk of {} bytes, more than the {MAX_DISK} allowed",
            found.virtual_size
        ));
    }
    if let Some(backing) = &found.backing_file {
        return refuse(format!(
            "holds only the differences to the backing file {backing:?}; make it stand alone first: \
             qemu-img convert -O qcow2 SOURCE NEW"
        ));
    }
    for extent in &found.extents {
        let Ok(extent_path) = fs::canonicalize(extent) else {
            return refuse(format!(
                "keeps its content in {extent:?}, which cannot be opened"
            ));
        };
        // VMware splits a disk into files beside its descriptor.
        if extent_path != path && extent_path.parent() != path.parent() {
            return refuse(format!(
                "keeps its content in another folder, in {extent:?}"
            ));
        }
    }
    Ok(())
}

fn convert(
    source: &Path,
    from: DiskFormat,
    target: &Path,
    to: DiskFormat,
    context: &Context,
) -> Result<()> {
    announce(from, to, context);
    let mut command = Command::new("qemu-img");
    command.args(["convert", "-f", from.name(), "-O", to.name(), "--"]);
    command.arg(source).arg(target);
    run(command, "convert", source, context).map(drop)
}

fn announce(from: DiskFormat, to: DiskFormat, context: &Context) {
    context.progress.stage(match from == to {
        true => "Copying image...",
        false => "Converting image...",
    });
}

/// An absolute path: one that qemu cannot take for a protocol such as `nbd:` or `json:`.
fn absolute(path: &Path) -> Result<PathBuf> {
    fs::canonicalize(path).map_err(Error::io("open", path))
}

/// Runs `qemu-img` and returns its standard output.
fn run(mut command: Command, action: &str, path: &Path, context: &Context) -> Result<Vec<u8>> {
    let finished = child::run(&mut command, &context.cancel, |_| Ok(())).map_err(|source| {
        if source.kind() == std::io::ErrorKind::NotFound {
            Error::NotFound(
                "the program qemu-img, which reads and writes disk images (Debian package \
                 qemu-utils),"
                    .to_owned(),
            )
        } else {
            Error::io("run", "qemu-img")(source)
        }
    })?;
    let finished = finished.ok_or(Error::Cancelled)?;
    if finished.status.success() {
        return Ok(finished.output);
    }
    let words = finished.words.trim_start_matches("qemu-img: ");
    Err(Error::invalid(
        path.display().to_string(),
        format!("failed to {action}: qemu-img says: {words}"),
    ))
}

#[cfg(test)]
mod tests;
