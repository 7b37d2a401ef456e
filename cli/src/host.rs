//! What a run finds around it: configuration, repositories, jobs, and the docker daemon that is meant.
//!
//! The one floor between the verbs and the libraries. Each fact is found out when a verb first asks for it and kept for the
//! rest of the run: a configuration file is read once, and Slurm is asked once which job is meant. A failure is not kept.
//!
//! Data path of the daemon: DOCKER_HOST, else docker's context, else the [`Host::job`] of this shell or the only one →
//! [`Host::endpoint`] → [`Host::daemon`]; that of a job hands out layers as [`layers`] says. [`jobs`] has what verbs ask of other jobs.

pub(crate) mod jobs;
mod layers;

use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use pcocc_core::batch::{BatchConfig, BatchType};
use pcocc_core::containers::{self, Runtime};
use pcocc_core::named;
use pcocc_core::repos::ReposConfig;
use pcocc_core::template;
use pcocc_image::reference::ImageUri;
use pcocc_image::repository::{Kind, Repositories};
use pcocc_image::transfer::Context;
use pcocc_remote::docker::{Daemon, Endpoint, contexts};
use pcocc_remote::registry::{Access, CredentialFile, RulesFile};
use pcocc_vm::guest_image::GuestDisk;
use pcocc_vm::job::{Job, Jobs};

use crate::environment::Environment;
use crate::errors::{Failure, Outcome, While as _};

/// Most bytes of a `registries.conf`.
const MAX_RULES: u64 = 1 << 20;

/// Most bytes of a file with credentials.
const MAX_CREDENTIALS: u64 = 4 << 20;

/// A daemon that took longer to answer is busy.
const BUSY: Duration = Duration::from_secs(2);

/// The surroundings of a run.
#[derive(Debug)]
pub(crate) struct Host {
    environment: Arc<Environment>,
    repositories: OnceLock<Arc<Repositories>>,
    runtime: OnceLock<Runtime>,
    batch: OnceLock<BatchConfig>,
    jobs: OnceLock<Jobs>,
    job: OnceLock<Option<Job>>,
    endpoint: OnceLock<Endpoint>,
}

/// The value of `cell`, which `find` finds when it is first asked for.
fn once<T>(cell: &OnceLock<T>, find: impl FnOnce() -> Outcome<T>) -> Outcome<&T> {
    match cell.get() {
        Some(value) => Ok(value),
        None => find().map(|value| cell.get_or_init(|| value)),
    }
}

impl Host {
    /// The surroundings that `environment` names; nothing is read yet.
    pub(crate) fn new(environment: Arc<Environment>) -> Self {
        Self {
            environment,
            repositories: OnceLock::new(),
            runtime: OnceLock::new(),
            batch: OnceLock::new(),
            jobs: OnceLock::new(),
            job: OnceLock::new(),
            endpoint: OnceLock::new(),
        }
    }

    /// The environment.
    pub(crate) fn environment(&self) -> &Environment {
        &self.environment
    }

    /// The repositories that `repos.yaml` of the user and of the site define.
    pub(crate) fn repositories(&self) -> Outcome<&Arc<Repositories>> {
        once(&self.repositories, || {
            let environment = self.environment();
            let config = ReposConfig::load(
                &environment.user_conf,
                &environment.system_conf,
                &environment.path_variables(),
            )
            .when(|| "read the list of repositories")?;
            let repositories = Repositories::new(&config, &environment.user);
            Ok(Arc::new(
                repositories.with_temporary(&environment.temporary),
            ))
        })
    }

    /// The guest image `name` of the repositories: its disk, and what identifies its content.
    pub(crate) fn guest_image(&self, name: &str) -> Outcome<(GuestDisk, String)> {
        const HINT: &str = "make it with `pcocc docker guest build`";
        let uri: ImageUri = name.parse()?;
        let (repository, meta) = self
            .repositories()?
            .find(&uri)
            .map_err(|error| Failure::from(error).hint(HINT))?;
        let blob = meta.data_blobs().last().copied();
        let (Kind::VirtualMachine, Some(blob)) = (meta.kind(), blob) else {
            let why = format!("image {name} is no image of a virtual machine");
            return Err(Failure::because(why).hint(HINT));
        };
        let shown = format!("image {}:{}", repository.name(), meta.name());
        let (repository, meta) = (Arc::clone(repository), meta.clone());
        let temporary = self.environment.temporary.clone();
        let disk = GuestDisk::new(shown, move || {
            let disk = repository.disk(&meta, &temporary, &Context::silent())?;
            Ok(disk.into_files())
        });
        Ok((disk, blob.hex()))
    }

