//! What goes between each shell and clap's engine.
//!
//! One line is one candidate: the word, and for zsh and fish a tab and what it is. A line that begins with
//! a tab tells the shell to complete files or folders itself: it knows of `~`, variables and quotes.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use clap_complete::CompletionCandidate;
use clap_complete::env::EnvCompleter;
use pcocc_completions::{Recent, scheduler};
use pcocc_shellenv::{Dialect, filled};

use super::arguments::offered;
use super::words::{DIRECTORIES, FILES, is_scheduler_value};
use crate::arguments::typed;
use crate::environment::Environment;
use crate::messages::{is_shown, printable};

/// A shell that asks for candidates.
#[derive(Debug)]
pub(super) struct Shell(pub(super) Dialect);

impl Shell {
    /// The code that makes the shell ask `program`.
    pub(super) fn registration(&self, program: &OsStr) -> OsString {
        let asset = match self.0 {
            Dialect::Zsh => include_str!("complete.zsh"),
            Dialect::Fish => include_str!("complete.fish"),
            _ => include_str!("complete.bash"),
        };
        filled(self.0, asset, b"@PROGRAM@", program)
    }
}

impl EnvCompleter for Shell {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn is(&self, name: &str) -> bool {
        self.name() == name
    }

    fn write_registration(
        &self,
        _variable: &str,
        _name: &str,
        _bin: &str,
        completer: &str,
        out: &mut dyn io::Write,
    ) -> io::Result<()> {
        out.write_all(self.registration(OsStr::new(completer)).as_bytes())
    }

    fn write_complete(
        &self,
        command: &mut clap::Command,
        words: Vec<OsString>,
        folder: Option<&Path>,
        out: &mut dyn io::Write,
    ) -> io::Result<()> {
        let candidates = candidates(command, words, folder)?;
        let values = candidates
            .iter()
            .map(|candidate| candidate.get_value().to_string_lossy());
        let width = values
            .clone()
            .map(|value| value.chars().count())
            .max()
            .unwrap_or(0)
            .min(40);
        for (candidate, value) in candidates.iter().zip(values) {
            // A name with a line break in it would be two candidates.
            if value.contains(|c| !is_shown(c)) {
                continue;
            }
            if value == FILES || value == DIRECTORIES {
                return writeln!(out, "\t{}", value.trim_start_matches('/'));
            }
            let help = candidate
                .get_help()
                .map(ToString::to_string)
                .unwrap_or_default();
            let help = printable(help.lines().next().unwrap_or_default());
            match self.0 {
                Dialect::Zsh if help.is_empty() => writeln!(out, "{value}\t{value}")?,
                Dialect::Zsh => writeln!(out, "{value}\t{value:width$} -- {help}")?,
                Dialect::Fish if !help.is_empty() => writeln!(out, "{value}\t{help}")?,
                _ => writeln!(out, "{value}")?,
            }
        }
        Ok(())
    }
}

/// The candidates for the last word.
fn candidates(
    command: &mut clap::Command,
    mut words: Vec<OsString>,
    folder: Option<&Path>,
) -> io::Result<Vec<CompletionCandidate>> {
    let word = words.last().cloned().unwrap_or_default();
    let mut found = Vec::new();
    if let Some(typed) = typed(&words) {
        let behind = words.iter().skip(typed.verb_ends);
        let texts: Option<Vec<&str>> = behind.map(|word| word.to_str()).collect();
        if let Some(values) = texts.and_then(|texts| scheduler_values(&texts)) {
            return Ok(offered(values));
        }
        let option = word.as_bytes().starts_with(b"-");
        if typed.schedulers_turn && !option {
            // It is that option's value, and nobody here knows what may be one.
            return Ok(found);
        }
        if word.as_bytes().starts_with(b"--") {
            found = offered(scheduler::names(&word.to_string_lossy()));
        }
        // The engine does not know the scheduler's words.
        words = typed.own;
        words.push(word.clone());
    }
    let last = words.len().saturating_sub(1);
    let mut candidates = clap_complete::engine::complete(command, words, last, folder)?;
    if word.is_empty() {
        // Options only where there is nothing else to say, or once a dash is typed.
        let option =
            |candidate: &CompletionCandidate| candidate.get_value().as_bytes().starts_with(b"-");
        if candidates.iter().any(|candidate| !option(candidate)) {
            candidates.retain(|candidate| !option(candidate));
        }
    }
    candidates.append(&mut found);
    Ok(candidates)
}

fn scheduler_values(words: &[&str]) -> Option<Vec<pcocc_completions::Candidate>> {
    let environment = Environment::read().ok()?;
    let recent = Recent::new(&super::arguments::answers(&environment));
    let mut values = scheduler::options(&recent, &environment.user, words)?;
    let typed = words.last().copied().unwrap_or_default();
    values.retain(|candidate| is_scheduler_value(&candidate.value, typed));
    Some(values)
}
