//! The common part of verbs that move images: opening both ends, the copy, and the report.

use std::path::Path;
use std::sync::Arc;

use pcocc_image::Result;
use pcocc_image::archive::{ArchiveFile, ArchiveSink};
use pcocc_image::formats::Location;
use pcocc_image::layout::{LayoutFolder, LayoutSink};
use pcocc_image::oci::Platform;
use pcocc_image::origin::Origin;
use pcocc_image::reference::ImageUri;
use pcocc_image::repository::{
    Kind, Meta, Repositories, Repository, RepositoryImage, RepositorySink,
};
use pcocc_image::transfer::{self, Context, Sink, Source};
use pcocc_image::vmdisk::{self, DiskFormat};
use pcocc_remote::docker::{DaemonSink, DaemonSource};
use pcocc_remote::registry::RegistryImage;

use crate::errors::{Failure, Outcome};
use crate::invocation::Invocation;
use crate::output;

/// Imports `source` as the image `dest`; of several images the one for `machine`. `verb` is noted in the image's origin.
pub(crate) fn import(
    invocation: &Invocation,
    source: &Location,
    machine: Platform,
    dest: &str,
    verb: &str,
) -> Outcome {
    let uri: ImageUri = dest.parse()?;
    let repositories = invocation.host.repositories()?;
    let repository = repositories.destination(&uri)?;
    let made = format!("{}:{}", repository.name(), uri.name);
    if let Location::VmDisk { path, format } = source {
        invocation.drawn(|context| import_disk(repositories, &uri, path, *format, context))?;
        return output::text(&format!("Imported image: {made}\n"));
    }
    let sink = RepositorySink::new(Arc::clone(repositories), &uri, repository.options())?
        .with_origin(origin(invocation, source, verb)?);
    let source = open_source(invocation, source, machine)?;
    let image = invocation.drawn(|context| transfer::copy(&*source, &sink, context))?;
    output::text(&format!("Imported image: {made} ({})\n", image.id()))
}

/// Copies the image `source` to the image `dest`.
pub(crate) fn copy(invocation: &Invocation, source: &str, dest: &str) -> Outcome {
    let from: ImageUri = source.parse()?;
    let to: ImageUri = dest.parse()?;
    let repositories = invocation.host.repositories()?;
    let (repository, meta) = repositories.find(&from)?;
    let target = repositories.destination(&to)?;
    let made = format!("{}:{}", target.name(), to.name);
    if meta.kind() == Kind::VirtualMachine {
        invocation.drawn(|context| repositories.copy_virtual_machine(&from, &to, context))?;
        return output::text(&format!("Copied image: {made}\n"));
    }
    let sink = RepositorySink::new(Arc::clone(repositories), &to, target.options())?
        .with_origin(meta.origin());
    let source = RepositoryImage::new(Arc::clone(repository), meta);
    let image = invocation.drawn(|context| transfer::copy(&source, &sink, context))?;
    output::text(&format!("Copied image: {made} ({})\n", image.id()))
}

/// Exports the image `source`; `dest` gives the destination once the kind of the image is known.
pub(crate) fn export(
    invocation: &Invocation,
    source: &str,
    dest: impl FnOnce(Kind) -> pcocc_image::Result<Location>,
) -> Outcome {
    let uri: ImageUri = source.parse()?;
    let repositories = invocation.host.repositories()?;
    let (repository, meta) = repositories.find(&uri)?;
    let dest = dest(meta.kind())?;
    if let Location::VmDisk { path, format } = &dest {
        let temporary = &invocation.environment.temporary;
        invocation
            .drawn(|context| export_disk(repository, &meta, temporary, path, *format, context))?;
        return output::text(&format!("Exported image: {}\n", path.display()));
    }
    let source = RepositoryImage::new(Arc::clone(repository), meta);
    let sink = open_sink(invocation, &dest)?;
    let image = invocation.drawn(|context| transfer::copy(&source, &*sink, context))?;
    output::text(&format!(
        "Exported image: {} ({})\n",
        shown(&dest),
        image.id()
    ))
}

