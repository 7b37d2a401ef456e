//! `pcocc docker build`: an image from a Dockerfile, built in docker and stored in a repository.
//!
//! Data path: DEST is checked → images that the Dockerfile needs and only the repositories have are exported,
//! if the user wants ([`bases`]) → docker's own command builds, in our terminal → the image, which has a
//! temporary name, is imported.

mod bases;
mod command;
mod name;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use pcocc_core::named;
use pcocc_image::origin::{Origin, Parent};
use pcocc_image::reference::ImageUri;
use pcocc_image::repository::RepositorySink;
use pcocc_image::transfer::{self, Sink as _};
use pcocc_layers::Digest;
use pcocc_remote::docker::{DaemonSource, ImageStore};
use pcocc_remote::dockerfile::Dockerfile;

use crate::environment::Environment;
use crate::errors::{Failure, Outcome};
use crate::invocation::{Invocation, Run};
use crate::output;

/// Most bytes of a Dockerfile.
const MAX_DOCKERFILE: u64 = 16 << 20;

/// Build an image from a Dockerfile inside docker
///
/// Runs `docker build` and stores what it made as DEST, with the layers and the image ID it has in docker.
/// A Dockerfile can be FROM an image of a repository once that is in docker: by `pcocc docker export`, or
/// with --export-from.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  pcocc docker build ./hello hello\n  \
    pcocc docker build --export-from --build-arg VERSION=2 ./app app\n  \
    pcocc docker build . app -- --network=none --label a=b\n\n\
    Output and exit status of the build are docker's. docker is looked for in docker_path of containers.yaml, \
    then in PATH.")]
pub(crate) struct Args {
    /// Folder of the Dockerfile; or, as docker takes it, a URL, or - to read from standard input
    path: String,
    /// Image to make: [REPO:]IMAGE; its name must be free
    dest: String,
    /// The Dockerfile, by default PATH/Dockerfile
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Value of an ARG of the Dockerfile; without a value, that of the environment variable
    #[arg(long, value_name = "NAME[=VALUE]")]
    build_arg: Vec<String>,
    /// The stage to build, by default the last
    #[arg(long, value_name = "STAGE")]
    target: Option<String>,
    /// Do every step again
    #[arg(long)]
    no_cache: bool,
    /// A secret for RUN --mount=type=secret, as docker takes it
    #[arg(long, value_name = "SECRET")]
    secret: Vec<String>,
    /// An ssh agent or key for RUN --mount=type=ssh, as docker takes it
    #[arg(long, value_name = "SSH")]
    ssh: Vec<String>,
    /// The platform to build for, such as linux/amd64
    #[arg(long)]
    platform: Option<String>,
    /// Export images of the repositories that the Dockerfile is built from, unless docker has them
    #[arg(long)]
    export_from: bool,
    /// Further options for docker build
    #[arg(last = true, value_name = "DOCKER OPTIONS")]
    docker: Vec<String>,
}

impl Run for Args {
    fn action(&self) -> String {
        format!("build image {} from {}", self.dest, self.path)
    }

    fn run(self, invocation: &Invocation) -> Outcome {
        let uri: ImageUri = self.dest.parse()?;
        let repositories = invocation.host.repositories()?;
        let target = repositories.destination(&uri)?;
        let made = format!("{}:{}", target.name(), uri.name);
        let sink = RepositorySink::new(Arc::clone(repositories), &uri, target.options())?;
        // Errors of the destination must show before the build.
        sink.open(&invocation.quietly())?;
        if self.export_from && !self.is_readable() {
            let why = format!(
                "--export-from reads the Dockerfile first, and cannot read that of {}",
                self.path
            );
            let hint = "put context and Dockerfile into a folder, or export the images yourself with `pcocc docker export`";
            return Err(Failure::because(why).hint(hint));
        }
        let daemon = invocation.daemon()?;

        let (dockerfile, digest) = self.dockerfile();
        let bases = bases::Bases {
            daemon: &daemon,
            repositories,
            invocation,
        };
        let missing = bases.provide(&dockerfile.images(), self.export_from, self.path != "-")?;

        let built = name::Built::new(daemon.clone(), &invocation.environment.temporary);
        let id =
            command::build(&self, &built, &daemon, invocation).map_err(|failure| match missing
                .is_empty()
            {
                true => failure,
                false => failure.or_hint(|| bases::hint(&missing)),
            })?;
        let parent = dockerfile
            .parent(self.target.as_deref())
            .filter(|name| *name != "scratch")
            .map(|name| Parent {
                name: name.to_owned(),
                id: daemon.inspect(name).ok().map(|image| image.id),
                manifest: None,
            });
        let origin = Origin {
            made_by: "pcocc docker build".to_owned(),
            daemon: Some(daemon.endpoint().to_string()),
            source: None,
            parent,
            dockerfile: digest,
        };
        let sink = sink.with_origin(Some(origin));
        let store = daemon.info()?.image_store;
        let mut source = DaemonSource::new(daemon, built.name());
        if store == ImageStore::GraphDriver {
            source = source.pinned(id);
        }
        let image = invocation.drawn(|context| transfer::copy(&source, &sink, context))?;
        output::text(&format!("Built image: {made} ({})\n", image.id()))
    }
}

impl Args {
    /// Whether the Dockerfile is a file of this machine: context and Dockerfile may also be standard input or an address.
    fn is_readable(&self) -> bool {
        Path::new(&self.path).is_dir() && self.file.as_deref() != Some(Path::new("-"))
    }

    /// The Dockerfile and its digest, if it is a local file; docker reports what is wrong with it.
    fn dockerfile(&self) -> (Dockerfile, Option<Digest>) {
        let file = match &self.file {
            Some(file) => file.clone(),
            None => Path::new(&self.path).join("Dockerfile"),
        };
        let Some(text) = self
            .is_readable()
            .then(|| named::read(&file, MAX_DOCKERFILE).ok())
            .flatten()
        else {
            return (Dockerfile::default(), None);
        };
        let variables = Environment::variables();
        let arguments = self.build_arg.iter().filter_map(|argument| {
            let (name, value) = match argument.split_once('=') {
                Some((name, value)) => (name, value.to_owned()),
                None => (argument.as_str(), variables.get(argument)?.clone()),
            };
            Some((name.to_owned(), value))
        });
        let parsed = Dockerfile::parse(&String::from_utf8_lossy(&text), &arguments.collect());
        (parsed, Some(Digest::of(&text)))
    }
}
