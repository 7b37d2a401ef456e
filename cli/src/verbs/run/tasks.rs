//! A run through Slurm: srun starts this verb with `-s` on each node.

use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use pcocc_run::sandbox::NOT_FOUND;
use pcocc_run::slurm::Tasks;

use super::{Args, image};
use crate::errors::{Failure, Outcome};
use crate::invocation::Invocation;

/// The hint for a machine without srun.
pub(super) const NO_SLURM: &str =
    "without -s commands run through Slurm's srun; add -s to run on this machine";

impl Args {
    /// Runs the tasks; srun replaces this process.
    pub(super) fn run_tasks(&self, invocation: &Invocation, tasks: &Tasks) -> Outcome {
        let name = self.image.as_deref().unwrap_or_default();
        // The image is prepared once here instead of by all tasks at once, and errors show before the queue.
        drop(image::open(invocation, name)?);
        let has_term = super::host(invocation)?.environment.get("TERM").is_some();
        let argv = tasks.srun(super::program().into(), self.arguments(has_term));
        let Some((program, arguments)) = argv.split_first() else {
            return Ok(());
        };
        let error = Command::new(program).args(arguments).exec();
        Err(Failure::because(format!("cannot start srun: {error}"))
            .hint(NO_SLURM)
            .code(NOT_FOUND))
    }

    /// The arguments of one task; `has_term` says whether a terminal's name must be passed on.
    fn arguments(&self, has_term: bool) -> Vec<OsString> {
        let mut words: Vec<OsString> = vec!["run".into(), "-s".into()];
        let mut add = |option: &str, value: &OsStr| words.extend([option.into(), value.into()]);
        if let Some(image) = &self.image {
            add("--image", image.as_ref());
        }
        if let Some(cwd) = &self.cwd {
            add("--cwd", cwd.as_ref());
        }
        for (option, values) in [
            ("--env", &self.env),
            ("--path-prefix", &self.path_prefix),
            ("--path-suffix", &self.path_suffix),
        ] {
            values.iter().for_each(|value| add(option, value));
        }
        // srun makes the terminal; a second one is not needed.
        if self.pty && has_term {
            add("--env", "TERM".as_ref());
        }
        for (option, values) in [("--mount", &self.mount), ("--module", &self.module)] {
            values.iter().for_each(|value| add(option, value.as_ref()));
        }
        if let Some(script) = &self.script {
            add("--script", script.as_ref());
        }
        let entry_point = self.entry_point.as_ref();
        // The "=" is needed, because the value may be empty or begin with a dash.
        words.extend(entry_point.map(|text| format!("--entry-point={text}").into()));
        for (given, option) in [
            (self.mirror_env, "--mirror-env"),
            (self.no_defaults, "--no-defaults"),
            (self.no_user, "--no-user"),
        ] {
            words.extend(given.then(|| option.into()));
        }
        if !self.command.is_empty() {
            words.push("--".into());
            words.extend(self.command.iter().cloned());
        }
        words
    }
}
