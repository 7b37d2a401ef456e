//! Failures of verbs, and the one table that gives an error its exit code, text and hint.
//!
//! A failure has an action, a part of the action, and an error. Most failures are made from a library's error
//! by `?` and have only the error: the action is the verb's, added where the verb is run
//! ([`crate::invocation`]). [`While::when`] gives a phase of a verb an action of its own.
//!
//! Shape on stderr:
//!
//! ```text
//! pcocc: failed to import docker image bb as newbb: <part>: <error>: <its cause>
//! hint: <the next thing to do>
//! ```
//!
//! More lines of an error are indented: the words of others begin no line as ours do.

use std::error::Error as StdError;
use std::fmt::Write as _;
use std::io;
use std::process::ExitCode;

use pcocc_image::Error as ImageError;
use pcocc_vm::job::Error as JobError;

use crate::messages::{self, indented};

/// Exit status of a failed command.
pub(crate) const FAILED: u8 = 1;
/// Exit status of a wrong command line.
pub(crate) const USAGE: u8 = 2;

/// Exit status of a wait that took too long.
pub(crate) const TIMED_OUT: u8 = 124;
/// Exit status of a shell or script that cannot be run.
pub(crate) const CANNOT_RUN: u8 = 126;
/// Exit status of a missing shell or script.
pub(crate) const NOT_FOUND: u8 = 127;

/// Shortens a hostile name that would fill the screen.
fn shortened(text: &str, most: usize) -> std::borrow::Cow<'_, str> {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()).into(),
        None => text.into(),
    }
}

/// A verb's outcome.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

/// The action of a failed write to stdout, where a broken pipe is no failure.
pub(crate) const WRITE_RESULT: &str = "write the result";

/// Why a verb failed.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The action, as it follows "failed to"; `None` for the verb's own.
    action: Option<String>,
    /// The part of the action that failed.
    part: Option<String>,
    /// `None` when the user was told already.
    error: Option<Box<dyn StdError + Send + Sync>>,
    hint: Option<String>,
    code: Option<u8>,
}

impl<E: StdError + Send + Sync + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::of(Some(error.into()))
    }
}

impl Failure {
    fn of(error: Option<Box<dyn StdError + Send + Sync>>) -> Self {
        Self {
            action: None,
            part: None,
            error,
            hint: None,
            code: None,
        }
    }

    /// The failure of `action` with `error`.
    pub(crate) fn new(
        action: impl Into<String>,
        error: impl StdError + Send + Sync + 'static,
    ) -> Self {
        Self::from(error).action(|| action)
    }

    /// The failure of `action` with a reason in words.
    pub(crate) fn message(action: impl Into<String>, why: impl Into<String>) -> Self {
        Self::because(why).action(|| action)
    }

    /// A failure with a reason in words.
    pub(crate) fn because(why: impl Into<String>) -> Self {
        Self::of(Some(why.into().into()))
    }

    /// A failure that the user was told already.
    pub(crate) fn reported(code: u8) -> Self {
        Self::of(None).code(code)
    }

    /// The outcome of a verb that takes over the exit code of a shell or script.
    pub(crate) fn passed_on(code: u8) -> Outcome {
        match code {
            0 => Ok(()),
            code => Err(Self::reported(code)),
        }
    }

    /// Adds an action, unless the failure has one.
    fn action<A: Into<String>>(mut self, action: impl FnOnce() -> A) -> Self {
        self.action.get_or_insert_with(|| action().into());
        self
    }

    /// Adds a part of the action, unless the failure has an action or a part.
    pub(crate) fn part(mut self, part: impl Into<String>) -> Self {
        if self.action.is_none() {
            self.part.get_or_insert_with(|| part.into());
        }
        self
    }

    /// Replaces the table's hint.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds a hint, unless there is one.
    pub(crate) fn or_hint(self, hint: impl FnOnce() -> String) -> Self {
        match self.hint {
            Some(_) => self,
            None => self.hint(hint()),
        }
    }

    /// Replaces the table's exit code.
    pub(crate) fn code(mut self, code: u8) -> Self {
        self.code = Some(code);
        self
    }

