//! What the verbs that move images share: opening both ends, the copy, and the line about it.

use std::path::Path;
use std::sync::Arc;

use pcocc_image::archive::{ArchiveFile, ArchiveSink};
use pcocc_image::docker::{DaemonSink, DaemonSource};
use pcocc_image::formats::Location;
use pcocc_image::layout::{LayoutFolder, LayoutSink};
use pcocc_image::reference::ImageUri;
use pcocc_image::registry::RegistryImage;
use pcocc_image::repository::{Kind, RepositoryImage};
use pcocc_image::transfer::{self, Sink, Source};

use crate::app::Invocation;
use crate::errors::{Outcome, While as _};
use crate::output;
use crate::stores;
use crate::verbs::pending::Pending as _;

/// Imports what is at `source` as the image `dest`; `action` is what a failure failed to do.
pub(crate) fn import(
    invocation: &Invocation,
    source: &Location,
    dest: &str,
    action: &str,
) -> Outcome {
    let uri: ImageUri = dest.parse().when(|| action)?;
    let repositories = stores::repositories(&invocation.environment)?;
    let repository = repositories.destination(&uri).when(|| action)?;
    let made = format!("{}:{}", repository.name(), uri.name);
    if let Location::VmDisk { path, format } = source {
        let (_drawing, context) = invocation.draw();
        repositories
            .import_disk(path, *format, &uri, &context)
            .when(|| action)?;
        return output::text(&format!("Imported image: {made}\n"));
    }
    let sink = repositories.sink(&uri).when(|| action)?;
    let source = open_source(invocation, source, action)?;
    let image = {
        let (_drawing, context) = invocation.draw();
        transfer::copy(&*source, &*sink, &context).when(|| action)?
    };
    output::text(&format!("Imported image: {made} ({})\n", image.id()))
}

/// Exports the image `source`; `dest` tells where to, once it is known what kind of image it is.
pub(crate) fn export(
    invocation: &Invocation,
    source: &str,
    dest: impl FnOnce(Kind) -> pcocc_image::Result<Location>,
    action: &str,
) -> Outcome {
    let uri: ImageUri = source.parse().when(|| action)?;
    let repositories = stores::repositories(&invocation.environment)?;
    let (repository, meta) = repositories.find(&uri).when(|| action)?;
    let dest = dest(meta.kind()).when(|| action)?;
    if let Location::VmDisk { path, format } = &dest {
        let (_drawing, context) = invocation.draw();
        repository
            .export_disk(&meta, path, *format, &context)
            .when(|| action)?;
        return output::text(&format!("Exported image: {}\n", path.display()));
    }
    let source = RepositoryImage::new(Arc::clone(repository), meta);
    let sink = open_sink(invocation, &dest, action)?;
    let image = {
        let (_drawing, context) = invocation.draw();
        transfer::copy(&source, &*sink, &context).when(|| action)?
    };
    output::text(&format!(
        "Exported image: {} ({})\n",
        shown(&dest),
        image.id()
    ))
}

/// The default docker name `NAME:latest`, or a place's own notation.
fn shown(location: &Location) -> String {
    let with = |path: &Path, name: &Option<String>| match name {
        Some(name) => format!("{}:{name}", path.display()),
        None => path.display().to_string(),
    };
    match location {
        Location::DockerArchive { path, reference } => with(path, reference),
        Location::OciFolder { path, tag } => with(path, tag),
        Location::DockerDaemon { reference } => match reference.rsplit_once('/') {
            // A colon before the last slash is of a registry's port.
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
    action: &str,
) -> Outcome<Box<dyn Source>> {
    let environment = &invocation.environment;
    Ok(match location {
        Location::DockerArchive { path, reference } => {
            let context = invocation.quietly();
            Box::new(ArchiveFile::open(path, reference.as_deref(), &context).when(|| action)?)
        }
        Location::OciFolder { path, tag } => {
            Box::new(LayoutFolder::open(path, tag.as_deref()).when(|| action)?)
        }
        Location::DockerDaemon { reference } => Box::new(DaemonSource::new(
            stores::daemon(environment, action)?,
            reference,
        )),
        Location::Registry { reference } => {
            let access = stores::registries(environment)?;
            Box::new(RegistryImage::new(reference, access).when(|| action)?)
        }
        Location::VmDisk { path, .. } => return Err(not_an_image(path, action)),
    })
}

fn open_sink(invocation: &Invocation, location: &Location, action: &str) -> Outcome<Box<dyn Sink>> {
    let environment = &invocation.environment;
    Ok(match location {
        Location::DockerArchive { path, reference } => {
            Box::new(ArchiveSink::new(path, reference.as_deref()))
        }
        Location::OciFolder { path, tag } => Box::new(LayoutSink::new(path, tag.as_deref())),
        Location::DockerDaemon { reference } => Box::new(
            DaemonSink::new(stores::daemon(environment, action)?, reference).when(|| action)?,
        ),
        Location::Registry { reference } => {
            let access = stores::registries(environment)?;
            Box::new(RegistryImage::new(reference, access).when(|| action)?)
        }
        Location::VmDisk { path, .. } => return Err(not_an_image(path, action)),
    })
}

fn not_an_image(path: &Path, action: &str) -> crate::errors::Failure {
    crate::errors::Failure::message(
        action,
        format!("{} is the disk of a virtual machine", path.display()),
    )
}
