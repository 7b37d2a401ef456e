//! What is run, as a function of the image's config, `containers.yaml` and the options: nothing here looks
//! at the machine.
//!
//! The order in which variables are set is pcocc 0.7's: image, HOME, `containers.yaml`, TERM with a
//! terminal, the host's with `--mirror-env`, `-e`, `--path-prefix`, `--path-suffix`.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use pcocc_core::containers::{Namespace, Settings};
use pcocc_core::template::Variables;

use crate::account::{self, Account};
use crate::config::ImageConfig;
use crate::mount::{Mount, MountError, Source, normalized};
use crate::variables::{Environment, VariableError};

/// PATH of images that set none, as docker has it.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Where `--script` puts the script.
pub const SCRIPT: &str = "/.pcocc_ctr_script";

/// What the user asks for.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// Takes the place of the image's entrypoint; empty for none.
    pub entry_point: Option<Vec<String>>,
    /// The command; without one, the image's.
    pub command: Vec<OsString>,
    /// A script of the host to run instead of the image's command.
    pub script: Option<PathBuf>,
    /// Working directory; `-` is the image's.
    pub cwd: Option<PathBuf>,
    /// Variables.
    pub env: Vec<OsString>,
    /// Whether to take all of the host's variables.
    pub mirror_env: bool,
    /// What goes in front of variables like PATH.
    pub path_prefix: Vec<OsString>,
    /// What goes behind them.
    pub path_suffix: Vec<OsString>,
    /// Mounts.
    pub mounts: Vec<String>,
    /// Whether the container does not know the user.
    pub no_user: bool,
    /// Whether to run in a pseudo terminal.
    pub pty: bool,
}

/// The host's part in a plan.
#[derive(Clone, Debug, Default)]
pub struct Host {
    /// Its variables.
    pub environment: Environment,
    /// Variables for path templates.
    pub variables: Variables,
    /// Who runs the container.
    pub account: Account,
    /// Working directory.
    pub cwd: PathBuf,
}

/// A working directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directory {
    /// Where.
    pub path: PathBuf,
    /// Who wants it.
    pub wanted: Wanted,
}

/// Who wants a working directory, which tells what happens when it is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The user: it is an error.
    User,
    /// The image: it is made.
    Image,
    /// Nobody: it is where the user happens to be, and `/` does as well.
    Nobody,
}

/// What is run, and in which surroundings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The command line.
    pub argv: Vec<OsString>,
    /// Its environment.
    pub environment: Environment,
    /// Where it starts.
    pub cwd: Directory,
    /// What is mounted, in order.
    pub mounts: Vec<Mount>,
    /// Namespaces besides mount and user.
    pub namespaces: Vec<Namespace>,
    /// The user, when the container is to know it.
    pub account: Option<Account>,
    /// A script of the host that is to be at [`SCRIPT`].
    pub script: Option<PathBuf>,
    /// Whether to run in a pseudo terminal.
    pub pty: bool,
}

impl Plan {
    /// Adds mounts of generators; a mount of the plan on the same mount point wins.
    pub fn add_mounts(&mut self, mut more: Vec<Mount>) {
        more.append(&mut self.mounts);
        self.mounts = in_order(more);
    }
}

/// Why there is no plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// Neither the image nor the user names a command.
    #[error("the image names no command, and none was given; write one behind the options")]
    NoCommand,
    /// A variable cannot be set.
    #[error(transparent)]
    Variable(#[from] VariableError),
    /// A mount makes no sense.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// A working directory that is relative.
    #[error("the working directory {} is relative; write an absolute path, or - for the image's", .0.display())]
    RelativeCwd(PathBuf),
}

/// Makes the plan of a container.
pub fn plan(
    config: &ImageConfig,
    settings: &Settings,
    request: &Request,
    host: &Host,
) -> Result<Plan, PlanError> {
    Ok(Plan {
        argv: argv(config, request)?,
        environment: environment(config, settings, request, host)?,
        cwd: cwd(config, request, host)?,
        mounts: mounts(settings, request, host)?,
        namespaces: match &settings.namespaces {
            None => vec![Namespace::Pid, Namespace::Ipc],
            Some(namespaces) => namespaces
                .iter()
                .copied()
                .filter(|namespace| !matches!(namespace, Namespace::Mount | Namespace::User))
                .collect(),
        },
        account: (!request.no_user).then(|| host.account.clone()),
        script: request.script.clone(),
        pty: request.pty,
    })
}

/// The command line: entrypoint, then the command.
pub fn argv(config: &ImageConfig, request: &Request) -> Result<Vec<OsString>, PlanError> {
    let entrypoint = request.entry_point.as_ref().unwrap_or(&config.entrypoint);
    let mut argv: Vec<OsString> = entrypoint.iter().map(OsString::from).collect();
    if request.script.is_some() {
        argv.push(SCRIPT.into());
    }
    if request.command.is_empty() && request.script.is_none() {
        argv.extend(config.cmd.iter().map(OsString::from));
    } else {
        argv.extend(request.command.iter().cloned());
    }
    match argv.first() {
        Some(program) if !program.is_empty() => Ok(argv),
        _ => Err(PlanError::NoCommand),
    }
}

