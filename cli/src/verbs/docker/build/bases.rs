//! Images that a Dockerfile needs, and that a repository has and docker lacks.

use std::sync::Arc;

use pcocc_image::Error;
use pcocc_image::reference::ImageUri;
use pcocc_image::repository::{Kind, Repositories, RepositoryImage};
use pcocc_image::transfer;
use pcocc_remote::docker::{Daemon, DaemonSink};

use crate::errors::{Failure, Outcome, While as _};
use crate::invocation::Invocation;
use crate::messages::warn;
use crate::prompt;

/// The daemon and the repositories.
pub(super) struct Bases<'a> {
    pub(super) daemon: &'a Daemon,
    pub(super) repositories: &'a Repositories,
    pub(super) invocation: &'a Invocation,
}

impl Bases<'_> {
    /// Exports the images of `names` that only a repository has: all if `export` is set, otherwise those that
    /// the user agrees to, if `asks` is set. Returns the images that were not exported.
    pub(super) fn provide(&self, names: &[&str], export: bool, asks: bool) -> Outcome<Vec<String>> {
        let mut missing = Vec::new();
        for name in names {
            match self.daemon.inspect(name) {
                Ok(_) => continue,
                Err(Error::NotFound(_)) => {}
                // This is no image's name, or a name that docker has to judge.
                Err(Error::Daemon { .. }) => continue,
                Err(error) => return Err(Failure::from(error)),
            }
            let Some(image) = self.find(name) else {
                continue;
            };
            let wanted = export
                || asks
                    && self.invocation.environment.terminal.types
                    && {
                        let question = format!(
                            "Image {name}, which the Dockerfile is built from, is in repository {} and not in \
                         docker. Export it?",
                            image.repository().name()
                        );
                        prompt::yes(&question, &self.invocation.cancel)
                            .ok_or_else(|| Failure::from(Error::Cancelled))?
                    };
            if wanted {
                self.export(&image, name)?;
            } else {
                missing.push((*name).to_owned());
            }
        }
        if !missing.is_empty() {
            warn(&format!(
                "docker will look for {} elsewhere: {}",
                missing.join(", "),
                hint(&missing)
            ));
        }
        Ok(missing)
    }

    /// The container image of a repository that a Dockerfile may mean by `name`.
    fn find(&self, name: &str) -> Option<RepositoryImage> {
        let uri: ImageUri = name.strip_suffix(":latest").unwrap_or(name).parse().ok()?;
        let (repository, meta) = self.repositories.find(&uri).ok()?;
        (meta.kind() == Kind::Container).then(|| RepositoryImage::new(Arc::clone(repository), meta))
    }

    fn export(&self, image: &RepositoryImage, name: &str) -> Outcome {
        let part = || format!("export {name} to docker");
        let sink = DaemonSink::new(self.daemon.clone(), name).part(part)?;
        let copied = |context: &_| transfer::copy(image, &sink, context);
        self.invocation.drawn(copied).part(part)?;
        Ok(())
    }
}

/// The hint for images that docker lacks.
pub(super) fn hint(missing: &[String]) -> String {
    let verb = match missing {
        [_] => "is",
        _ => "are",
    };
    format!(
        "{} {verb} in a repository, not in docker; --export-from exports what the Dockerfile is built from",
        missing.join(", ")
    )
}
