//! Opens what the environment and the configuration files name: repositories, the docker daemon,
//! registries.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use pcocc_core::containers::{self, Runtime};
use pcocc_core::repos::ReposConfig;
use pcocc_core::template::Variables;
use pcocc_image::repository::Repositories;
use pcocc_remote::docker::{Daemon, Endpoint};
use pcocc_remote::registry::Access;
use pcocc_vm::job::Job;

use crate::environment::Environment;
use crate::errors::{Failure, Outcome, While as _};
use crate::invocation::Invocation;
use crate::jobs;

/// The repositories that `repos.yaml` of the user and of the site define.
pub(crate) fn repositories(environment: &Environment) -> Outcome<Arc<Repositories>> {
    let config = ReposConfig::load(
        &environment.user_conf,
        &environment.system_conf,
        &path_variables(environment),
    )
    .when(|| "read the list of repositories")?;
    Ok(Arc::new(Repositories::new(&config, &environment.user)))
}

/// What the path templates of configuration files may use.
pub(crate) fn path_variables(environment: &Environment) -> Variables {
    Variables {
        homedir: environment.home.clone(),
        user: environment.user.clone(),
        env: Environment::variables(),
    }
}

/// The daemon that is meant; `action` is what needs it.
///
/// That is the one DOCKER_HOST and its companions name, as in a docker shell; without DOCKER_HOST that of the job we run in,
/// or of the only job there is; without any job docker's own default.
pub(crate) fn endpoint(environment: &Environment, action: &str) -> Outcome<Endpoint> {
    endpoint_of(environment, job(environment, action)?.as_ref(), action)
}

/// The same where the job is known already: what [`job`] gives.
pub(crate) fn endpoint_of(
    environment: &Environment,
    job: Option<&Job>,
    action: &str,
) -> Outcome<Endpoint> {
    let docker = &environment.docker;
    if docker.host.is_none()
        && let Some(job) = job
    {
        let found = jobs::docker_environment(environment, job, action)?;
        return Endpoint::parse(Some(&found.host), Some("1"), Some(&found.cert_path))
            .when(|| action);
    }
    Endpoint::parse(
        docker.host.as_deref(),
        docker.tls_verify.as_deref(),
        Some(&docker.cert_path),
    )
    .when(|| action)
}

/// The job whose daemon [`endpoint`] is, if it is a job's; `action` is what needs it.
pub(crate) fn job(environment: &Environment, action: &str) -> Outcome<Option<Job>> {
    let Some(host) = &environment.docker.host else {
        return jobs::only(environment, action);
    };
    Ok(jobs::enclosing(environment).filter(|job| job.record.endpoint.as_ref() == Some(host)))
}

/// Connects to the daemon; `action` is what needs it.
pub(crate) fn daemon(invocation: &Invocation, action: &str) -> Outcome<Daemon> {
    let endpoint = endpoint(&invocation.environment, action)?;
    let (sender, receiver) = mpsc::channel();
    // A daemon that does not answer is waited for, but not once the user has had enough: the thread
    // then ends with the process.
    std::thread::spawn(move || sender.send(Daemon::connect(endpoint)));
    loop {
        match receiver.recv_timeout(Duration::from_millis(50)) {
            Ok(result) => return result.when(|| action),
            Err(RecvTimeoutError::Timeout) if !invocation.cancel.is_cancelled() => {}
            Err(_) => return Err(Failure::new(action, pcocc_image::Error::Cancelled)),
        }
    }
}

/// The `runtime` section of `containers.yaml`, the site's with the user's over it.
pub(crate) fn runtime(environment: &Environment) -> Outcome<Runtime> {
    let file = |folder: &Path| folder.join(containers::FILE);
    Runtime::load(
        &file(&environment.system_conf),
        &file(&environment.user_conf),
    )
    .when(|| "read containers.yaml")
}

/// `ACTION: FILE:LINE:COLUMN`, of a key of that section whose value turned out to be wrong.
pub(crate) fn at_runtime(environment: &Environment, key: &str, action: &str) -> String {
    let file = |folder: &Path| folder.join(containers::FILE);
    let place = containers::runtime_place(
        &file(&environment.system_conf),
        &file(&environment.user_conf),
        key,
    );
    match place {
        Some(place) => format!("{action}: {place}"),
        None => format!("{action}: {key} of {}", containers::FILE),
    }
}

/// How registries are reached: `containers.yaml`, and docker's own credentials.
pub(crate) fn registries(environment: &Environment) -> Outcome<Access> {
    let runtime = runtime(environment)?;
    let path = environment.docker_config.join("config.json");
    let docker_config = match fs::read_to_string(&path) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => {
            let action = format!("read docker's credentials in {}", path.display());
            return Err(Failure::new(action, error));
        }
    };
    Ok(Access {
        default_registry: runtime.default_registry,
        insecure_registries: runtime.insecure_registries,
        certificate_folders: environment.certificate_folders(),
        docker_config,
    })
}
