//! `pcocc docker env`: the docker environment of a job as shell code.
//!
//! Data path: the job → wait until its record says ready → `DockerEnvironment` → with the present variables,
//! `Changes` → code for the parent shell, on stdout. The output is evaluated: it has nothing else, and is empty
//! on failure.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use clap::ValueEnum;
use pcocc_shellenv::{Changes, Dialect, leave, parent};
use serde::Serialize;

use crate::contexts;
use crate::environment::Environment;
use crate::errors::{Failure, Outcome};
use crate::invocation::{Invocation, Run};
use crate::output;
use crate::session::GiveUp;
use crate::shells;
use crate::verbs::docker::shell::wait;

/// Print what makes docker in this shell use a job's daemon
///
/// Prints shell code that sets DOCKER_HOST, DOCKER_TLS_VERIFY, DOCKER_CERT_PATH and what belongs to them, for
/// the shell that runs pcocc. Waits for the VM if it is not ready yet. What was set before is kept, and --unset
/// brings it back, also when the job is long gone.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    eval $(pcocc docker env -j 1756495)       # sh, bash, zsh\n  \
    pcocc docker env -j 1756495 | source      # fish\n  \
    eval `pcocc docker env`                   # tcsh\n  \
    eval $(pcocc docker env --unset)          # docker as it was before\n  \
    docker --context $(pcocc docker env --context) ps\n\n\
    JSON: {job, set: {NAME: VALUE}, unset: [NAME]}.")]
pub(crate) struct Args {
    /// The job, by its number or name; by default that of this shell, or the only one there is
    #[arg(short, long, value_name = "JOB")]
    job: Option<String>,
    /// Write code for this shell; by default for the one that runs pcocc
    #[arg(long, value_parser = shells::any(), value_name = "SHELL")]
    shell: Option<Dialect>,
    /// Give up when the VM is not ready after so many seconds
    #[arg(short = 'T', long, value_name = "SECONDS")]
    timeout: Option<u64>,
    /// Bring back what was set before
    #[arg(long, conflicts_with_all = ["job", "context", "timeout"])]
    unset: bool,
    /// Make a docker context of the job's daemon and print its name; it is not selected
    #[arg(long, conflicts_with_all = ["shell", "format"])]
    context: bool,
    /// What to write
    #[arg(
        long,
        value_enum,
        value_name = "FORMAT",
        default_value_t,
        conflicts_with = "shell"
    )]
    format: Format,
}

/// The form of the output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    #[default]
    Shell,
    Json,
}

/// The changes, as `--format json` writes them. The keys are stable.
#[derive(Debug, Serialize)]
struct Document<'a> {
    job: Option<&'a str>,
    set: BTreeMap<&'a str, &'a str>,
    unset: &'a [String],
}

impl Run for Args {
    fn action(&self) -> String {
        match &self.job {
            Some(job) => format!("find the docker daemon of job {job}"),
            None => "find the docker daemon of a job".to_owned(),
        }
    }

    fn run(self, invocation: &Invocation) -> Outcome {
        let environment = &invocation.environment;
        let variables = Environment::all();
        if self.unset {
            return self.write(environment, None, &leave(&variables));
        }
        let job = invocation.host.choose_job(self.job.as_deref())?;
        let give_up = self.timeout.map(GiveUp::after);
        let job = wait(invocation, job, give_up.as_ref())?;
        let docker = invocation.host.docker_environment(&job)?;
        if self.context {
            let name = contexts::make(&invocation.host, &job, &docker)?;
            return output::text(&format!("{name}\n"));
        }
        self.write(environment, Some(&docker.job), &docker.activate(&variables))
    }
}

impl Args {
    fn write(&self, environment: &Environment, job: Option<&str>, changes: &Changes) -> Outcome {
        match self.format {
            Format::Shell => {
                let dialect = self.shell.unwrap_or_else(|| caller(environment));
                output::bytes(changes.code(dialect).as_bytes())
            }
            Format::Json => {
                let mut set = BTreeMap::new();
                for (name, value) in &changes.set {
                    let value = value.to_str().ok_or_else(|| {
                        let why = format!("the value of {name} is not UTF-8, as JSON has to be");
                        Failure::message("write the docker environment", why)
                            .hint("evaluate the shell code instead: leave --format out")
                    })?;
                    set.insert(name.as_str(), value);
                }
                output::json(&Document {
                    job,
                    set,
                    unset: &changes.unset,
                })
            }
        }
    }
}

/// The shell that runs this command; without one, the user's own.
fn caller(environment: &Environment) -> Dialect {
    parent::shell_above(Path::new("/proc"), std::process::id())
        .or_else(|| Dialect::of_program(environment.shell.as_deref()?.as_os_str()))
        .unwrap_or(Dialect::Sh)
}
