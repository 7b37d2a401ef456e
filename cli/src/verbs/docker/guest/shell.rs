//! `pcocc docker guest shell`: a root shell inside a VM, beside its docker daemon.
//!
//! Data path: the job's certificates → the agent at the VM's endpoint → its shell on a terminal of the guest.
//! Root is root of the guest only: in shared folders, root has the rights of the user.

use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;

use pcocc_vm::shell;

use crate::environment::Environment;
use crate::errors::{Failure, Outcome};
use crate::host::jobs::JobOption;
use crate::invocation::{Invocation, Run};

/// Start a root shell inside a docker VM
///
/// The VM's own system, in which the docker daemon runs. It has busybox and little else.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  pcocc docker guest shell\n  pcocc docker guest shell -j 1756495 -E 'dmesg | tail'"
)]
pub(crate) struct Args {
    #[command(flatten)]
    job: JobOption,
    /// Run this command line instead, as sh does
    #[arg(short = 'E', long, value_name = "SCRIPT")]
    script: Option<String>,
}

impl Run for Args {
    fn action(&self) -> String {
        "start a shell in the guest".to_owned()
    }

    fn run(self, invocation: &Invocation) -> Outcome {
        let job = self.job.choose(&invocation.host)?;
        let client = invocation.host.endpoint_client(&job)?;
        let variables = Environment::variables();
        let term = variables.get("TERM").map_or("dumb", String::as_str);
        let input = io::stdin().as_fd().try_clone_to_owned()?;
        let output = io::stdout().as_fd().try_clone_to_owned()?;
        let (input, output) = (File::from(input), File::from(output));
        shell::run(
            &client,
            term,
            self.script,
            input,
            output,
            &invocation.cancel,
        )
        .map_err(|error| match error.kind() {
            io::ErrorKind::Interrupted => Failure::because("interrupted"),
            _ => Failure::from(error).hint(format!(
                "see how the VM is doing with `pcocc docker status -j {}`",
                job.id()
            )),
        })
    }
}
