//! Changing an image in a container.
//!
//! Phases: the image goes to the daemon under a temporary name, its layers but a config that does nothing
//! by itself ([`config::bare`]) → a container of it runs a shell, or a script ([`EditContainer::start`]) →
//! the caller talks to it ([`Attached`]) until it ends → [`EditedImage`] is the result as a source of a
//! transfer: the source's layers from the repository, the new one from the daemon, and the source's config
//! with what is new ([`config::edited`]).
//!
//! Container and images are named `pcocc-edit-TOKEN` and `pcocc-edit:TOKEN`, and carry labels that say
//! whose they are. They are removed when the [`EditContainer`] goes, unless the changes in it are worth
//! keeping; what killed processes left is found by the labels ([`EditContainer::collect`]).

pub(super) mod changes;
pub mod config;
mod leftovers;
mod source;

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};

pub use config::HistoryEntry;
pub use leftovers::Kept;
pub use source::EditedImage;

use super::attach::Attached;
use super::client::{Daemon, ImageStore};
use super::container::{ContainerSpec, Parents};
use super::load::DaemonSink;
use pcocc_image::oci::{Image, Layer};
use pcocc_image::repository::process_prefix;
use pcocc_image::transfer::{self, Context, Layout};
use pcocc_image::{Error, Result};
use pcocc_layers::Digest;

/// Name of the images' repository in the daemon, and prefix of the containers' names.
const NAME: &str = "pcocc-edit";

/// Label: the token of an edit.
const TOKEN: &str = "pcocc.edit";
/// Label: machine and number of the process that edits.
const PROCESS: &str = "pcocc.edit.process";
/// Label: ID of the image that is edited.
const IMAGE: &str = "pcocc.edit.image";
/// Label: what the user calls that image.
const SOURCE: &str = "pcocc.edit.source";

/// Where the folder of tools is seen in the container: on the file system of devices that every container
/// has of its own, so that the mount leaves no trace in the image.
const TOOLS: &str = "/dev/pcocc-tools";

/// Docker's own PATH, for images that set none.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Most layers of an image to which docker can add one more (`maxLayerDepth` of its layer store).
const MAX_LAYERS: usize = 124;

/// How an image is to be edited.
#[derive(Clone, Debug, Default)]
pub struct EditOptions {
    /// Shell and its arguments; bash or sh, whichever the image has, when not given.
    pub shell: Option<Vec<String>>,
    /// What the shell shall run, instead of what comes to it.
    pub script: Option<String>,
    /// Whether the shell runs on a terminal.
    pub terminal: bool,
    /// As whom: a user of the image, or a number.
    pub user: String,
    /// Docker's name of the network.
    pub network: Option<String>,
    /// Folder with tools that the image has not: `sh`, or `busybox`.
    pub tools: Option<PathBuf>,
}

/// A container in which an image is changed. It goes with this value, unless it is kept.
#[derive(Debug)]
pub struct EditContainer {
    daemon: Daemon,
    token: String,
    source: String,
    base: Image,
    kept: bool,
}

/// An image with the files of another and a config of its own.
struct Bare<'a> {
    files: &'a dyn Layout,
    image: Image,
}

impl Layout for Bare<'_> {
    fn image(&self, _context: &Context) -> Result<Image> {
        Ok(self.image.clone())
    }

    fn open_layer<'a>(&'a self, layer: &Layer) -> Result<Box<dyn std::io::Read + Send + 'a>> {
        self.files.open_layer(layer)
    }

    fn layer_file(&self, layer: &Layer) -> Option<File> {
        self.files.layer_file(layer)
    }
}

impl EditContainer {
    /// Brings the image `files`, which the user calls `source`, to the daemon, but for what it has.
    pub fn prepare(
        daemon: &Daemon,
        files: &dyn Layout,
        source: &str,
        context: &Context,
    ) -> Result<Self> {
        let base = files.image(context)?;
        if base.layers().len() > MAX_LAYERS {
            return Err(Error::invalid(
                format!("image {source}"),
                format!(
                    "has {} layers, and docker can add one to at most {MAX_LAYERS}; build one with fewer, \
                     for instance from its files (FROM scratch, ADD)",
                    base.layers().len()
                ),
            ));
        }
        let edit = Self {
            daemon: daemon.clone(),
            token: token(),
            source: source.to_owned(),
            base,
            kept: false,
        };
        let config = config::bare(edit.base.config(), &edit.labels())?;
        let bare = Bare {
            files,
            image: Image::assemble(config, edit.base.layers().to_vec())?,
        };
        let sink = DaemonSink::new(daemon.clone(), &edit.image_name())?;
        transfer::copy(&bare, &sink, context)?;
        Ok(edit)
    }