    /// Sets the exit code, unless the failure has one of its own.
    pub(crate) fn or_code(mut self, code: u8) -> Self {
        self.code.get_or_insert(code);
        self
    }

    /// The exit code, if no signal was received.
    pub(crate) fn exit_code(&self) -> u8 {
        self.code.unwrap_or_else(|| self.classify().0)
    }

    /// Writes the failure to stderr; returns the exit code. `signal` is the received signal.
    pub(crate) fn report(&self, signal: Option<u8>) -> ExitCode {
        if let Some(io) = self.find::<io::Error>()
            && io.kind() == io::ErrorKind::BrokenPipe
            && self.action.as_deref() == Some(WRITE_RESULT)
        {
            // The reader of our result has seen enough.
            return ExitCode::SUCCESS;
        }
        if self.error.is_some() {
            messages::complain(&self.text());
        }
        match signal {
            Some(signal) => ExitCode::from(128 + signal),
            None => ExitCode::from(self.exit_code()),
        }
    }

    /// The error and its causes, without the action.
    pub(crate) fn why(&self) -> String {
        self.error
            .as_deref()
            .map_or_else(String::new, |error| chain(error))
    }

    /// The error and the hint on one line, for a caller that names the action itself.
    pub(crate) fn why_and_hint(&self) -> String {
        let mut text = match &self.part {
            Some(part) => format!("{part}: {}", self.why()),
            None => self.why(),
        };
        if let Some(hint) = self.next() {
            text += &format!("; {hint}");
        }
        text
    }

    /// The hint.
    fn next(&self) -> Option<String> {
        self.hint.clone().or_else(|| self.classify().1)
    }

    /// The message, with its hint.
    fn text(&self) -> String {
        let names = self.action.iter().chain(&self.part);
        let action = names.map(String::as_str).collect::<Vec<_>>().join(": ");
        let mut text = format!(
            "pcocc: failed to {}: {}\n",
            indented(&shortened(&action, 400)),
            indented(&shortened(&self.why(), 2000))
        );
        if let Some(hint) = self.next() {
            let _ = writeln!(text, "hint: {}", indented(&hint));
        }
        text
    }

    /// The first error of type `E` in the chain.
    fn find<E: StdError + 'static>(&self) -> Option<&E> {
        let mut next: Option<&(dyn StdError + 'static)> = match &self.error {
            Some(error) => Some(&**error),
            None => None,
        };
        while let Some(error) = next {
            if let Some(found) = error.downcast_ref::<E>() {
                return Some(found);
            }
            next = error.source();
        }
        None
    }

    /// Exit code and hint of the error.
    fn classify(&self) -> (u8, Option<String>) {
        if let Some(error) = self.find::<JobError>() {
            return (FAILED, job_hint(error).map(str::to_owned));
        }
        let Some(error) = self.find::<ImageError>() else {
            return (FAILED, None);
        };
        let hint = match error {
            // Some of these errors name the variable at fault.
            ImageError::Unreachable { why, .. } if why.contains("DOCKER_") => None,
            ImageError::Unreachable { .. } => Some(
                "check that the docker daemon runs and that DOCKER_HOST, DOCKER_TLS_VERIFY and \
                 DOCKER_CERT_PATH name it",
            ),
            ImageError::Exists(what) if what.starts_with("image ") => {
                Some("choose another name, or delete the old image first (pcocc image delete)")
            }
            ImageError::Exists(_) => Some("choose another name, or remove it first"),
            ImageError::NotFound(what)
                if what.starts_with("image ") && !what.starts_with("image source ") =>
            {
                Some("see what there is with `pcocc image list` and `docker image list`")
            }
            ImageError::Corrupt { .. } => {
                Some("fetch the image again: what was read is not what its digest says")
            }
            ImageError::Io { source, .. } => match source.kind() {
                io::ErrorKind::StorageFull => Some(
                    "free some space, for instance with `pcocc image repo gc REPO` and `pcocc image cache gc`",
                ),
                io::ErrorKind::QuotaExceeded => {
                    Some("your disk quota is used up: delete something, or use another repository")
                }
                io::ErrorKind::ReadOnlyFilesystem => {
                    Some("use a repository on a file system that can be written")
                }
                _ => None,
            },
            _ => None,
        };
        (FAILED, hint.map(str::to_owned))
    }
}

