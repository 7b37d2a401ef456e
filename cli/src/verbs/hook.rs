//! `pcocc hook`: the code that shows jobs in the prompt of a shell.

use std::os::unix::ffi::OsStrExt as _;

use pcocc_shellenv::{Dialect, hook};

use crate::complete;
use crate::errors::{Outcome, While as _};
use crate::invocation::Invocation;
use crate::output;
use crate::shells;

/// Show the job in your prompt
///
/// Prints shell code for your shell's rc file. While docker in a shell uses a job's daemon, its prompt begins with
/// (pcocc/JOB), with the minutes that are left below ten, and with "ended" when the job is over. Defines
/// pcocc-use [JOB] and pcocc-leave, which do in the shell what `pcocc docker env` prints, and completes pcocc's
/// words at TAB.
///
/// PCOCC_PROMPT has the tag for those who build their own prompt, and PCOCC_DISABLE_PROMPT=1 leaves the prompt alone.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    eval \"$(pcocc hook bash)\"      # at the end of ~/.bashrc\n  \
    eval \"$(pcocc hook zsh)\"       # at the end of ~/.zshrc\n  \
    pcocc hook fish | source       # in ~/.config/fish/config.fish")]
pub(crate) struct Args {
    /// The shell
    #[arg(value_parser = shells::interactive())]
    shell: Dialect,
    /// Leave completion out
    #[arg(long)]
    no_completions: bool,
}

impl Args {
    /// Writes the hook.
    pub(crate) fn run(self, _invocation: &Invocation) -> Outcome {
        let program = std::env::current_exe().when(|| "find the path of pcocc")?;
        let mut code = hook(self.shell, &program).unwrap_or_default();
        if !self.no_completions {
            code.push("\n");
            code.push(complete::registration(self.shell, &program).unwrap_or_default());
        }
        output::bytes(code.as_bytes())
    }
}