    /// The `containers.yaml` of the site and of the user.
    pub(crate) fn containers_files(&self) -> [PathBuf; 2] {
        let environment = self.environment();
        [&environment.system_conf, &environment.user_conf]
            .map(|folder| folder.join(containers::FILE))
    }

    /// The `runtime` section of `containers.yaml`, the site's with the user's over it.
    pub(crate) fn runtime(&self) -> Outcome<&Runtime> {
        once(&self.runtime, || {
            let [system, user] = self.containers_files();
            Runtime::load(&system, &user).when(|| "read containers.yaml")
        })
    }

    /// `FILE:LINE:COLUMN` of a key of that section whose value turned out to be wrong.
    pub(crate) fn runtime_place(&self, key: &str) -> String {
        let [system, user] = self.containers_files();
        containers::runtime_place(&system, &user, key)
            .unwrap_or_else(|| format!("{key} of {}", containers::FILE))
    }

    /// The folder of the docker command, if `containers.yaml` names one.
    pub(crate) fn docker_path(&self) -> Outcome<Option<PathBuf>> {
        let path = self.runtime()?.docker_path.as_deref();
        path.map(|path| {
            template::expand(path, &self.environment.path_variables())
                .part(|| self.runtime_place("docker_path"))
        })
        .transpose()
    }