fn environment(
    config: &ImageConfig,
    settings: &Settings,
    request: &Request,
    host: &Host,
) -> Result<Environment, PlanError> {
    let mut environment = Environment::default();
    environment.set("PATH", DEFAULT_PATH);
    for variable in &config.env {
        // One without a value is set to nothing by docker too.
        let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
        environment.set(name, value);
    }
    if !request.no_user {
        environment.set("HOME", &host.account.home);
    }
    for variable in &settings.env {
        environment.apply(OsStr::new(variable), &host.environment)?;
    }
    for (values, front) in [
        (&settings.path_prefix, true),
        (&settings.path_suffix, false),
    ] {
        for value in values {
            environment.extend(OsStr::new(value), front, &host.environment)?;
        }
    }
    if request.pty
        && let Some(term) = host.environment.get("TERM")
    {
        environment.set("TERM", term);
    }
    adjust(&mut environment, request, host)?;
    Ok(environment)
}

/// What the options say of variables.
fn adjust(
    environment: &mut Environment,
    request: &Request,
    host: &Host,
) -> Result<(), VariableError> {
    if request.mirror_env {
        for (name, value) in host.environment.iter() {
            environment.set(name, value);
        }
    }
    for variable in &request.env {
        environment.apply(variable, &host.environment)?;
    }
    for (values, front) in [(&request.path_prefix, true), (&request.path_suffix, false)] {
        for value in values {
            environment.extend(value, front, &host.environment)?;
        }
    }
    Ok(())
}

/// The environment of a command that is run without an image: empty but for what the options say.
pub fn bare_environment(request: &Request, host: &Host) -> Result<Environment, VariableError> {
    let mut environment = Environment::default();
    adjust(&mut environment, request, host)?;
    Ok(environment)
}

fn cwd(config: &ImageConfig, request: &Request, host: &Host) -> Result<Directory, PlanError> {
    let image = Some(config.working_dir.as_str()).filter(|path| !path.is_empty());
    // docker takes a relative one as one below the root.
    let image = image.map(|path| normalized(&Path::new("/").join(path)));
    let directory = |path, wanted| Directory { path, wanted };
    Ok(match (&request.cwd, image) {
        (Some(path), image) if path == Path::new("-") => {
            directory(image.unwrap_or_else(|| "/".into()), Wanted::Image)
        }
        (Some(path), _) if path.is_absolute() => directory(normalized(path), Wanted::User),
        (Some(path), _) => return Err(PlanError::RelativeCwd(path.clone())),
        (None, Some(path)) => directory(path, Wanted::Image),
        (None, None) => directory(host.cwd.clone(), Wanted::Nobody),
    })
}

/// All mounts; of two on the same mount point the later one wins.
fn mounts(settings: &Settings, request: &Request, host: &Host) -> Result<Vec<Mount>, PlanError> {
    let bind = |path: &str| Mount::builtin(Source::Bind(path.into()), path);
    let mut mounts = vec![
        Mount::builtin(Source::Proc, "/proc"),
        Mount::builtin(Source::Sys, "/sys"),
        Mount::builtin(Source::Devices, "/dev"),
        Mount::builtin(Source::Terminals, "/dev/pts"),
        Mount::builtin(Source::Queues, "/dev/mqueue"),
        bind("/dev/shm"),
        bind("/tmp"),
        bind("/etc/resolv.conf"),
        bind("/etc/hosts"),
    ];
    let builtin = mounts.len();
    for (name, mount) in &settings.mounts {
        mounts.push(Mount::of_template(name, mount, &host.variables)?);
    }
    for text in &request.mounts {
        mounts.push(Mount::parse(text, &host.cwd, &host.variables)?);
    }
    if !request.no_user
        && let Some(home) = account::home_of(&host.account)
    {
        let covers = |mount: &Mount| home.starts_with(&mount.destination);
        // /tmp is a folder of the host's, and a home in it is there already.
        if !mounts.iter().any(covers) {
            let mut mount = Mount::builtin(Source::Tmpfs, home);
            mount.options.data.push("mode=700".to_owned());
            mounts.insert(builtin, mount);
        }
    }
    Ok(in_order(mounts))
}

/// Keeps the last mount on each mount point, and puts outer mount points first.
pub(crate) fn in_order(mounts: Vec<Mount>) -> Vec<Mount> {
    let mut kept: Vec<Mount> = Vec::with_capacity(mounts.len());
    for mount in mounts {
        kept.retain(|other| other.destination != mount.destination);
        kept.push(mount);
    }
    kept.sort_by_key(|mount| mount.destination.components().count());
    kept
}

#[cfg(test)]
mod tests;
