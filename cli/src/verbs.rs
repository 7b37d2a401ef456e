//! The verbs: one file each, with its arguments, its help and its run.

#![allow(
    rustdoc::broken_intra_doc_links,
    rustdoc::invalid_html_tags,
    reason = "doc comments of arguments are help texts, where [REPO:]IMAGE is no link"
)]

mod completions;
mod config;
mod docker;
mod doctor;
mod help;
mod hook;
mod image;
mod manpages;
mod run;
mod transfer;

use crate::errors::Outcome;
use crate::invocation::Invocation;

/// The verb.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    Image(image::Args),
    Docker(docker::Args),
    Config(config::Args),
    Doctor(doctor::Args),
    Hook(hook::Args),
    Run(Box<run::Args>),
    Completions(completions::Args),
    Help(help::Args),
    Manpages(manpages::Args),
}

impl Verb {
    /// The default log of the verb: a long-lived verb logs its errors.
    pub(crate) fn log(&self) -> Option<&'static str> {
        match self {
            Self::Docker(args) if args.serves() => {
                Some("warn,pcocc_fs::mount=info,pcocc_fs::mountpoint=info")
            }
            _ => None,
        }
    }

    /// Whether only the verb itself may end its process, because others depend on it.
    pub(crate) fn is_patient(&self) -> bool {
        matches!(self, Self::Docker(args) if args.launches())
    }

    /// Whether the verb may run as long as a job, and gets the signals of the job.
    pub(crate) fn lasts(&self) -> bool {
        matches!(self, Self::Docker(args) if args.launches() || args.serves())
    }

    /// Runs the verb; `command` makes the whole command line.
    pub(crate) fn run(self, invocation: &Invocation, command: fn() -> clap::Command) -> Outcome {
        match self {
            Self::Image(args) => args.run(invocation),
            Self::Docker(args) => args.run(invocation),
            Self::Config(args) => args.run(invocation),
            Self::Doctor(args) => args.run(invocation),
            Self::Hook(args) => args.run(invocation),
            Self::Run(args) => invocation.run(*args),
            Self::Completions(args) => args.run(invocation),
            Self::Help(args) => args.run(&command()),
            Self::Manpages(args) => args.run(command()),
        }
    }
}