    /// Takes up the container `name` that an earlier edit of the image `base` left.
    pub fn reopen(
        daemon: &Daemon,
        name: &str,
        source: &str,
        base: Image,
        context: &Context,
    ) -> Result<Self> {
        let missing = || {
            Error::NotFound(format!(
                "container {name} of an edit, in the docker daemon at {}",
                daemon.endpoint()
            ))
        };
        let token = name.strip_prefix("pcocc-edit-").ok_or_else(missing)?;
        let asking = daemon.until(&context.cancel);
        let found = asking.container(name)?.ok_or_else(missing)?;
        let of = found.labels.get(IMAGE).ok_or_else(missing)?;
        if *of != base.id().to_string() {
            let source = found.labels.get(SOURCE).map_or("", String::as_str);
            return Err(Error::invalid(
                format!("container {name}"),
                format!("is of another image, {source} ({of})"),
            ));
        }
        if found.is_running {
            asking.kill_container(name)?;
        }
        Ok(Self {
            daemon: daemon.clone(),
            token: token.to_owned(),
            source: source.to_owned(),
            base,
            // Until it is saved it is as precious as before.
            kept: true,
        })
    }

    /// The container's name.
    pub fn name(&self) -> String {
        format!("{NAME}-{}", self.token)
    }

    /// The image that is edited.
    pub fn base(&self) -> &Image {
        &self.base
    }

    /// Runs the shell in a new container, and gives its streams.
    pub fn start(&self, options: &EditOptions, context: &Context) -> Result<Attached> {
        let daemon = self.daemon.until(&context.cancel);
        let tools = options.tools.as_deref().map(tool_shells).transpose()?;
        let mut spec = ContainerSpec {
            image: self.image_name(),
            command: vec!["/bin/bash".to_owned()],
            terminal: options.terminal,
            user: options.user.clone(),
            environment: Vec::new(),
            labels: self.labels(),
            network: options.network.clone(),
            mount: options
                .tools
                .clone()
                .map(|folder| (folder, TOOLS.to_owned())),
        };
        let path = config::variable(self.base.config(), "PATH")
            .filter(|path| !path.is_empty())
            .unwrap_or_else(|| DEFAULT_PATH.to_owned());
        if tools.is_some() {
            spec.environment.push(format!("PATH={path}:{TOOLS}"));
        }
        if let Some(shell) = &options.shell {
            spec.command = with_script(shell.clone(), options);
            daemon.create_container(&self.name(), spec)?;
        } else {
            spec.command = with_script(spec.command, options);
            daemon.create_container(&self.name(), spec.clone())?;
            let own = self.find_shell(&daemon, &path)?;
            let shell = own.map(|shell| vec![shell]).or(tools).ok_or_else(|| {
                Error::invalid(
                    format!("image {}", self.source),
                    "has neither bash nor sh; name another shell of the image with --shell, or bring \
                     one along with --with-tools DIR, a folder with a static busybox for instance",
                )
            })?;
            let command = with_script(shell, options);
            if command != spec.command {
                daemon.remove_container(&self.name())?;
                spec.command = command;
                daemon.create_container(&self.name(), spec)?;
            }
        }
        let attached = daemon.attach(&self.name(), options.terminal)?;
        daemon.start_container(&self.name())?;
        Ok(attached)
    }

    /// Tells the shell how large its terminal is.
    pub fn resize(&self, columns: u16, rows: u16) -> Result<()> {
        self.daemon.resize_container(&self.name(), columns, rows)
    }

    /// Waits for the end of the shell, whose streams are closed, and gives its exit status.
    pub fn exit_status(&self, context: &Context) -> Result<i64> {
        self.daemon
            .until(&context.cancel)
            .wait_container(&self.name())
    }

    /// Ends the shell. What it changed stays.
    pub fn stop(&self) -> Result<()> {
        self.daemon.kill_container(&self.name())
    }

    /// Whether anything was changed.
    pub fn is_changed(&self) -> Result<bool> {
        Ok(!self.daemon.container_changes(&self.name())?.is_empty())
    }

