//! `pcocc completions`: completion in the places where shells look for it.

mod stubs;

use std::env;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use pcocc_shellenv::Dialect;

use crate::errors::{Outcome, While as _};
use crate::invocation::Invocation;
use crate::output;
use crate::shells;

use stubs::Stub;

/// Mark of the files that are installed and removed with pcocc itself.
const INSTALLED: &str = "# Installed with pcocc.";

/// Put completion where your shells look for it
///
/// Not needed with `pcocc hook`, which completes as well.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  pcocc completions install")]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Write a file for each shell, which asks pcocc at TAB
    ///
    /// Bash (with the package bash-completion) and fish look into folders of the home. Zsh does not: there a
    /// few marked lines in .zshrc name the folder.
    #[command(
        after_help = "Examples:\n  pcocc completions install\n  pcocc completions install --shell zsh"
    )]
    Install(Shells),
    /// Take away what install wrote
    #[command(after_help = "Example:\n  pcocc completions uninstall")]
    Uninstall(Shells),
    /// Print the file of a shell, for those who install pcocc for a whole machine
    #[command(hide = true)]
    Stub {
        /// The shell
        #[arg(value_parser = shells::interactive())]
        shell: Dialect,
        /// Where pcocc will be
        program: PathBuf,
    },
}

#[derive(Debug, clap::Args)]
struct Shells {
    /// Only for this shell; may be given several times. By default for those that have a configuration here, and
    /// for yours
    #[arg(long, value_parser = shells::interactive(), value_name = "SHELL")]
    shell: Vec<Dialect>,
}

impl Args {
    /// Writes or removes the files, and reports it.
    pub(crate) fn run(self, invocation: &Invocation) -> Outcome {
        if let Verb::Stub { shell, program } = &self.verb {
            let code = stubs::code(*shell, INSTALLED, program);
            return output::bytes(code.as_bytes());
        }
        let environment = &invocation.environment;
        let chosen = |shells: &Shells, stub: &Stub| match shells.shell.as_slice() {
            [] => stub.is_used(environment),
            some => some.contains(&stub.dialect()),
        };
        let program = env::current_exe().when(|| "find the path of pcocc")?;
        let mut said = String::new();
        for stub in Stub::all(environment) {
            match &self.verb {
                Verb::Install(shells) if chosen(shells, &stub) => {
                    said += &stub.install(&program)?;
                }
                Verb::Uninstall(shells) if shells.shell.is_empty() || chosen(shells, &stub) => {
                    said += &stub.uninstall()?;
                }
                _ => {}
            }
        }
        if said.is_empty() {
            said += "Nothing to do.\n";
        }
        output::text(&said)
    }
}
