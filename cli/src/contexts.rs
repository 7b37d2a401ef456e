//! Docker contexts of jobs, in the docker command's own store.
//!
//! A context `pcocc-JOB` has the daemon's address and copies of the certificates. It is never selected: a
//! selected context counts in every terminal, and stays when the job is gone.
//!
//! Life of a context: [`make`] notes docker's configuration folder in the file `contexts` of the job's folder
//! (paths, each with a NUL behind), then writes the context → at the job's end, [`forget`] reads the note and
//! removes the context. The launcher, `alloc`, `stop` and a later `alloc` or `batch` call it. Contexts without
//! a note, for instance of a job's folder that was removed by hand, are removed when the next context is made.

use std::ffi::OsStr;
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use pcocc_core::beneath::OpenFolder;
use pcocc_shellenv::DockerEnvironment;
use pcocc_vm::job::{Job, JobFolder, JobId};

use crate::errors::{Failure, Outcome, While as _};
use crate::host::Host;
use crate::program::run_for;

/// The file in a job's folder that names the stores of its contexts.
const NOTE: &str = "contexts";
/// Most bytes it may have.
const MAX_NOTE: u64 = 1 << 20;
/// Prefix of our contexts' names.
const PREFIX: &str = "pcocc-";
/// How long the docker command may take; it contacts no daemon here.
const PATIENCE: Duration = Duration::from_secs(10);

/// Makes or renews the context of a job, and removes the contexts of ended jobs; returns its name.
pub(crate) fn make(host: &Host, job: &Job, docker: &DockerEnvironment) -> Outcome<String> {
    let name = name(job.id());
    write(host, job, docker, &name).when(|| format!("make docker context {name}"))?;
    Ok(name)
}

fn write(host: &Host, job: &Job, docker: &DockerEnvironment, name: &str) -> Outcome {
    let store = Store {
        program: program(docker.docker_path.as_deref()),
        folder: host.environment().docker_config.clone(),
    };
    prune(host, &store)?;
    note(&job.folder, &store.folder)?;
    let there = store.names()?.iter().any(|there| there == name);
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
    let words = [verb, "--description", &description, "--docker", &endpoint];
    store.run(&[&words[..], &[name]].concat())?;
    // The process that ended the job may have looked for the context too early.
    let over = |job: &JobFolder| job.read().map_or(true, |record| record.state.is_over());
    if over(&job.folder) {
        store.remove(name)?;
        let why = format!("job {} has ended meanwhile", job.id());
        return Err(Failure::because(why));
    }
    Ok(())
}

/// Removes the contexts of an ended job. Without a docker command, a later call elsewhere will do it.
pub(crate) fn forget(host: &Host, folder: &JobFolder) {
    let noted = noted(folder);
    if noted.is_empty() || !folder.read().is_ok_and(|record| record.state.is_over()) {
        return;
    }
    let name = name(folder.id());
    let removed = host.docker_path().and_then(|path| {
        let program = program(path.as_deref());
        for folder in noted {
            // The store may be gone with its folder.
            if folder.is_dir() {
                let program = program.clone();
                let store = Store { program, folder };
                store.remove(&name)?;
            }
        }
        Ok(OpenFolder::open(folder.path())?.remove_file(NOTE)?)
    });
    if let Err(failure) = removed {
        tracing::debug!(?failure, "a context stays");
    }
}

/// Removes the contexts of jobs that have ended or are gone.
fn prune(host: &Host, store: &Store) -> Outcome {
    for name in store.names()? {
        let number = name
            .strip_prefix(PREFIX)
            .and_then(|id| id.parse::<JobId>().ok());
        let Some(id) = number else { continue };
        let alive = host
            .job_now(id)
            .is_ok_and(|job| !job.record.state.is_over());
        if !alive {
            store.remove(&name)?;
        }
    }
    Ok(())
}

/// A job's context.
fn name(id: JobId) -> String {
    format!("{PREFIX}{id}")
}

/// Notes that a context is in the store of this configuration folder of docker.
fn note(folder: &JobFolder, store: &Path) -> io::Result<()> {
    let mut all = noted(folder);
    let store = std::path::absolute(store)?;
    if !all.contains(&store) {
        all.push(store);
    }
    let mut text = Vec::new();
    for store in all {
        text.extend(store.as_os_str().as_bytes());
        text.push(0);
    }
    let job = OpenFolder::open(folder.path())?;
    let mut temp = job.temp(".new-", 0o600)?;
    temp.write_all(&text)?;
    temp.replace(&job, NOTE)
}

/// The noted configuration folders of docker.
fn noted(folder: &JobFolder) -> Vec<PathBuf> {
    let read = OpenFolder::open(folder.path()).and_then(|job| job.read(NOTE, MAX_NOTE));
    let text = read.unwrap_or_default();
    text.split(|byte| *byte == 0)
        .filter(|path| !path.is_empty())
        .map(|path| OsStr::from_bytes(path).into())
        .collect()
}

/// The docker command and the configuration folder with its contexts.
#[derive(Debug)]
struct Store {
    program: PathBuf,
    folder: PathBuf,
}

impl Store {
    /// Removes a context, if it exists; if it is selected, docker returns to its default.
    fn remove(&self, name: &str) -> Outcome {
        let removed = self.run(&["rm", "--force", name]);
        match removed {
            // Some versions of docker report a missing context as an error.
            Err(failure) if self.names()?.iter().any(|other| other == name) => Err(failure),
            _ => Ok(()),
        }
    }

    /// The names of all our contexts.
    fn names(&self) -> Outcome<Vec<String>> {
        let text = self.run(&["ls", "--format", "{{.Name}}"])?;
        let ours = text.lines().filter(|name| name.starts_with(PREFIX));
        Ok(ours.map(str::to_owned).collect())
    }

    /// Runs `docker context`, which contacts no daemon here; returns its output.
    fn run(&self, arguments: &[&str]) -> Outcome<String> {
        const HINT: &str = "contexts are docker's own: install its command, or name its folder as docker_path in \
                            containers.yaml";
        let cannot = |error: io::Error| {
            let why = format!("cannot run {}: {error}", self.program.display());
            Failure::because(why).hint(HINT)
        };
        let mut command = Command::new(&self.program);
        command
            .arg("--config")
            .arg(&self.folder)
            .arg("context")
            .args(arguments)
            // Docker warns of variables that override a selected context; no context is selected here.
            .env_remove("DOCKER_HOST")
            .env_remove("DOCKER_CONTEXT");
        let output = run_for(&mut command, PATIENCE).map_err(cannot)?;
        if output.succeeded() {
            return Ok(output.out);
        }
        if output.status.is_none() {
            return Err(cannot(io::ErrorKind::TimedOut.into()));
        }
        let verb = arguments.first().unwrap_or(&"");
        let why = format!("`docker context {verb}` said: {}", output.err.trim());
        Err(Failure::because(why))
    }
}

/// The docker command.
fn program(folder: Option<&Path>) -> PathBuf {
    let here = folder.map(|folder| folder.join("docker"));
    here.filter(|path| path.is_file())
        .unwrap_or_else(|| "docker".into())
}

/// One field of the comma-separated list that docker takes.
fn csv(field: &str) -> String {
    match field.contains([',', '"']) {
        true => format!("\"{}\"", field.replace('"', "\"\"")),
        false => field.to_owned(),
    }
}
