//! `pcocc docker edit`: an image changed in a container of docker.
//!
//! Data path: both names are checked → the image goes to docker, without the layers that docker has → a shell
//! in a container of the image uses the terminal ([`terminal`]), or a script runs → the changes come back as
//! one layer and are stored as DEST. From the start of the shell on, changes stay in the container until they
//! are stored.

mod terminal;

use std::path::PathBuf;
use std::sync::Arc;

use pcocc_image::Error;
use pcocc_image::origin::{Origin, Parent};
use pcocc_image::reference::ImageUri;
use pcocc_image::repository::{Kind, Repositories, RepositoryImage, RepositorySink};
use pcocc_image::transfer::{self, Layout as _, Sink as _};
use pcocc_remote::docker::Daemon;
use pcocc_remote::docker::edit::{EditContainer, EditOptions, EditedImage, HistoryEntry, Kept};

use crate::errors::{FAILED, Failure, Outcome, USAGE, While as _};
use crate::invocation::{Invocation, Run};
use crate::messages::{complain, warn};
use crate::output;
use crate::prompt;

const EDITING: &str = "\
###########################################
# You are now editing your image          #
# Hit CTRL + D to save your modifications #
###########################################
";

const SAVING: &str = "\
###########################################
# Saving modified image ...               #
###########################################
";

/// Change an image in a shell inside docker
///
/// Opens a shell in a container of SRC; when it ends, what was changed is stored as the new image DEST,
/// which otherwise is SRC: it has the same command, user, variables and so on. The shell is the image's
/// bash or sh and runs as root. Should saving fail, the changes are kept in docker and can be saved again.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  pcocc docker edit cont-centos new-centos\n  \
    pcocc docker edit -E 'yum install -y gcc && yum clean all' centos centos-gcc\n  \
    pcocc docker edit --with-tools ~/busybox-static distroless debug\n\n\
    With -E, or without a terminal, a script that fails saves nothing; its exit status is passed on. Volumes \
    of the image are ordinary folders in the shell, so that changes in them are saved, too."
)]
pub(crate) struct Args {
    /// Image to change: [REPO:]IMAGE[@REVISION]; it stays as it is
    source: String,
    /// Image to make: [REPO:]IMAGE; its name must be free
    dest: String,
    /// Run SCRIPT in the image's shell, instead of opening it
    #[arg(short = 'E', long, value_name = "SCRIPT")]
    script: Option<String>,
    /// The shell, with arguments if need be: a program of the image
    #[arg(long, value_name = "SHELL")]
    shell: Option<String>,
    /// The user the shell runs as
    #[arg(long, default_value = "0")]
    user: String,
    /// Docker's network for the shell, such as none or host
    #[arg(long, value_name = "NET")]
    network: Option<String>,
    /// Show the folder DIR of docker's machine at the end of the shell's PATH, for images without tools; it
    /// has sh or busybox in it, and does not become part of the image
    #[arg(long, value_name = "DIR")]
    with_tools: Option<PathBuf>,
    /// Save nothing when the shell ends with another status than 0, and do not ask
    #[arg(long)]
    discard: bool,
    /// Open no shell: save what is kept in CONTAINER since an edit could not be saved
    #[arg(long, value_name = "CONTAINER", conflicts_with_all = ["script", "shell", "user", "network", "with_tools", "discard"])]
    save: Option<String>,
}

/// Source and destination of an edit.
struct Job {
    repositories: Arc<Repositories>,
    source: RepositoryImage,
    /// `REPO:IMAGE`.
    source_name: String,
    sink: RepositorySink,
    dest_name: String,
}

impl Run for Args {
    fn action(&self) -> String {
        format!("edit image {} as {}", self.source, self.dest)
    }

