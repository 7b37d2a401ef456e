//! From the command line to the verb and back to an exit code.
//!
//! Phases: parse → environment → logging and signals → the verb → a failure as text on stderr.

use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use pcocc_core::cancel::Cancel;
use tracing_subscriber::EnvFilter;

use crate::arguments;
use crate::complete;
use crate::environment::Environment;
use crate::errors::Failure;
use crate::invocation::Invocation;
use crate::messages::LogWriter;
use crate::progress::ProgressMode;
use crate::signals::Signals;
use crate::verbs::Verb;

/// Docker images and docker daemons for shared machines.
///
/// pcocc keeps container images in repositories on disk, moves them to and from docker daemons, and
/// shows both sides as folders.
#[derive(Debug, Parser)]
#[command(
    name = "pcocc",
    version,
    max_term_width = 100,
    disable_help_subcommand = true,
    after_help = "Examples:\n  pcocc docker alloc -p sandy -c 16\n  pcocc docker import bb newbb\n  \
                  pcocc run -s --cwd / -I newbb ls\n\n\
                  Result on standard output, progress and errors on standard error.\n\
                  Exit status: 0 done, 1 failed, 2 wrong usage, 124 timed out, 128+N ended by signal N."
)]
pub(crate) struct CommandLine {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    globals: Globals,
}

/// What `--debug` logs.
const DEBUG: &str =
    "pcocc=debug,pcocc_core=debug,pcocc_image=debug,pcocc_fs=debug,pcocc_run=debug,pcocc_vm=debug";

/// Options that every verb takes.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Global options")]
struct Globals {
    /// How to show progress: bars on a terminal and lines elsewhere (auto), lines, or nothing
    #[arg(long, global = true, value_enum, value_name = "HOW", default_value_t = ProgressMode::Auto)]
    progress: ProgressMode,
    /// Show no progress, only warnings and errors
    #[arg(short, long, global = true)]
    quiet: bool,
    /// Log what is done, step by step, to standard error
    #[arg(long, global = true)]
    debug: bool,
}

/// The whole command line, for code that describes it.
pub(crate) fn command() -> clap::Command {
    let mut command = CommandLine::command();
    command.build();
    command
}

/// Runs the command.
pub(crate) fn run() -> ExitCode {
    if let Some(answered) = complete::requested(CommandLine::command) {
        return answered;
    }
    // Clap prints help, version and usage errors by itself and exits 0 or 2.
    let arguments = arguments::arranged(std::env::args_os().collect());
    let CommandLine { verb, globals } = CommandLine::parse_from(arguments);
    let environment = match Environment::read() {
        Ok(environment) => environment,
        Err(failure) => return failure.report(None),
    };
    let log = match (&environment.log, globals.debug) {
        (Some(filter), _) => Some(filter.clone()),
        (None, true) => Some(DEBUG.to_owned()),
        (None, false) => None,
    };
    start_log(log.as_deref().or(verb.log()), environment.terminal.color);
    let cancel = Cancel::new();
    let signals = match Signals::install(&cancel, verb.is_patient(), verb.lasts()) {
        Ok(signals) => signals,
        Err(error) => return Failure::new("install signal handlers", error).report(None),
    };
    let progress = match globals.quiet {
        true => ProgressMode::None,
        false => globals.progress,
    };
    let invocation = Invocation::new(environment, cancel, signals, log, progress);
    match verb.run(&invocation, command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(invocation.signals.received()),
    }
}

/// Sends tracing events to stderr, if anything is to be logged.
fn start_log(filter: Option<&str>, color: bool) {
    let Some(filter) = filter else {
        return;
    };
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(filter))
        .with_writer(move || LogWriter { color })
        .with_ansi(color)
        .init();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_line_is_sound() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn every_verb_has_an_example() {
        fn look(command: &clap::Command, path: &str) {
            for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
                let path = format!("{path} {}", verb.get_name());
                look(verb, &path);
                let help = verb.clone().render_long_help().to_string();
                assert!(
                    verb.has_subcommands() || help.contains(&format!("\n  {path}")),
                    "{path}: no example in its help"
                );
            }
        }
        look(&command(), "pcocc");
    }

    /// Command lines in a text: in backticks, or in a line of their own in a block of code.
    fn command_lines(text: &str) -> Vec<String> {
        let quoted = text
            .lines()
            .flat_map(|line| line.split('`').skip(1).step_by(2));
        let mut fenced = false;
        let own = text.lines().filter_map(|line| {
            if line.starts_with("```") {
                fenced = !fenced;
            }
            let code = if fenced {
                line
            } else {
                line.strip_prefix("    ")?
            };
            let code = code.trim_start();
            Some(code.strip_prefix("$ ").unwrap_or(code))
        });
        own.chain(quoted)
            .filter(|line| line.starts_with("pcocc "))
            .map(str::to_owned)
            .collect()
    }

    /// The words of the first command of a line.
    fn words(line: &str) -> Vec<std::ffi::OsString> {
        let ends = [" #", " | ", " && ", ";"];
        let end = ends.iter().filter_map(|mark| line.find(mark)).min();
        let first = end.and_then(|end| line.get(..end)).unwrap_or(line);
        // The text after a possible end may be in quotes; and prose has apostrophes.
        let words = shell_words::split(first).or_else(|_| shell_words::split(line));
        let words = words.unwrap_or_else(|_| line.split_whitespace().map(str::to_owned).collect());
        words.into_iter().map(Into::into).collect()
    }

    #[test]
    fn what_the_documents_call_is_there() {
        use clap::error::ErrorKind;
        let top = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let mut documents = vec![top.join("README.md")];
        let docs = std::fs::read_dir(top.join("docs")).unwrap();
        documents.extend(docs.map(|entry| entry.unwrap().path()));
        let mut tried = 0;
        for document in documents {
            if document
                .extension()
                .is_none_or(|extension| extension != "md")
            {
                continue;
            }
            let text = std::fs::read_to_string(&document).unwrap();
            for line in command_lines(&text) {
                tried += 1;
                // Placeholders may be missing or have another form; verbs and options are real.
                if let Err(error) = CommandLine::try_parse_from(arguments::arranged(words(&line))) {
                    assert!(
                        !matches!(
                            error.kind(),
                            ErrorKind::InvalidSubcommand | ErrorKind::UnknownArgument
                        ),
                        "{}: {line}: {error}",
                        document.display()
                    );
                }
            }
        }
        assert!(tried > 50, "{tried}");
    }
}
