//! Where `image import` reads from and `image export` writes to: `[FORMAT:]PATH`, `-t FORMAT`.
//!
//! The format is found as in pcocc 0.7. The first of these decides: a known format in front of the first colon,
//! `-t`, the file name's extension, the content (magic numbers; nothing is executed), and for an export the
//! default of the image's kind. Extension or prefix must not contradict the content.

use std::path::{Path, PathBuf};

use crate::archive;
use crate::error::{Error, Result};
use crate::layout::MARKER_NAME;
use crate::vmdisk::{self, DiskFormat};

/// A place outside the repository for one image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// An archive as `docker save` writes it.
    DockerArchive {
        /// The archive file.
        path: PathBuf,
        /// Which image of the archive, or the name the archive gives it.
        reference: Option<String>,
    },
    /// An OCI image layout in a folder.
    OciFolder {
        /// The folder.
        path: PathBuf,
        /// Which image of the folder, or the name the folder gives it.
        tag: Option<String>,
    },
    /// An image of the docker daemon.
    DockerDaemon {
        /// Reference or image ID as docker knows it.
        reference: String,
    },
    /// An image of a registry.
    Registry {
        /// What follows `docker://`.
        reference: String,
    },
    /// The disk image of a virtual machine.
    VmDisk {
        /// The disk image file.
        path: PathBuf,
        /// Its format.
        format: DiskFormat,
    },
}

/// A format's name in front of a path or behind `-t`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    DockerArchive,
    Oci,
    DockerDaemon,
    Docker,
    Disk(DiskFormat),
}

/// Formats of pcocc 0.7 that this version does not support: pcocc 0.7 passed them on to skopeo.
const FOREIGN: [&str; 5] = ["containers-storage", "dir", "ostree", "sif", "oci-archive"];

const KNOWN: &str =
    "docker-archive, oci, docker-daemon, docker, raw, qcow2, qed, vdi, vpc and vmdk";

impl Format {
    /// Parses a format's name; `None` for other words.
    fn parse(name: &str) -> Result<Option<Self>> {
        let name = name.to_ascii_lowercase();
        if FOREIGN.contains(&name.as_str()) {
            return Err(Error::invalid(
                format!("image format {name:?}"),
                format!("is not supported: supported are {KNOWN}; skopeo can convert it to oci"),
            ));
        }
        Ok(match name.as_str() {
            "docker-archive" => Some(Self::DockerArchive),
            "oci" => Some(Self::Oci),
            "docker-daemon" | "pcocc-docker-daemon" => Some(Self::DockerDaemon),
            "docker" => Some(Self::Docker),
            other => DiskFormat::parse(other).map(Self::Disk),
        })
    }

    fn name(self) -> &'static str {
        match self {
            Self::DockerArchive => "docker-archive",
            Self::Oci => "oci",
            Self::DockerDaemon => "docker-daemon",
            Self::Docker => "docker",
            Self::Disk(disk) => disk.name(),
        }
    }
}

impl Location {
    /// Parses the SOURCE of an import; `format` is the value of `-t`, `home` replaces a leading `~`.
    pub fn source(text: &str, format: Option<&str>, home: Option<&Path>) -> Result<Self> {
        let (named, rest) = split(text, format)?;
        if let Some(remote @ (Format::Docker | Format::DockerDaemon)) = named {
            return Self::build(remote, rest, home, true);
        }
        let path = expand(rest, home);
        let by_content = detect(&path)?;
        let format = match (named.or_else(|| by_extension(&path)), by_content) {
            // Every file can be read as a raw disk: this prefix asks for it.
            (Some(Format::Disk(DiskFormat::Raw)), _) if named.is_some() => {
                Format::Disk(DiskFormat::Raw)
            }
            (Some(wanted), Some(found)) if wanted != found => {
                return Err(Error::invalid(
                    path.display().to_string(),
                    format!(
                        "looks like {}, not like the {} it is said to be; correct the format",
                        found.name(),
                        wanted.name()
                    ),
                ));
            }
            (Some(wanted), _) => wanted,
            (None, Some(found)) => found,
            (None, None) if path.is_file() => Format::Disk(DiskFormat::Raw),
            (None, None) if path.exists() => {
                return Err(Error::invalid(
                    path.display().to_string(),
                    "is of no known image format; name one with -t",
                ));
            }
            (None, None) => {
                return Err(Error::NotFound(format!(
                    "image source {:?} (a file, or FORMAT:PATH with a format out of {KNOWN})",
                    shorten(text)
                )));
            }
        };
        Self::build(format, rest, home, true)
    }

    /// Parses the DESTINATION of an export of a container image, or of a `vm` image.
    ///
    /// An OCI folder without a tag gets the tag `latest`, as in pcocc 0.7.
    pub fn destination(
        text: &str,
        format: Option<&str>,
        home: Option<&Path>,
        vm: bool,
    ) -> Result<Self> {
        let (named, rest) = split(text, format)?;
        let default = if vm {
            Format::Disk(DiskFormat::Raw)
        } else {
            Format::DockerArchive
        };
        let format = named
            .or_else(|| by_extension(&expand(rest, home)))
            .unwrap_or(default);
        if vm != matches!(format, Format::Disk(_)) {
            return Err(Error::invalid(
                format!("format {}", format.name()),
                if vm {
                    "is not for virtual machine images; choose raw, qcow2, qed, vdi, vpc or vmdk"
                } else {
                    "is not for container images; choose docker-archive, oci, docker-daemon or docker"
                },
            ));
        }
        Self::build(format, rest, home, false)
    }