    /// How registries are reached: `containers.yaml`, and the credentials of docker and podman.
    pub(crate) fn registries(&self) -> Outcome<Access> {
        let runtime = self.runtime()?.clone();
        let mut credentials = Vec::new();
        for path in self.environment.credential_files() {
            match named::read_text(&path, MAX_CREDENTIALS) {
                Ok(text) => credentials.push(CredentialFile { path, text }),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    let action = format!("read the credentials in {}", path.display());
                    return Err(Failure::new(action, error));
                }
            }
        }
        let mut rules = Vec::new();
        for path in self.environment.registries_conf() {
            match named::read_text(&path, MAX_RULES) {
                Ok(text) => rules.push(RulesFile { path, text }),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    let action = format!("read the rules for registries in {}", path.display());
                    return Err(Failure::new(action, error));
                }
            }
        }
        Ok(Access {
            rules,
            default_registry: runtime.default_registry,
            insecure_registries: runtime.insecure_registries,
            certificate_folders: self.environment.certificate_folders(),
            credentials,
        })
    }

    /// `batch.yaml`, the site's with the user's over it.
    pub(crate) fn batch(&self) -> Outcome<&BatchConfig> {
        once(&self.batch, || {
            let environment = self.environment();
            Ok(BatchConfig::load(
                &environment.user_conf,
                &environment.system_conf,
                &environment.path_variables(),
            )?)
        })
    }

    /// What allocates VMs here: what `batch.yaml` says, else Slurm where its commands are.
    pub(crate) fn backend(&self) -> Outcome<BatchType> {
        let found = || match self.environment.has_program("salloc") {
            true => BatchType::Slurm,
            false => BatchType::Local,
        };
        Ok(self.batch()?.kind.unwrap_or_else(found))
    }

    /// The user's jobs.
    pub(crate) fn jobs(&self) -> Outcome<&Jobs> {
        once(&self.jobs, || Ok(Jobs::open(&self.environment.user_conf)?))
    }

    /// The daemon that the user has chosen in docker's own ways: DOCKER_HOST, DOCKER_CONTEXT, or the current context.
    fn chosen(&self) -> Outcome<Option<Endpoint>> {
        let environment = &self.environment;
        let docker = &environment.docker;
        if let Some(host) = docker.host.as_deref() {
            let verify = docker.tls_verify.as_deref();
            return Ok(Some(Endpoint::parse(
                Some(host),
                verify,
                Some(&docker.cert_path),
            )?));
        }
        let name = match &docker.context {
            Some(name) if name == contexts::DEFAULT => return Ok(Some(self.default_endpoint())),
            Some(name) => Some(name.clone()),
            None => {
                let path = environment.docker_config.join("config.json");
                match named::read_text(&path, MAX_CREDENTIALS) {
                    Ok(text) => contexts::current(&path, &text)?,
                    // Docker's command says so, too; here nothing else may depend on it.
                    Err(_) => None,
                }
            }
        };
        name.map(|name| Ok(contexts::endpoint(&environment.docker_config, &name)?))
            .transpose()
    }

    /// Docker's own default; where only a rootless docker runs, its socket.
    fn default_endpoint(&self) -> Endpoint {
        let default = Endpoint::default();
        let rootless = self.environment.runtime.as_ref();
        let rootless = rootless.map(|folder| folder.join("docker.sock"));
        match (&default, rootless) {
            (Endpoint::Unix(socket), Some(rootless)) if !socket.exists() && rootless.exists() => {
                Endpoint::Unix(rootless)
            }
            _ => default,
        }
    }

    /// The job whose daemon [`Host::endpoint`] is, if it is a job's.
    pub(crate) fn job(&self) -> Outcome<Option<&Job>> {
        let job = once(&self.job, || match self.chosen()? {
            None => self.only_job(),
            Some(endpoint) => {
                let own = Some(endpoint.to_string());
                Ok(self
                    .enclosing_job()
                    .filter(|job| job.record.endpoint == own))
            }
        });
        Ok(job?.as_ref())
    }

    /// The endpoint of the daemon that is meant.
    ///
    /// That is the one that docker's own command would use in a docker shell: by DOCKER_HOST and its companions, by
    /// DOCKER_CONTEXT, by the current context. Without any of them that of the job we run in, or of the only job there is;
    /// without any job docker's own default.
    pub(crate) fn endpoint(&self) -> Outcome<&Endpoint> {
        once(&self.endpoint, || {
            if let Some(endpoint) = self.chosen()? {
                return Ok(endpoint);
            }
            match self.job()? {
                Some(job) => {
                    let found = self.docker_environment(job)?;
                    let (host, folder) = (Some(&*found.host), Some(&*found.cert_path));
                    Ok(Endpoint::parse(host, Some("1"), folder)?)
                }
                None => Ok(self.default_endpoint()),
            }
        })
    }

    /// Connects to the daemon that is meant; says so if it is slow to answer.
    pub(crate) fn daemon(&self, context: &Context) -> Outcome<Daemon> {
        let daemon = self.open_daemon()?;
        let (sender, receiver) = mpsc::channel();
        // A daemon that does not answer is waited for, but not once the user has had enough: the thread
        // then ends with the process.
        let pinged = daemon.clone();
        std::thread::spawn(move || sender.send(pinged.ping()));
        let begun = Instant::now();
        let mut said = false;
        loop {
            match receiver.recv_timeout(Duration::from_millis(50)) {
                Ok(answer) => return Ok(answer.map(|()| daemon)?),
                Err(RecvTimeoutError::Timeout) if !context.cancel.is_cancelled() => {}
                Err(_) => return Err(pcocc_image::Error::Cancelled.into()),
            }
            if !said && begun.elapsed() > BUSY {
                said = true;
                let endpoint = daemon.endpoint();
                context
                    .progress
                    .stage(format!("Waiting for the docker daemon at {endpoint}"));
            }
        }
    }

    /// The daemon that is meant, which need not be up. That of a job hands out layers, and is waited for as long as its VM
    /// lives.
    pub(crate) fn open_daemon(&self) -> Outcome<Daemon> {
        let endpoint = self.endpoint()?.clone();
        let Some(job) = self.job()? else {
            return Ok(Daemon::open(endpoint)?);
        };
        let daemon = Daemon::open_while(endpoint, Some(self.lives(job)?))?;
        Ok(self.with_layers(daemon, job))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_configuration_file_is_read_once_and_a_mistake_is_not_kept() {
        let home = tempfile::tempdir().unwrap();
        let mut environment = Environment::read().unwrap();
        environment.system_conf = home.path().join("etc");
        environment.user_conf = home.path().to_owned();
        let host = Host::new(Arc::new(environment));
        let file = home.path().join(containers::FILE);
        fs::write(&file, "runtime: 7\n").unwrap();
        assert!(host.runtime().is_err());
        fs::write(&file, "runtime: {docker_path: /opt/docker}\n").unwrap();
        for _ in 0..2 {
            let path = host.docker_path().unwrap();
            assert_eq!(path.unwrap().to_str(), Some("/opt/docker"));
            fs::remove_file(&file).ok();
        }
    }
}
