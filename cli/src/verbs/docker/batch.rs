//! `pcocc docker batch`: a docker VM without a shell.

use std::ffi::OsString;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use pcocc_core::batch::BatchType;
use pcocc_vm::job::{Backend, JobId};
use pcocc_vm::{options, slurm};

use crate::errors::{Failure, Outcome, USAGE, While as _};
use crate::invocation::{Invocation, Run};
use crate::old_jobs;
use crate::output;
use crate::session::show_console;
use crate::verbs::docker::launch::{self, LaunchRequest, LocalJob, MachineArgs, absolute_path};

/// How long a launcher may take to take over its job.
const PATIENCE: Duration = Duration::from_secs(20);

/// sbatch's variable for `--array`.
const ARRAY: &str = "SBATCH_ARRAY_INX";

/// Allocate a docker VM in the background
///
/// Comes back at once. All options that are not listed here are those of sbatch; where there is no Slurm the VM runs
/// on this machine, also after logout, and -c, --mem, -J and -t are understood. `pcocc docker shell` starts a shell
/// for the VM, `pcocc docker stop` ends it.
#[derive(Debug, clap::Args)]
#[command(
    override_usage = "pcocc docker batch [OPTIONS] [BATCH OPTIONS]",
    after_help = "Examples:\n  pcocc docker batch -p sandy -c 16\n  \
    pcocc docker batch -J work && pcocc docker shell -j work"
)]
pub(crate) struct Args {
    /// Show docker and the repositories as folders there, on the VM's node, as long as the VM is ready
    #[arg(long, value_name = "DIR", value_parser = absolute_path())]
    mount: Option<PathBuf>,
    #[command(flatten)]
    machine: MachineArgs,
    /// Options of sbatch
    #[arg(last = true, value_name = "BATCH OPTIONS", hide = true)]
    batch: Vec<OsString>,
}

impl Run for Args {
    fn action(&self) -> String {
        "allocate a docker VM".to_owned()
    }

    fn run(self, invocation: &Invocation) -> Outcome {
        match invocation.host.backend()? {
            BatchType::Slurm => self.through_slurm(invocation),
            BatchType::Local => self.here(invocation),
        }
    }
}

impl Args {
    /// Starts a launcher on this machine that outlives this process, and waits until it has taken over.
    fn here(self, invocation: &Invocation) -> Outcome {
        let local = LocalJob::create(invocation, &self.batch, false, self.mount, self.machine)?;
        let mut child = local.launch_alone()?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let record = local.folder.read()?;
            if record.state.is_over() {
                let why = record.error.unwrap_or_else(|| "it has ended".to_owned());
                show_console(&local.folder);
                return Err(Failure::because(why));
            }
            let ours = record
                .launcher
                .is_some_and(|holder| holder.pid == std::process::id());
            if !ours {
                break;
            }
            if let Some(status) = child.try_wait()? {
                return Err(local.fail(&format!("its launcher ended: {status}")));
            }
            if Instant::now() > deadline {
                let _ = child.kill();
                return Err(local.fail("its launcher does not start"));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        output::text(&format!("Submitted batch job {}\n", local.folder.id()))
    }

    /// Passes a script to sbatch, and makes the folder of the submitted job.
    fn through_slurm(&self, invocation: &Invocation) -> Outcome {
        options::check(&self.batch).map_err(|error| Failure::from(error).code(USAGE))?;
        let environment = &invocation.environment;
        // The variable is refused like the option.
        if let Some(indices) = environment.slurm.variable(ARRAY) {
            let why = format!(
                "{ARRAY}={indices} asks for many jobs, and a docker VM is one; submit them one by one"
            );
            return Err(Failure::because(why)
                .hint(format!("unset {ARRAY}"))
                .code(USAGE));
        }
        let logs = environment.user_conf.join("log");
        std::fs::create_dir_all(&logs).when(|| format!("create the folder {}", logs.display()))?;
        let request = LaunchRequest {
            mount: self.mount.clone(),
            machine: self.machine.clone(),
            ..LaunchRequest::default()
        };
        let script = slurm::script(
            &logs.join("job-%j.out").to_string_lossy(),
            &launch::program()?,
            &launch::VERB,
            &request.line()?,
        );
        let mut command = Command::new("sbatch");
        for name in environment.slurm.of_a_job() {
            command.env_remove(name);
        }
        let mut sbatch = command
            .args(&self.batch)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| {
                Failure::from(error)
                    .part("run sbatch")
                    .hint("without Slurm, say `type: local` in batch.yaml")
            })?;
        if let Some(mut stdin) = sbatch.stdin.take() {
            // A failed sbatch shows in its exit status.
            let _ = stdin.write_all(script.as_bytes());
        }
        if let Some(stdout) = sbatch.stdout.take() {
            for line in BufReader::new(stdout).lines() {
                let line = line?;
                if let Some(id) = slurm::submitted(&line) {
                    self.note(invocation, id)?;
                }
                output::text(&format!("{line}\n"))?;
            }
        }
        match sbatch.wait()?.success() {
            true => Ok(()),
            // sbatch has said why.
            false => Err(Failure::reported(1)),
        }
    }

    /// Makes the folder of a submitted job, unless its launcher was faster.
    fn note(&self, invocation: &Invocation, id: JobId) -> Outcome {
        let jobs = invocation.host.jobs()?;
        old_jobs::clean_up(&invocation.host);
        let folder = jobs.create_slurm(id, false)?;
        let name = options::value_of(&self.batch, &["J", "job-name"]);
        let mut record = launch::first_record(invocation, id, Backend::Slurm, name.as_deref());
        record.mount.clone_from(&self.mount);
        folder.write_first(&record)?;
        Ok(())
    }
}