/// The origin of an image from `source`. Files are not noted: their paths mean little to others.
fn origin(invocation: &Invocation, source: &Location, verb: &str) -> Outcome<Option<Origin>> {
    let daemon = match source {
        Location::DockerDaemon { .. } => Some(invocation.host.endpoint()?.to_string()),
        Location::Registry { .. } => None,
        _ => return Ok(None),
    };
    Ok(Some(Origin {
        made_by: verb.to_owned(),
        daemon,
        source: Some(shown(source)),
        ..Origin::default()
    }))
}

fn import_disk(
    repositories: &Repositories,
    uri: &ImageUri,
    path: &Path,
    format: DiskFormat,
    context: &Context,
) -> Result<Meta> {
    let repository = repositories.destination(uri)?;
    // This must fail before the conversion, which can take long.
    repository.check_writable()?;
    repository.check_free(&uri.name)?;
    let disk = repository.temp_blob()?;
    vmdisk::import(path, format, &disk.path_for_children(), context)?;
    repositories.add_virtual_machine(uri, disk, context)
}

fn export_disk(
    repository: &Repository,
    meta: &Meta,
    temporary: &Path,
    path: &Path,
    format: DiskFormat,
    context: &Context,
) -> Result<()> {
    let disk = repository.disk(meta, temporary, context)?;
    vmdisk::export(&disk, path, format, context)
}

/// The default docker name `NAME:latest`, or the notation of the location.
fn shown(location: &Location) -> String {
    let with = |path: &Path, name: &Option<String>| match name {
        Some(name) => format!("{}:{name}", path.display()),
        None => path.display().to_string(),
    };
    match location {
        Location::DockerArchive { path, reference } => with(path, reference),
        Location::OciFolder { path, tag } => with(path, tag),
        Location::DockerDaemon { reference } => match reference.rsplit_once('/') {
            // A colon before the last slash belongs to a registry's port.
            Some((_, name)) if name.contains(':') => reference.clone(),
            None if reference.contains(':') => reference.clone(),
            _ => format!("{reference}:latest"),
        },
        Location::Registry { reference } => format!("docker://{reference}"),
        Location::VmDisk { path, .. } => path.display().to_string(),
    }
}

fn open_source(
    invocation: &Invocation,
    location: &Location,
    machine: Platform,
) -> Outcome<Box<dyn Source>> {
    Ok(match location {
        Location::DockerArchive { path, reference } => {
            let context = invocation.quietly();
            Box::new(ArchiveFile::open(path, reference.as_deref(), &context)?)
        }
        Location::OciFolder { path, tag } => {
            Box::new(LayoutFolder::open(path, tag.as_deref(), machine)?)
        }
        Location::DockerDaemon { reference } => {
            Box::new(DaemonSource::new(invocation.daemon()?, reference))
        }
        Location::Registry { reference } => {
            let access = invocation.host.registries()?;
            Box::new(RegistryImage::new(reference, access)?.for_machine(machine))
        }
        Location::VmDisk { path, .. } => return Err(not_an_image(path)),
    })
}

fn open_sink(invocation: &Invocation, location: &Location) -> Outcome<Box<dyn Sink>> {
    Ok(match location {
        Location::DockerArchive { path, reference } => {
            Box::new(ArchiveSink::new(path, reference.as_deref()))
        }
        Location::OciFolder { path, tag } => Box::new(LayoutSink::new(path, tag.as_deref())),
        Location::DockerDaemon { reference } => {
            Box::new(DaemonSink::new(invocation.daemon()?, reference)?)
        }
        Location::Registry { reference } => {
            let access = invocation.host.registries()?;
            Box::new(RegistryImage::new(reference, access)?)
        }
        Location::VmDisk { path, .. } => return Err(not_an_image(path)),
    })
}

fn not_an_image(path: &Path) -> Failure {
    Failure::because(format!(
        "{} is the disk of a virtual machine",
        path.display()
    ))
}
