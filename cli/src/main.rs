//! The `pcocc` command.
//!
//! Data path: [`app`] parses the command line, reads the [`environment`] once and calls the verb in
//! [`verbs`]; the verb calls the libraries, [`progress`] draws their events on stderr, [`output`]
//! writes the result to stdout, and [`errors`] turns a failure into words and an exit code.
#![cfg_attr(not(test), deny(clippy::expect_used, clippy::unwrap_used))]
#![allow(
    rustdoc::broken_intra_doc_links,
    rustdoc::invalid_html_tags,
    rustdoc::bare_urls,
    reason = "doc comments of arguments are their help texts, not Markdown"
)]

mod app;
mod arguments;
mod complete;
mod contexts;
mod environment;
mod errors;
mod host;
mod invocation;
mod messages;
mod mounted;
mod old_jobs;
mod output;
mod private_folder;
mod program;
mod progress;
mod prompt;
mod session;
mod shells;
mod signals;
mod verbs;

use std::process::ExitCode;

fn main() -> ExitCode {
    app::run()
}
