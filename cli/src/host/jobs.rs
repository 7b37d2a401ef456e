//! Jobs for verbs: the choice of a job, its present state, and the access to its docker daemon.

use std::collections::HashMap;
use std::net::{IpAddr, ToSocketAddrs as _};
use std::sync::Arc;

use pcocc_core::named;
use pcocc_remote::docker::Lives;
use pcocc_shellenv::DockerEnvironment;
use pcocc_vm::job::{Error, Job, JobId, Queue, Queued, State, Wanted};
use pcocc_vm::machine::ClientIdentity;
use pcocc_vm::service::EndpointClient;
use pcocc_vm::slurm::Squeue;

use super::Host;
use crate::errors::{Failure, Outcome, While as _};

/// Most bytes of a file with a key or certificates.
const MAX_PEM: u64 = 1 << 20;

/// A scheduler that is never asked: records are believed.
#[derive(Debug)]
pub(crate) struct Unasked;

impl Queue for Unasked {
    fn query(&self, _ids: &[JobId]) -> Option<HashMap<JobId, Queued>> {
        None
    }
}

/// The option by which a verb is told which job is meant.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct JobOption {
    /// The job, by its number or name; by default that of this shell, or the only one there is
    #[arg(short, long, visible_short_alias = 'J', value_name = "JOB")]
    job: Option<String>,
}

impl JobOption {
    /// The chosen job, which must not be over.
    pub(crate) fn choose(&self, host: &Host) -> Outcome<Job> {
        host.choose_job(self.job.as_deref())
    }

    /// The chosen job, over or not. A number means any job; without one, the last job is meant if none is left.
    pub(crate) fn find(&self, host: &Host) -> Outcome<Job> {
        if let Some(id) = self.job.as_deref().and_then(|text| text.parse().ok()) {
            return host.job_now(id);
        }
        let failure = match self.choose(host) {
            Ok(job) => return Ok(job),
            Err(failure) => failure,
        };
        let mut all = host.list_jobs()?;
        if all.iter().any(|job| !job.record.state.is_over()) {
            return Err(failure);
        }
        all.retain(|job| {
            let wanted = self.job.as_ref();
            wanted.is_none_or(|name| job.record.name == *name)
        });
        all.into_iter()
            .max_by_key(|job| job.record.created)
            .ok_or(failure)
    }
}

impl Host {
    /// The job `wanted`, a number or a name; without one, the job of the enclosing shell, or the only job.
    pub(crate) fn choose_job(&self, wanted: Option<&str>) -> Outcome<Job> {
        let wanted = match wanted {
            None => Wanted::Unsaid,
            Some(text) => match text.parse() {
                Ok(id) => Wanted::Id(id),
                Err(_) => Wanted::Name(text.to_owned()),
            },
        };
        Ok(self.jobs()?.choose(&wanted, self.enclosing_id(), &Squeue)?)
    }

    /// The job for a command line without a choice; `None` without any job.
    pub(super) fn only_job(&self) -> Outcome<Option<Job>> {
        let jobs = self.jobs()?;
        if jobs.ids()?.is_empty() {
            // Without jobs there is nothing to ask, and nothing that can fail.
            return Ok(None);
        }
        match jobs.choose(&Wanted::Unsaid, self.enclosing_id(), &Squeue) {
            Ok(job) => Ok(Some(job)),
            Err(Error::NoJob) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The job of the enclosing shell, from its record; `None` outside of a job, or in a job that is no docker
    /// VM.
    pub(super) fn enclosing_job(&self) -> Option<Job> {
        let id = self.enclosing_id()?;
        let job = self.jobs().and_then(|jobs| Ok(jobs.get(id, &Unasked)?));
        job.inspect_err(|failure| tracing::debug!(%id, ?failure, "no docker VM"))
            .ok()
    }

    fn enclosing_id(&self) -> Option<JobId> {
        self.environment().enclosing_job.as_deref()?.parse().ok()
    }

    /// All jobs in their present state.
    pub(crate) fn list_jobs(&self) -> Outcome<Vec<Job>> {
        let jobs = self.jobs()?;
        let list = jobs.list(&Squeue)?;
        // Slurm's answer about an ended job stays true.
        for job in list.iter().filter(|job| job.record.state.is_over()) {
            if let Err(error) = jobs.record_end(job) {
                tracing::debug!(%error, "a dead job's record stays");
            }
        }
        Ok(list)
    }

    /// A job in its present state.
    pub(crate) fn job_now(&self, id: JobId) -> Outcome<Job> {
        Ok(self.jobs()?.get(id, &Squeue)?)
    }

    /// The access to the daemon of a job, for docker.
    pub(crate) fn docker_environment(&self, job: &Job) -> Outcome<DockerEnvironment> {
        let Some(host) = &job.record.endpoint else {
            let id = job.id();
            let why = format!(
                "the docker daemon of job {id} cannot be reached yet: the job is {}",
                job.record.state
            );
            return Err(Failure::because(why).hint(format!(
                "wait for it with `pcocc docker shell -j {id}`, or try again"
            )));
        };
        Ok(DockerEnvironment {
            job: job.id().to_string(),
            host: host.clone(),
            cert_path: std::path::absolute(job.folder.client_certificates())?,
            docker_path: self.docker_path()?,
        })
    }

    /// Says whether the VM of a job is ready, in its present state.
    pub(super) fn lives(&self, job: &Job) -> Outcome<Lives> {
        let (jobs, id) = (self.jobs()?.clone(), job.id());
        Ok(Arc::new(move || {
            let job = jobs.get(id, &Squeue);
            job.is_ok_and(|job| job.record.state == State::Ready)
        }))
    }

    /// A client of a job's endpoint.
    pub(crate) fn endpoint_client(&self, job: &Job) -> Outcome<EndpointClient> {
        let docker = self.docker_environment(job)?;
        let read = |name: &str| {
            let path = docker.cert_path.join(name);
            named::read_text(&path, MAX_PEM).part(|| format!("read {}", path.display()))
        };
        let client = ClientIdentity {
            cert_pem: read("cert.pem")?,
            key_pem: read("key.pem")?,
        };
        let address = docker.host.trim_start_matches("tcp://");
        let address = address
            .to_socket_addrs()
            .part(|| format!("find {address}"))?
            .min_by_key(|address| matches!(address.ip(), IpAddr::V6(_)))
            .ok_or_else(|| Failure::because(format!("{address} has no address")))?;
        Ok(EndpointClient::new(address, &read("ca.pem")?, &client)?)
    }
}
