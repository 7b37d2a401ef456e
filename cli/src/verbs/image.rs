//! `pcocc image`: images in repositories.

mod cache;
mod copy;
mod delete;
mod export;
mod import;
mod list;
mod repo;
mod show;

use crate::errors::Outcome;
use crate::invocation::Invocation;

/// List and manage images in repositories
///
/// An image in a repository is written [REPO:]IMAGE[@REVISION]. Without REPO, the first repository that
/// has the image is taken (to write or delete: the first of all); without REVISION, the highest one.
/// Repositories are listed in repos.yaml, in /etc/pcocc and ~/.pcocc; with no such file there is one,
/// named `user`, in ~/.pcocc/images.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  pcocc image import docker://centos user:centos\n  pcocc image list"
)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    List(list::Args),
    Show(show::Args),
    Import(import::Args),
    Export(export::Args),
    Copy(copy::Args),
    Delete(delete::Args),
    Repo(repo::Args),
    Cache(cache::Args),
}

impl Args {
    /// Runs the chosen verb.
    pub(crate) fn run(self, invocation: &Invocation) -> Outcome {
        match self.verb {
            Verb::List(args) => invocation.run(args),
            Verb::Show(args) => invocation.run(args),
            Verb::Import(args) => invocation.run(args),
            Verb::Export(args) => invocation.run(args),
            Verb::Copy(args) => invocation.run(args),
            Verb::Delete(args) => invocation.run(args),
            Verb::Repo(args) => args.run(invocation),
            Verb::Cache(args) => args.run(invocation),
        }
    }
}
