//! The last steps before the command takes the place of its process.

use std::ffi::{CString, NulError, OsStr, OsString, c_int};
use std::fs;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, accessat};
use rustix::process::Signal;
use rustix::thread::{CapabilitySet, CapabilitySets};

use super::channel::{Channel, Message};
use super::stop::{Stop, failed};
use super::{FAILED, NOT_EXECUTABLE, NOT_FOUND, sys};
use crate::plan::{Plan, Wanted};

/// What runs scripts that do not say what runs them, as every shell does it.
const SHELL: &str = "/bin/sh";

/// Becomes the command of the plan; returns only when that fails.
///
/// `ignored` are the signals that keep being ignored; all are `blocked` until then.
pub(super) fn start(
    plan: &Plan,
    ignored: &[c_int],
    blocked: &sys::Blocked,
    terminal: Option<OwnedFd>,
    channel: &Channel,
) -> Stop {
    match try_start(plan, ignored, blocked, terminal, channel) {
        Err(stop) => stop,
        Ok(never) => match never {},
    }
}

fn try_start(
    plan: &Plan,
    ignored: &[c_int],
    blocked: &sys::Blocked,
    terminal: Option<OwnedFd>,
    channel: &Channel,
) -> Result<std::convert::Infallible, Stop> {
    // The first process of the container takes all others along, but not without a process namespace.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(failed("cannot arrange to end with pcocc"))?;
    // Without one of its own it has the terminal of the user's shell.
    if let Some(terminal) = terminal {
        take_terminal(&terminal).map_err(failed("cannot take the terminal"))?;
    }
    enter(plan, channel)?;
    drop_privileges().map_err(failed("cannot drop privileges"))?;
    if let Err(error) = sys::forbid_typing() {
        // Kernels without filters are those of before the trick was known.
        tracing::debug!(%error, "no system call filter");
    }
    for signal in 1..=31 {
        if !ignored.contains(&signal) {
            sys::reset_signal(signal);
        }
    }
    blocked.release();
    let (program, arguments) = plan
        .argv
        .split_first()
        .ok_or_else(|| Stop::new(FAILED, "there is no command"))?;
    let file = find_program(program, plan.environment.get("PATH"))?;
    let error = exec(plan, &file, program, arguments);
    if error.raw_os_error() == Some(libc::ENOEXEC) && is_script(&file) {
        let mut words: Vec<OsString> = vec![file.clone().into()];
        words.extend(arguments.iter().cloned());
        let error = exec(plan, Path::new(SHELL), &OsString::from(SHELL), &words);
        return Err(Stop::new(
            NOT_EXECUTABLE,
            format!(
                "{} is a script that does not begin with #!, and the image's {SHELL} cannot run it: {error}",
                file.display()
            ),
        ));
    }
    Err(explain(&file, &error))
}

/// The program file a name stands for in the container: found in `path`, the variable PATH, unless it has
/// a slash. Fails with the exit code that docker gives.
fn find_program(name: &OsStr, path: Option<&OsStr>) -> Result<PathBuf, Stop> {
    let shown = name.to_string_lossy();
    if name.as_bytes().contains(&b'/') {
        return Ok(PathBuf::from(name));
    }
    let mut refused = None;
    for folder in path.map(std::env::split_paths).into_iter().flatten() {
        // An empty part is the current folder; a container is no place for surprises.
        if !folder.is_absolute() {
            continue;
        }
        let file = folder.join(name);
        match fs::metadata(&file) {
            Ok(found) if found.is_file() => {
                match accessat(CWD, &file, Access::EXEC_OK, AtFlags::empty()) {
                    Ok(()) => return Ok(file),
                    Err(_) => refused = refused.or(Some(file)),
                }
            }
            _ => {}
        }
    }
    Err(match refused {
        Some(file) => Stop::new(
            NOT_EXECUTABLE,
            format!("{} is not executable in the image", file.display()),
        ),
        None => Stop::new(
            NOT_FOUND,
            format!(
                "there is no {shown:?} in the image's PATH ({})",
                path.map(|path| path.to_string_lossy()).unwrap_or_default()
            ),
        ),
    })
}

