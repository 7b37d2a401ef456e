//! `pcocc docker`: images and docker daemons.

mod alloc;
mod batch;
mod build;
mod edit;
mod env;
mod export;
mod forward;
mod guest;
mod import;
mod launch;
mod logs;
mod ls;
mod mount;
mod session;
mod shell;
mod status;
mod stop;
mod umount;

use crate::errors::Outcome;
use crate::invocation::Invocation;

/// Allocate docker VMs and exchange images with a docker daemon
///
/// The daemon is the one that DOCKER_HOST, DOCKER_TLS_VERIFY and DOCKER_CERT_PATH name, as in a docker shell;
/// without DOCKER_HOST, that of the docker VM there is; without one, the one at unix:///var/run/docker.sock.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  pcocc docker alloc -p sandy -c 16\n  pcocc docker export cont-busybox bb\n  pcocc docker import bb newbb\n  pcocc docker build ./hello hello"
)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    Alloc(alloc::Args),
    Batch(batch::Args),
    Shell(shell::Args),
    Ls(ls::Args),
    Status(status::Args),
    Logs(logs::Args),
    Forward(forward::Args),
    Stop(stop::Args),
    Build(build::Args),
    Edit(edit::Args),
    Env(env::Args),
    Export(export::Args),
    Guest(guest::Args),
    Import(import::Args),
    Mount(mount::Args),
    Umount(umount::Args),
    Launch(launch::Args),
    Session(session::Args),
}

impl Args {
    /// Whether the verb runs until it is stopped.
    pub(crate) fn serves(&self) -> bool {
        matches!(self.verb, Verb::Mount(_))
    }

    /// Whether the verb keeps a VM alive.
    pub(crate) fn launches(&self) -> bool {
        matches!(self.verb, Verb::Launch(_) | Verb::Session(_))
    }

    /// Runs the chosen verb.
    pub(crate) fn run(self, invocation: &Invocation) -> Outcome {
        match self.verb {
            Verb::Build(args) => invocation.run(args),
            Verb::Edit(args) => invocation.run(args),
            Verb::Env(args) => invocation.run(args),
            Verb::Export(args) => invocation.run(args),
            Verb::Guest(args) => args.run(invocation),
            Verb::Import(args) => invocation.run(args),
            Verb::Mount(args) => invocation.run(args),
            Verb::Umount(args) => invocation.run(args),
            Verb::Alloc(args) => invocation.run(args),
            Verb::Batch(args) => invocation.run(args),
            Verb::Shell(args) => invocation.run(args),
            Verb::Ls(args) => invocation.run(args),
            Verb::Status(args) => invocation.run(args),
            Verb::Logs(args) => invocation.run(args),
            Verb::Forward(args) => invocation.run(args),
            Verb::Stop(args) => invocation.run(args),
            Verb::Launch(args) => args.run(invocation),
            Verb::Session(args) => invocation.run(args),
        }
    }
}