    fn build(format: Format, rest: &str, home: Option<&Path>, source: bool) -> Result<Self> {
        if rest.is_empty() || rest.contains('\0') {
            return Err(Error::invalid(
                format!("{}:{}", format.name(), shorten(rest)),
                "names no image; a path or reference belongs behind the colon",
            ));
        }
        Ok(match format {
            Format::Docker => Self::Registry {
                reference: rest.strip_prefix("//").unwrap_or(rest).to_owned(),
            },
            Format::DockerDaemon => Self::DockerDaemon {
                reference: rest.strip_prefix("//").unwrap_or(rest).to_owned(),
            },
            Format::Disk(format) => Self::VmDisk {
                path: expand(rest, home),
                format,
            },
            Format::DockerArchive => {
                let (path, reference) = suffix(rest, home, source);
                Self::DockerArchive { path, reference }
            }
            Format::Oci => {
                let (path, tag) = layout_folder(rest, home);
                let tag = if source {
                    tag
                } else {
                    tag.or_else(|| Some("latest".to_owned()))
                };
                Self::OciFolder { path, tag }
            }
        })
    }
}

/// Splits `FORMAT:rest` and checks the format against `-t`.
fn split<'a>(text: &'a str, flag: Option<&str>) -> Result<(Option<Format>, &'a str)> {
    let flag = match flag {
        None => None,
        Some(name) => Some(Format::parse(name)?.ok_or_else(|| {
            Error::invalid(
                format!("image format {:?}", shorten(name)),
                format!("is not known; use one of {KNOWN}"),
            )
        })?),
    };
    let prefixed = match text.split_once(':') {
        Some((prefix, rest)) => Format::parse(prefix)?.map(|format| (format, rest)),
        None => None,
    };
    if let Some((Format::Docker, rest)) = prefixed
        && !rest.is_empty()
        && !rest.starts_with("//")
    {
        // The word could be the tag of an image called docker.
        return Err(Error::invalid(
            format!("docker:{}", shorten(rest)),
            format!("lacks two slashes; write docker://{}", shorten(rest)),
        ));
    }
    match (flag, prefixed) {
        (None, Some((format, rest))) => Ok((Some(format), rest)),
        (Some(wanted), Some((format, rest))) if wanted == format => Ok((Some(format), rest)),
        (Some(wanted), Some((format, _))) => Err(Error::invalid(
            format!("-t {}", wanted.name()),
            format!("contradicts the prefix {:?}; leave one out", format.name()),
        )),
        (flag, None) => Ok((flag, text)),
    }
}

/// Splits a `:reference` off a path, unless the whole names an existing file.
fn suffix(rest: &str, home: Option<&Path>, source: bool) -> (PathBuf, Option<String>) {
    let whole = expand(rest, home);
    if source && whole.exists() {
        return (whole, None);
    }
    match rest.split_once(':') {
        Some((path, suffix)) if !path.is_empty() && !suffix.is_empty() => {
            (expand(path, home), Some(suffix.to_owned()))
        }
        Some((path, _)) if !path.is_empty() => (expand(path, home), None),
        _ => (whole, None),
    }
}

/// Splits `FOLDER:TAG`: tags are names of images, which may have colons and slashes, so the first colon behind a folder that
/// is there ends the folder. Where there is none, the folder is to be made, and the first colon ends it.
fn layout_folder(rest: &str, home: Option<&Path>) -> (PathBuf, Option<String>) {
    let whole = expand(rest, home);
    if whole.exists() {
        return (whole, None);
    }
    let colons = || rest.match_indices(':').map(|(at, _)| rest.split_at(at));
    let there = |(folder, _): &(&str, &str)| !folder.is_empty() && expand(folder, home).is_dir();
    let split = colons()
        .find(there)
        .or_else(|| colons().find(|(folder, _)| !folder.is_empty()));
    match split {
        Some((folder, tag)) => {
            let tag = tag.get(1..).filter(|tag| !tag.is_empty());
            (expand(folder, home), tag.map(str::to_owned))
        }
        None => (whole, None),
    }
}

fn expand(path: &str, home: Option<&Path>) -> PathBuf {
    match (path.strip_prefix("~/"), home) {
        (Some(rest), Some(home)) => home.join(rest),
        _ => PathBuf::from(path),
    }
}

fn by_extension(path: &Path) -> Option<Format> {
    let extension = path.extension()?.to_str()?.to_ascii_lowercase();
    DiskFormat::parse(&extension).map(Format::Disk)
}

/// Finds a format by content; `None` when there is no file, or no known magic number.
fn detect(path: &Path) -> Result<Option<Format>> {
    if path.is_dir() {
        let layout = path.join(MARKER_NAME);
        return Ok(layout.is_file().then_some(Format::Oci));
    }
    if !path.is_file() {
        return Ok(None);
    }
    if let Some(disk) = vmdisk::detect(path)? {
        return Ok(Some(Format::Disk(disk)));
    }
    Ok(archive::looks_like(path)?.then_some(Format::DockerArchive))
}

/// Shortens a hostile argument that would fill the screen.
fn shorten(text: &str) -> String {
    match text.char_indices().nth(100) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests;
