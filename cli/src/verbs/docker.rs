//! `pcocc docker`: images and docker daemons.

mod build;
mod edit;
mod env;
mod export;
mod guest;
mod import;
mod mount;
mod umount;

use crate::app::Invocation;
use crate::errors::Outcome;

/// Exchange images with a docker daemon
///
/// The daemon is the one that DOCKER_HOST, DOCKER_TLS_VERIFY and DOCKER_CERT_PATH name, as for docker
/// itself; without DOCKER_HOST, the one at unix:///var/run/docker.sock.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    Build(build::Args),
    Edit(edit::Args),
    Env(env::Args),
    Export(export::Args),
    Guest(guest::Args),
    Import(import::Args),
    Mount(mount::Args),
    Umount(umount::Args),
}

impl Args {
    /// Whether the verb goes on until it is stopped.
    pub(crate) fn serves(&self) -> bool {
        matches!(self.verb, Verb::Mount(_))
    }

    /// Runs the verb that was chosen.
    pub(crate) fn run(self, invocation: &Invocation) -> Outcome {
        match self.verb {
            Verb::Build(args) => args.run(invocation),
            Verb::Edit(args) => args.run(invocation),
            Verb::Env(args) => args.run(invocation),
            Verb::Export(args) => args.run(invocation),
            Verb::Guest(args) => args.run(invocation),
            Verb::Import(args) => args.run(invocation),
            Verb::Mount(args) => args.run(invocation),
            Verb::Umount(args) => args.run(invocation),
        }
    }
}
