//! Jobs as the verbs see them: which one is meant, and where its docker daemon is.

use std::collections::HashMap;
use std::net::{IpAddr, ToSocketAddrs as _};

use pcocc_core::template;
use pcocc_shellenv::DockerEnvironment;
use pcocc_vm::job::{Job, JobId, Jobs, Queue, Queued, Wanted};
use pcocc_vm::machine::ClientIdentity;
use pcocc_vm::service::EndpointClient;
use pcocc_vm::slurm::Squeue;

use crate::environment::Environment;
use crate::errors::{Failure, Outcome, While as _};
use crate::stores;

/// A scheduler that is not asked: records are taken as they are.
#[derive(Debug)]
pub(crate) struct Unasked;

impl Queue for Unasked {
    fn query(&self, _ids: &[JobId]) -> Option<HashMap<JobId, Queued>> {
        None
    }
}

/// The user's jobs; `action` is what needs them.
pub(crate) fn open(environment: &Environment, action: &str) -> Outcome<Jobs> {
    Jobs::open(&environment.user_conf).when(|| action)
}

/// The job that is meant by `wanted`, a number or a name; without one, that of the shell we run in or the only
/// one there is.
pub(crate) fn choose(
    environment: &Environment,
    wanted: Option<&str>,
    action: &str,
) -> Outcome<Job> {
    let wanted = match wanted {
        None => Wanted::Unsaid,
        Some(text) => match text.parse() {
            Ok(id) => Wanted::Id(id),
            Err(_) => Wanted::Name(text.to_owned()),
        },
    };
    let enclosing = enclosing_id(environment);
    let jobs = open(environment, action)?;
    jobs.choose(&wanted, enclosing, &Squeue).when(|| action)
}

/// The job that is meant when nothing is said; `None` when there is no job at all.
pub(crate) fn only(environment: &Environment, action: &str) -> Outcome<Option<Job>> {
    let jobs = open(environment, action)?;
    if jobs.ids().when(|| action)?.is_empty() {
        // Nothing is asked, and nothing can fail, where nobody has jobs.
        return Ok(None);
    }
    let enclosing = enclosing_id(environment);
    match jobs.choose(&Wanted::Unsaid, enclosing, &Squeue) {
        Ok(job) => Ok(Some(job)),
        Err(pcocc_vm::job::Error::NoJob) => Ok(None),
        Err(error) => Err(Failure::new(action, error)),
    }
}

/// The job of the shell we run in, as its record has it; `None` outside of one, and in a job that is no docker VM.
pub(crate) fn enclosing(environment: &Environment) -> Option<Job> {
    let id = enclosing_id(environment)?;
    let job = Jobs::open(&environment.user_conf).and_then(|jobs| jobs.get(id, &Unasked));
    job.inspect_err(|error| tracing::debug!(%id, %error, "no docker VM"))
        .ok()
}

fn enclosing_id(environment: &Environment) -> Option<JobId> {
    environment.enclosing_job.as_deref()?.parse().ok()
}

/// How docker reaches the daemon of a job.
pub(crate) fn docker_environment(
    environment: &Environment,
    job: &Job,
    action: &str,
) -> Outcome<DockerEnvironment> {
    let Some(host) = &job.record.endpoint else {
        let id = job.id();
        let why = format!(
            "the docker daemon of job {id} cannot be reached yet: the job is {}",
            job.record.state
        );
        return Err(Failure::message(action, why).hint(format!(
            "wait for it with `pcocc docker shell -j {id}`, or try again"
        )));
    };
    Ok(DockerEnvironment {
        job: job.id().to_string(),
        host: host.clone(),
        cert_path: std::path::absolute(job.folder.client_certificates()).when(|| action)?,
        docker_path: docker_path(environment, action)?,
    })
}

/// What connects to the endpoint of a job.
pub(crate) fn endpoint_client(
    environment: &Environment,
    job: &Job,
    action: &str,
) -> Outcome<EndpointClient> {
    let docker = docker_environment(environment, job, action)?;
    let read = |name: &str| {
        let path = docker.cert_path.join(name);
        std::fs::read_to_string(&path).when(|| format!("{action}: read {}", path.display()))
    };
    let client = ClientIdentity {
        cert_pem: read("cert.pem")?,
        key_pem: read("key.pem")?,
    };
    let address = docker.host.trim_start_matches("tcp://");
    let address = address
        .to_socket_addrs()
        .when(|| format!("{action}: find {address}"))?
        .min_by_key(|address| matches!(address.ip(), IpAddr::V6(_)))
        .ok_or_else(|| Failure::message(action, format!("{address} has no address")))?;
    EndpointClient::new(address, &read("ca.pem")?, &client).when(|| action)
}

/// The folder of the docker command, if `containers.yaml` names one.
pub(crate) fn docker_path(
    environment: &Environment,
    action: &str,
) -> Outcome<Option<std::path::PathBuf>> {
    let Some(path) = stores::runtime(environment)?.docker_path else {
        return Ok(None);
    };
    let folder = template::expand(&path, &stores::path_variables(environment));
    let folder = folder.when(|| stores::at_runtime(environment, "docker_path", action))?;
    Ok(Some(folder))
}