    fn run(self, invocation: &Invocation) -> Outcome {
        let options = self
            .options(invocation)
            .when(|| format!("edit image {}", self.source))?;
        let job = self.job(invocation)?;
        let daemon = invocation.daemon()?;
        let container = match &self.save {
            Some(name) => {
                let context = invocation.quietly();
                let base = job.source.image(&context)?;
                EditContainer::reopen(&daemon, name, &job.source_name, base, &context)?
            }
            None => self.edit(&job, &daemon, &options, invocation)?,
        };
        self.store(job, &daemon, container, invocation)
    }
}

impl Args {
    fn options(&self, invocation: &Invocation) -> Outcome<EditOptions> {
        let shell = self.shell.as_deref().map(|shell| {
            let words = shell_words::split(shell)?;
            match words.is_empty() {
                true => Err(Failure::because("--shell is empty").code(USAGE)),
                false => Ok(words),
            }
        });
        let tools = self.with_tools.as_deref().map(std::path::absolute);
        Ok(EditOptions {
            shell: shell.transpose()?,
            script: self.script.clone(),
            terminal: self.script.is_none() && invocation.environment.terminal.types,
            user: self.user.clone(),
            network: self.network.clone(),
            tools: tools.transpose()?,
        })
    }

    /// Finds the source, and checks that the destination can be made.
    fn job(&self, invocation: &Invocation) -> Outcome<Job> {
        let from: ImageUri = self.source.parse()?;
        let to: ImageUri = self.dest.parse()?;
        let repositories = invocation.host.repositories()?;
        let (repository, meta) = repositories.find(&from)?;
        let target = repositories.destination(&to)?;
        if meta.kind() == Kind::VirtualMachine {
            let why = format!("{from} is the disk of a virtual machine, which docker cannot run");
            return Err(Failure::because(why));
        }
        if repository.path() == target.path() && meta.name() == to.name {
            let why = "an image is not changed in place, and both names are of the same one";
            return Err(Failure::because(why)
                .hint("give the changed image another name")
                .code(USAGE));
        }
        let source_name = format!("{}:{}", repository.name(), meta.name());
        let source = RepositoryImage::new(Arc::clone(repository), meta);
        let sink = RepositorySink::new(Arc::clone(repositories), &to, target.options())?;
        // Errors of the destination must show before an hour of work.
        sink.open(&invocation.quietly())?;
        Ok(Job {
            dest_name: format!("{}:{}", target.name(), to.name),
            repositories: Arc::clone(repositories),
            source,
            source_name,
            sink,
        })
    }

    /// Lets the user or the script change the image; returns when there are changes to save.
    fn edit(
        &self,
        job: &Job,
        daemon: &Daemon,
        options: &EditOptions,
        invocation: &Invocation,
    ) -> Outcome<EditContainer> {
        Self::collect(daemon, &job.repositories, invocation);
        let (container, attached) = invocation.drawn(|context| {
            let container = EditContainer::prepare(daemon, &job.source, &job.source_name, context)?;
            let attached = container.start(options, context)?;
            Ok::<_, Error>((container, attached))
        })?;
        if options.terminal && !invocation.is_quiet() {
            complain(EDITING);
        }
        let relay = terminal::Relay {
            container: &container,
            on_terminal: options.terminal,
            reads_input: options.script.is_none() || !invocation.environment.terminal.types,
            cancel: &invocation.cancel,
        };
        let ended = relay
            .run(attached)
            .and_then(|()| container.exit_status(&invocation.quietly()));
        let is_script = !options.terminal;
        let status = match ended {
            Ok(status) => status,
            Err(error) => {
                // A script can be run again; typed changes cannot.
                let lost = is_script && matches!(error, Error::Cancelled);
                if !lost && container.is_changed().unwrap_or(true) {
                    return Err(self.kept(container, error));
                }
                return Err(Failure::from(error));
            }
        };
        if status == 0 {
            return Ok(container);
        }
        let why = |what| format!("{what} ended with status {status}; nothing was saved");
        if is_script {
            let what = match self.script {
                Some(_) => "the script",
                None => "the shell",
            };
            let code = u8::try_from(status).unwrap_or(FAILED);
            return Err(Failure::because(why(what)).code(code));
        }
        if self.discard {
            return Err(Failure::because(why("the shell")));
        }
        let question =
            format!("The shell ended with status {status}. Save the modified image anyway?");
        match prompt::yes(&question, &invocation.cancel) {
            Some(true) => Ok(container),
            Some(false) => Err(Failure::because(why("the shell"))),
            None => Err(self.kept(container, Error::Cancelled)),
        }
    }

