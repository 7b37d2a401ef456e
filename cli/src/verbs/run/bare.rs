//! A command without an image: only its environment changes.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use pcocc_run::plan::bare_environment;
use pcocc_run::sandbox::{NOT_EXECUTABLE, NOT_FOUND};
use pcocc_run::slurm::Tasks;

use super::{Args, host};
use crate::errors::{Failure, Outcome, USAGE};
use crate::invocation::Invocation;

impl Args {
    /// Runs the command here with only the requested variables, or through Slurm with all variables, as pcocc
    /// 0.7 did.
    pub(super) fn run_bare(&self, invocation: &Invocation, tasks: &Tasks) -> Outcome {
        let wrong = |why: &str| Err(Failure::because(why).code(USAGE));
        if self.script.is_none() && self.command.is_empty() {
            return wrong(
                "there is nothing to run; name an image with -I, a command or a --script",
            );
        }
        for (given, option) in [
            (!self.mount.is_empty(), "--mount"),
            (!self.module.is_empty(), "-M"),
            (self.entry_point.is_some(), "--entry-point"),
        ] {
            if given {
                return wrong(&format!("{option} is for images; name one with -I"));
            }
        }
        let mut request = self.request()?;
        let host = host(invocation)?;
        request.mirror_env |= !self.singleton;
        let environment = bare_environment(&request, &host)?;
        let mut words: Vec<OsString> = match &self.script {
            Some(script) => vec![host.cwd.join(script).into()],
            None => Vec::new(),
        };
        words.extend(self.command.iter().cloned());
        let argv = match words.split_first() {
            Some((program, arguments)) if !self.singleton => {
                tasks.srun(program.clone(), arguments.to_vec())
            }
            _ => words,
        };
        let Some((program, arguments)) = argv.split_first() else {
            return Ok(());
        };
        let mut command = Command::new(program);
        command.args(arguments).env_clear().envs(environment.iter());
        if let Some(cwd) = &self.cwd {
            command.current_dir(cwd);
        }
        // The command replaces this process, so the exit code is the command's.
        let error = command.exec();
        let code = match error.kind() {
            io::ErrorKind::NotFound => NOT_FOUND,
            _ => NOT_EXECUTABLE,
        };
        let failure = Failure::from(error).code(code);
        Err(match self.singleton {
            true => failure,
            false => failure.hint(super::tasks::NO_SLURM),
        })
    }
}
