//! Docker's own command, which builds.
//!
//! The command runs in our terminal and our process group, so that Ctrl-C reaches it as usual; other signals
//! are passed on. It uses our daemon, whatever docker's contexts say.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use pcocc_image::Error;
use pcocc_layers::Digest;
use pcocc_remote::docker::Daemon;
use rustix::process::{Pid, Signal, kill_process};

use super::Args;
use super::name::Built;
use crate::errors::{Failure, Outcome};
use crate::invocation::Invocation;
use crate::session::exit_code;

/// Interval at which the command is checked.
const TICK: Duration = Duration::from_millis(20);

/// How long the command may take to end after a signal.
const GRACE: Duration = Duration::from_secs(10);

/// Builds an image under the name of `built`; returns its ID in docker.
pub(super) fn build(
    args: &Args,
    built: &Built,
    daemon: &Daemon,
    invocation: &Invocation,
) -> Outcome<Digest> {
    let environment = &invocation.environment;
    let folder = tempfile::Builder::new()
        .prefix(&built.folder())
        .tempdir_in(&environment.temporary)?;
    let id_file = folder.path().join("id");
    let mut command = Command::new("docker");
    command.arg("build").arg("--iidfile").arg(&id_file);
    command.args(["--tag", built.name()]).args(options(args));
    let (further, wanted) = without_id_file(&args.docker);
    command.args(further).arg("--").arg(&args.path);
    for (variable, value) in daemon.endpoint().variables() {
        match value {
            Some(value) => command.env(variable, value),
            None => command.env_remove(variable),
        };
    }
    if let Some(folder) = invocation.host.docker_path()? {
        let mut path = OsString::from(folder);
        if let Some(rest) = &environment.path {
            path.push(":");
            path.push(rest);
        }
        command.env("PATH", path);
    }
    let child = command.spawn().map_err(|error| {
        let not_found = error.kind() == io::ErrorKind::NotFound;
        let failure = Failure::from(error).part("run docker");
        match not_found {
            true => failure.hint(
                "install docker's command line, or name its folder as docker_path in the runtime section of \
                 containers.yaml",
            ),
            false => failure,
        }
    })?;
    let status = wait(child, invocation)?;
    if invocation.cancel.is_cancelled() {
        return Err(Failure::from(Error::Cancelled));
    }
    if !status.success() {
        return Err(
            Failure::because(format!("docker build failed ({status})")).code(exit_code(status))
        );
    }
    let id = std::fs::read_to_string(&id_file).map_err(|_| no_image())?;
    if let Some(wanted) = wanted {
        std::fs::write(&wanted, &id).map_err(|error| {
            Failure::from(error).part(format!("write the image's ID to {}", wanted.display()))
        })?;
    }
    Ok(id.trim().parse()?)
}

/// The user's own options without `--iidfile`, which docker heeds once, and its file.
fn without_id_file(options: &[String]) -> (Vec<&String>, Option<PathBuf>) {
    let (mut kept, mut file) = (Vec::new(), None);
    let mut rest = options.iter();
    while let Some(option) = rest.next() {
        match option.strip_prefix("--iidfile") {
            Some("") => file = rest.next().map(PathBuf::from),
            Some(value) if value.starts_with('=') => file = value.get(1..).map(PathBuf::from),
            _ => kept.push(option),
        }
    }
    (kept, file)
}

fn no_image() -> Failure {
    Failure::because("docker build made no image in the daemon").hint(
        "leave out options that send the image elsewhere; with a buildx builder of its own, add `-- --load`",
    )
}

/// The options that docker has as well.
fn options(args: &Args) -> Vec<OsString> {
    let mut options: Vec<OsString> = Vec::new();
    let mut add = |option: &str, value: OsString| options.extend([option.into(), value]);
    if let Some(file) = &args.file {
        add("--file", file.into());
    }
    for (option, values) in [
        ("--build-arg", &args.build_arg),
        ("--secret", &args.secret),
        ("--ssh", &args.ssh),
    ] {
        for value in values {
            add(option, value.into());
        }
    }
    for (option, value) in [("--target", &args.target), ("--platform", &args.platform)] {
        if let Some(value) = value {
            add(option, value.into());
        }
    }
    if args.no_cache {
        options.push("--no-cache".into());
    }
    options
}

/// Waits for the command's end; passes received signals on.
fn wait(mut child: Child, invocation: &Invocation) -> io::Result<ExitStatus> {
    let mut signalled: Option<Instant> = None;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        match signalled {
            None if invocation.cancel.is_cancelled() => {
                // After Ctrl-C, the command has the signal already; a second one does no harm.
                let _ = kill_process(Pid::from_child(&child), Signal::TERM);
                signalled = Some(Instant::now());
            }
            Some(when) if when.elapsed() > GRACE => child.kill()?,
            _ => {}
        }
        std::thread::sleep(TICK);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_users_own_id_file_is_taken_out_of_the_options() {
        for (words, kept, file) in [
            (
                "--pull --iidfile id --no-cache",
                "--pull --no-cache",
                Some("id"),
            ),
            ("--iidfile=id", "", Some("id")),
            ("--pull", "--pull", None),
            ("--iidfile", "", None),
        ] {
            let options: Vec<String> = words.split(' ').map(str::to_owned).collect();
            let (found, path) = without_id_file(&options);
            let found: Vec<&str> = found.into_iter().map(String::as_str).collect();
            assert_eq!(
                (found.join(" "), path),
                (kept.to_owned(), file.map(PathBuf::from))
            );
        }
    }
}