fn exec(plan: &Plan, file: &Path, name: &OsString, arguments: &[OsString]) -> io::Error {
    let words = || -> Result<_, NulError> {
        let file = CString::new(file.as_os_str().as_bytes())?;
        let words = std::iter::once(name).chain(arguments);
        let words = words.map(|word| CString::new(word.as_bytes()));
        let variables = plan
            .environment
            .iter()
            .map(|(name, value)| CString::new([name.as_bytes(), b"=", value.as_bytes()].concat()));
        let variables: Vec<CString> = variables.collect::<Result<_, _>>()?;
        Ok((file, words.collect::<Result<Vec<CString>, _>>()?, variables))
    };
    match words() {
        Ok((file, words, variables)) => sys::exec(&file, &words, &variables),
        Err(error) => error.into(),
    }
}

/// Why a file cannot be run, with docker's exit codes.
fn explain(file: &Path, error: &io::Error) -> Stop {
    let shown = file.display();
    match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENOTDIR) if file.exists() => Stop::new(
            NOT_FOUND,
            format!("{shown} is there, but the program or loader that runs it is not in the image"),
        ),
        Some(libc::ENOENT | libc::ENOTDIR) => {
            Stop::new(NOT_FOUND, format!("there is no {shown} in the container"))
        }
        Some(libc::ENOEXEC) => Stop::new(
            NOT_EXECUTABLE,
            format!(
                "{shown} is not a program for this machine ({})",
                std::env::consts::ARCH
            ),
        ),
        Some(libc::EACCES) if file.is_dir() => {
            Stop::new(NOT_EXECUTABLE, format!("{shown} is a folder"))
        }
        Some(libc::EACCES) => Stop::new(
            NOT_EXECUTABLE,
            format!("{shown} is not executable, or on a file system that forbids it"),
        ),
        _ => Stop::new(NOT_EXECUTABLE, format!("cannot run {shown}: {error}")),
    }
}

/// Whether a file looks like text, so that a shell may try it.
fn is_script(file: &Path) -> bool {
    let mut start = [0; 256];
    let read = fs::File::open(file).and_then(|mut file| file.read(&mut start));
    read.is_ok_and(|length| {
        let start = start.get(..length).unwrap_or_default();
        !start.starts_with(b"\x7fELF") && !start.contains(&0)
    })
}

/// Goes to the working directory.
fn enter(plan: &Plan, channel: &Channel) -> Result<(), Stop> {
    let path = &plan.cwd.path;
    let Err(error) = rustix::process::chdir(path) else {
        return Ok(());
    };
    let error = io::Error::from(error);
    match plan.cwd.wanted {
        Wanted::Nobody => {
            let text = format!(
                "{} is not in the container: the command starts in / (--cwd says where, --mount brings it in)",
                path.display()
            );
            // Told only as a courtesy.
            let _ = channel.send(&Message::Warning(text));
            Ok(())
        }
        Wanted::User | Wanted::Image => Err(Stop::new(
            FAILED,
            format!(
                "cannot start in the working directory {}: {error}",
                path.display()
            ),
        )),
    }
}

/// Makes `terminal` the controlling terminal of a new session, and its standard streams.
fn take_terminal(terminal: &OwnedFd) -> io::Result<()> {
    rustix::process::setsid()?;
    rustix::process::ioctl_tiocsctty(terminal)?;
    rustix::stdio::dup2_stdin(terminal)?;
    rustix::stdio::dup2_stdout(terminal)?;
    rustix::stdio::dup2_stderr(terminal)?;
    Ok(())
}

/// Gives up all capabilities in the user namespace for good, root's too.
fn drop_privileges() -> io::Result<()> {
    rustix::thread::set_no_new_privs(true)?;
    for capability in 0..64 {
        let Some(capability) = CapabilitySet::from_bits(1 << capability) else {
            break;
        };
        if let Err(error) = rustix::thread::remove_capability_from_bounding_set(capability) {
            match error {
                // The kernel has no more of them.
                rustix::io::Errno::INVAL => break,
                error => return Err(error.into()),
            }
        }
    }
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    Ok(rustix::thread::set_capabilities(None, none)?)
}
