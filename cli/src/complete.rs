//! Tab completion: the shell runs `COMPLETE=SHELL pcocc -- WORDS…`, and gets one candidate a line.
//!
//! Data path: [`requested`] before anything else → the last word is the one to complete → Slurm's own options
//! (`alloc`, `batch`), or clap's engine with the candidates of [`arguments`], of which only [`words`] that the argument can
//! be are left → lines for the [`shells`]. With no words, the shell gets the code that makes it ask.
//!
//! Nothing is ever printed on failure, and nothing waits for an outside system: see `pcocc_completions`.

mod arguments;
mod shells;
mod words;

use std::env;
use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::Arc;

use clap_complete::CompleteEnv;
use clap_complete::env::{EnvCompleter, Shells};
use pcocc_shellenv::Dialect;

use crate::environment::Environment;
use crate::host::Host;

use shells::Shell;
use words::Kind;

/// The shells that are completed for.
static BASH: Shell = Shell(Dialect::Bash);
static ZSH: Shell = Shell(Dialect::Zsh);
static FISH: Shell = Shell(Dialect::Fish);

/// Names the variable that clap_complete looks at.
pub(crate) const VARIABLE: &str = "COMPLETE";

/// What COMPLETE is set to for the names of docker's images, which a slow daemon gives in the background.
const DOCKER_IMAGES: &str = "pcocc-docker-images";

/// Answers a shell, if one asks, for the command line that `command` makes; then there is nothing else to do.
pub(crate) fn requested(command: fn() -> clap::Command) -> Option<ExitCode> {
    let asked = env::var_os(VARIABLE)?;
    // Whatever goes wrong, who pressed TAB does not want to read it.
    std::panic::set_hook(Box::new(|_| {}));
    if asked == DOCKER_IMAGES {
        return Some(match docker_images() {
            Some(()) => ExitCode::SUCCESS,
            None => ExitCode::FAILURE,
        });
    }
    let program = env::current_exe().unwrap_or_else(|_| "pcocc".into());
    let folder = env::current_dir().ok();
    let shells: [&dyn EnvCompleter; 3] = [&BASH, &ZSH, &FISH];
    let answered = CompleteEnv::with_factory(|| arguments::completed(command()))
        .shells(Shells(&shells))
        .completer(program.to_string_lossy())
        .try_complete(env::args_os(), folder.as_deref());
    match answered {
        Ok(true) => Some(ExitCode::SUCCESS),
        Ok(false) => None,
        Err(_) => Some(ExitCode::FAILURE),
    }
}

/// The code that makes a shell ask `program`; `None` for shells that are not completed for.
pub(crate) fn registration(dialect: Dialect, program: &Path) -> Option<OsString> {
    let shell = [&BASH, &ZSH, &FISH]
        .into_iter()
        .find(|shell| shell.0 == dialect)?;
    Some(shell.registration(program.as_os_str()))
}

/// The command that prints the names of docker's images.
fn docker_images_query() -> Command {
    let mut query = Command::new(env::current_exe().unwrap_or_else(|_| "pcocc".into()));
    query.env(VARIABLE, DOCKER_IMAGES);
    query
}

fn docker_images() -> Option<()> {
    use io::Write as _;
    let environment = Environment::read().ok()?;
    let host = Host::new(Arc::new(environment));
    let endpoint = host.endpoint().ok()?.clone();
    let daemon = pcocc_remote::docker::Daemon::open(endpoint).ok()?;
    let names: String = daemon
        .list()
        .ok()?
        .into_iter()
        // A name with a line break in it would be two.
        .filter(|image| Kind::DockerImage.allows(&image.name))
        .map(|image| image.name + "\n")
        .collect();
    io::stdout().write_all(names.as_bytes()).ok()
}
