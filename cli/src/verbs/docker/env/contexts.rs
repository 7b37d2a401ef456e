//! Docker contexts of jobs, in the docker command's own store.
//!
//! A context `pcocc-JOB` holds the daemon's address and copies of the certificates. It is never selected:
//! a selected context counts in every terminal, and stays when the job is gone. Those of jobs that are over
//! are removed whenever one is made.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use pcocc_shellenv::DockerEnvironment;
use pcocc_vm::job::JobId;
use pcocc_vm::slurm::Squeue;

use crate::environment::Environment;
use crate::errors::{Failure, Outcome};
use crate::jobs;

/// Begins the names of our contexts.
const PREFIX: &str = "pcocc-";

/// Makes or renews the context of a job, removes those of jobs that are over, and gives its name.
pub(crate) fn make(environment: &Environment, docker: &DockerEnvironment) -> Outcome<String> {
    let name = format!("{PREFIX}{}", docker.job);
    let action = format!("make docker context {name}");
    let program = program(docker.docker_path.as_deref());
    prune(environment, &program, &action)?;
    let there = names(&program, &action)?.contains(&name);
    let file = |name: &str| docker.cert_path.join(name).to_string_lossy().into_owned();
    let endpoint = [
        format!("host={}", docker.host),
        format!("ca={}", file("ca.pem")),
        format!("cert={}", file("cert.pem")),
        format!("key={}", file("key.pem")),
    ]
    .map(|field| csv(&field))
    .join(",");
    let verb = if there { "update" } else { "create" };
    let description = format!("docker VM of pcocc job {}", docker.job);
    run(
        &program,
        &[
            "context",
            verb,
            "--description",
            &description,
            "--docker",
            &endpoint,
            &name,
        ],
        &action,
    )?;
    Ok(name)
}

/// Removes the contexts of jobs that are over or gone.
fn prune(environment: &Environment, program: &Path, action: &str) -> Outcome {
    let jobs = jobs::open(environment, action)?;
    for name in names(program, action)? {
        let number = name
            .strip_prefix(PREFIX)
            .and_then(|id| id.parse::<JobId>().ok());
        let Some(id) = number else { continue };
        let alive = jobs
            .get(id, &Squeue)
            .is_ok_and(|job| !job.record.state.is_over());
        if !alive {
            remove(program, &name, action)?;
        }
    }
    Ok(())
}

/// Removes a context; if it is the selected one, docker goes back to its default.
fn remove(program: &Path, name: &str, action: &str) -> Outcome {
    run(program, &["context", "rm", "--force", name], action).map(drop)
}

/// The names of all contexts of ours.
fn names(program: &Path, action: &str) -> Outcome<Vec<String>> {
    let output = run(program, &["context", "ls", "--format", "{{.Name}}"], action)?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let ours = text.lines().filter(|name| name.starts_with(PREFIX));
    Ok(ours.map(str::to_owned).collect())
}

/// The docker command.
fn program(folder: Option<&Path>) -> PathBuf {
    let here = folder.map(|folder| folder.join("docker"));
    here.filter(|path| path.is_file())
        .unwrap_or_else(|| "docker".into())
}

/// Runs the docker command, which need not reach any daemon for this.
fn run(program: &Path, arguments: &[&str], action: &str) -> Outcome<Output> {
    let hint = "contexts are docker's own: install its command, or name its folder as docker_path in \
                containers.yaml";
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        // Docker warns of variables that win over a selected context; none is selected here.
        .env_remove("DOCKER_HOST")
        .env_remove("DOCKER_CONTEXT")
        .output()
        .map_err(|error| {
            Failure::message(action, format!("cannot run {}: {error}", program.display()))
                .hint(hint)
        })?;
    if output.status.success() {
        return Ok(output);
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Failure::message(
        action,
        format!(
            "`docker context {}` said: {said}",
            arguments.get(1).unwrap_or(&"")
        ),
    ))
}

/// One field of the comma separated list that docker takes.
fn csv(field: &str) -> String {
    match field.contains([',', '"']) {
        true => format!("\"{}\"", field.replace('"', "\"\"")),
        false => field.to_owned(),
    }
}