    /// Keeps the container and the image below it from being removed.
    pub fn keep(&mut self) {
        self.kept = true;
    }

    /// Lets the container be removed after all.
    pub fn release(&mut self) {
        self.kept = false;
    }

    /// Removes what edits of dead processes left, and tells of containers that hold changes.
    pub fn collect(daemon: &Daemon, context: &Context) -> Result<Vec<Kept>> {
        leftovers::collect(&daemon.until(&context.cancel))
    }

    /// Name of the image below the container.
    fn image_name(&self) -> String {
        format!("{NAME}:{}", self.token)
    }

    /// Tag of the image that is made of the container.
    fn saved_tag(&self) -> String {
        format!("{}-saved", self.token)
    }

    fn labels(&self) -> Vec<(String, String)> {
        [
            (TOKEN, self.token.clone()),
            (PROCESS, process_prefix()),
            (IMAGE, self.base.id().to_string()),
            (SOURCE, self.source.clone()),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .into()
    }

    /// The first of the image's own shells that is there, bash before sh.
    fn find_shell(&self, daemon: &Daemon, path: &str) -> Result<Option<String>> {
        for shell in ["bash", "sh"] {
            for folder in path.split(':').filter(|folder| folder.starts_with('/')) {
                let file = format!("{}/{shell}", folder.trim_end_matches('/'));
                if daemon.container_has(&self.name(), &file)? {
                    return Ok(Some(file));
                }
            }
        }
        Ok(None)
    }

    /// How the daemon keeps images.
    fn image_store(&self, daemon: &Daemon) -> Result<ImageStore> {
        Ok(daemon.info()?.image_store)
    }
}

impl Drop for EditContainer {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        remove(&self.daemon, &self.token);
    }
}

/// Removes container and images of an edit.
fn remove(daemon: &Daemon, token: &str) {
    let log = |result: Result<()>| {
        if let Err(error) = result {
            // The labels tell a later edit, or the user, what it was.
            tracing::warn!(%error, "cannot remove what an edit needed");
        }
    };
    log(daemon.remove_container(&format!("{NAME}-{token}")));
    for tag in [format!("{token}-saved"), token.to_owned()] {
        log(daemon.forget_image(&format!("{NAME}:{tag}"), Parents::Go));
    }
    // A commit that was interrupted goes on in the daemon, and its image may have lost its name since.
    match daemon.images_labelled(&format!("{TOKEN}={token}")) {
        Ok(images) => {
            for (id, _) in images {
                log(daemon.forget_image(&id, Parents::Go));
            }
        }
        Err(error) => log(Err(error)),
    }
}

fn with_script(mut shell: Vec<String>, options: &EditOptions) -> Vec<String> {
    if let Some(script) = &options.script {
        shell.extend(["-c".to_owned(), script.clone()]);
    }
    shell
}

/// The shell among the tools in `folder`.
fn tool_shells(folder: &Path) -> Result<Vec<String>> {
    if !folder.is_absolute() {
        return Err(Error::invalid(
            format!("folder of tools {}", folder.display()),
            "is no absolute path",
        ));
    }
    if folder.join("sh").exists() {
        Ok(vec![format!("{TOOLS}/sh")])
    } else if folder.join("busybox").exists() {
        Ok(vec![format!("{TOOLS}/busybox"), "sh".to_owned()])
    } else {
        Err(Error::invalid(
            format!("folder of tools {}", folder.display()),
            "holds neither sh nor busybox",
        ))
    }
}

/// A name that no other edit in the daemon has.
fn token() -> String {
    use std::hash::{BuildHasher, Hasher};
    // Its keys are random, and others in every process and every call.
    let random = std::hash::RandomState::new().build_hasher().finish();
    format!("{:08x}", random & 0xffff_ffff)
}

/// The token of an edit's labels.
fn token_of(labels: &HashMap<String, String>) -> Option<&str> {
    let token = labels.get(TOKEN)?;
    // It becomes part of names: of images of others it could be anything.
    let legal = |c: char| c.is_ascii_hexdigit();
    (!token.is_empty() && token.chars().all(legal)).then_some(token.as_str())
}

/// ID of the image that a container with these labels was made to change.
fn image_of(labels: &HashMap<String, String>) -> Option<Digest> {
    labels.get(IMAGE)?.parse().ok()
}
