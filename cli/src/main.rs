//! The `pcocc` command.
//!
//! Data path: [`app`] parses the command line, reads the [`environment`] once and calls the verb in
//! [`verbs`]; the verb calls the libraries, [`progress`] draws their events on stderr, [`output`]
//! writes the result to stdout, and [`errors`] turns a failure into words and an exit code.

mod app;
mod environment;
mod errors;
mod output;
mod progress;
mod signals;
mod stores;
mod verbs;

use std::process::ExitCode;

fn main() -> ExitCode {
    app::run()
}