    /// Stores the changed image.
    fn store(
        &self,
        job: Job,
        daemon: &Daemon,
        mut container: EditContainer,
        invocation: &Invocation,
    ) -> Outcome {
        if !invocation.is_quiet() {
            complain(SAVING);
        }
        container.keep();
        let entry = HistoryEntry {
            created: jiff::Timestamp::now().to_string(),
            created_by: self.command_line(None),
        };
        let origin = Origin {
            made_by: "pcocc docker edit".to_owned(),
            daemon: Some(daemon.endpoint().to_string()),
            parent: Some(Parent {
                name: job.source_name.clone(),
                id: Some(container.base().id()),
                manifest: Some(container.base().manifest_digest()),
            }),
            ..Origin::default()
        };
        let sink = job.sink.with_origin(Some(origin));
        let edited = EditedImage::new(&container, &job.source, entry);
        let copied = invocation.drawn(|context| transfer::copy(&edited, &sink, context));
        match copied {
            Ok(image) => {
                container.release();
                drop(container);
                output::text(&format!(
                    "Edited image: {} ({})\n",
                    job.dest_name,
                    image.id()
                ))
            }
            Err(error) => Err(self.kept(container, error)),
        }
    }

    /// Keeps the container; the failure says how to save its changes.
    fn kept(&self, mut container: EditContainer, error: Error) -> Failure {
        container.keep();
        let name = container.name();
        let first = match &error {
            Error::Exists(_) => " under another name",
            Error::Unreachable { .. } => ", once the daemon answers again,",
            _ => "",
        };
        Failure::from(error).hint(format!(
            "the changes are kept in docker container {name}: save them{first} with `{}`, or drop them with \
             `docker rm -f {name}`",
            self.command_line(Some(&name))
        ))
    }

    /// The command as it can be typed; with `save`, the command that saves that container.
    fn command_line(&self, save: Option<&str>) -> String {
        let mut words = vec!["pcocc", "docker", "edit"];
        match (save, &self.script) {
            (Some(container), _) => words.extend(["--save", container]),
            (None, Some(script)) => words.extend(["-E", script]),
            (None, None) => {}
        }
        words.extend([self.source.as_str(), self.dest.as_str()]);
        shell_words::join(words)
    }

    /// Removes the remains of killed edits, and reminds of unsaved changes.
    fn collect(daemon: &Daemon, repositories: &Repositories, invocation: &Invocation) {
        let kept = match EditContainer::collect(daemon, &invocation.quietly()) {
            Ok(kept) => kept,
            Err(error) => {
                // If the problem matters, the next request reports it.
                tracing::debug!(%error, "cannot look for what earlier edits left");
                return;
            }
        };
        // The daemon may have other users with images of the same name.
        let is_ours = |kept: &Kept| {
            let source = kept.source.parse().ok();
            let source = source.and_then(|uri: ImageUri| repositories.image(&uri).ok());
            let image = source.and_then(|source| source.image(&invocation.quietly()).ok());
            image.is_some_and(|image| kept.image.is_none_or(|id| id == image.id()))
        };
        for kept in kept.into_iter().filter(is_ours) {
            let save = [
                "pcocc",
                "docker",
                "edit",
                "--save",
                &kept.container,
                &kept.source,
                "DEST",
            ];
            warn(&format!(
                "docker container {0} holds changes of image {1} that were never saved: save them with `{2}`, \
                 or drop them with `docker rm -f {0}`",
                kept.container,
                kept.source,
                shell_words::join(save)
            ));
        }
    }
}