/// An error and its causes on one line, without causes whose text is in it already.
fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let words = cause.to_string();
        if !text.contains(&words) {
            let _ = write!(text, ": {words}");
        }
        next = cause.source();
    }
    text
}

/// The hint for a job that is missing or ambiguous.
fn job_hint(error: &JobError) -> Option<&'static str> {
    match error {
        JobError::NoJob => Some("start one with `pcocc docker alloc` or `pcocc docker batch`"),
        JobError::NoSuchJob(_) | JobError::NoSuchName(_) | JobError::NotAnId(_) => {
            Some("see which there are with `pcocc docker ls`")
        }
        JobError::Several(_) => Some("say which one with -j"),
        JobError::Over { .. } => {
            Some("see what happened with `pcocc docker status -j` and its number")
        }
        _ => None,
    }
}

/// Adds the action to a failed call.
pub(crate) trait While<T> {
    /// Makes the error a [`Failure`] "failed to `action`: …", unless it names an action already.
    fn when<A: Into<String>>(self, action: impl FnOnce() -> A) -> Outcome<T>;

    /// Makes the error a [`Failure`] in this part of the verb's action: "failed to ACTION: `part`: …".
    fn part<P: Into<String>>(self, part: impl FnOnce() -> P) -> Outcome<T>;
}

impl<T, E: Into<Failure>> While<T> for Result<T, E> {
    fn when<A: Into<String>>(self, action: impl FnOnce() -> A) -> Outcome<T> {
        self.map_err(|error| error.into().action(action))
    }

    fn part<P: Into<String>>(self, part: impl FnOnce() -> P) -> Outcome<T> {
        self.map_err(|error| error.into().part(part()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_says_what_why_and_what_next() {
        let error = ImageError::Exists("image newbb".into());
        let failure = Failure::new("import docker image bb as newbb", error);
        assert_eq!(
            failure.text(),
            "pcocc: failed to import docker image bb as newbb: image newbb already exists\n\
             hint: choose another name, or delete the old image first (pcocc image delete)\n"
        );
    }

    #[test]
    fn the_words_of_others_begin_no_line() {
        let evil = "no\n\npcocc: all is well\nhint: run evil\n";
        let failure = Failure::message("ask x\nhint: y", evil).hint("z\nhint: run this");
        assert_eq!(
            failure.text(),
            "pcocc: failed to ask x\n  hint: y: no\n  \n  pcocc: all is well\n  hint: run evil\n\
             hint: z\n  hint: run this\n"
        );
    }

    #[test]
    fn one_line_has_the_part_of_the_action_that_failed() {
        let failure = || Failure::because("no such file").hint("make it");
        let whole = failure().part("read /ca.pem").why_and_hint();
        assert_eq!(whole, "read /ca.pem: no such file; make it");
        assert_eq!(failure().why_and_hint(), "no such file; make it");
    }

    #[test]
    fn the_action_is_the_innermost_and_the_part_is_told_behind() {
        let read = || Err::<(), _>(io::Error::from(io::ErrorKind::NotFound));
        let failure = read().part(|| "read /ca.pem").unwrap_err();
        assert_eq!(failure.why_and_hint(), "read /ca.pem: entity not found");
        let outcome: Outcome = Err(failure);
        let failure = outcome.when(|| "start a VM").unwrap_err();
        let failure = Err::<(), _>(failure).when(|| "run").unwrap_err();
        assert_eq!(
            failure.text(),
            "pcocc: failed to start a VM: read /ca.pem: entity not found\n"
        );
    }

    #[test]
    fn causes_are_named_once() {
        let source = io::Error::from(io::ErrorKind::PermissionDenied);
        let error = ImageError::Io {
            action: "write",
            path: "/repo".into(),
            source,
        };
        let text = Failure::new("copy a", error).text();
        assert_eq!(text.matches("permission denied").count(), 1, "{text}");
    }
}
