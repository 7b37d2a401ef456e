//! Services: docker, Slurm, and whether a proxy or a home folder is in the way.

use std::path::Path;
use std::time::Duration;

use pcocc_remote::docker::Daemon;

use super::probe;
use super::{Answer, failed, warning};
use crate::environment::Environment;
use crate::host::Host;

const SOON: Duration = Duration::from_secs(5);

/// The docker daemon that DOCKER_HOST names.
pub(super) fn daemon(host: &Host) -> Answer {
    let fix = "start one in a VM (pcocc docker alloc), or set DOCKER_HOST to one";
    let address = host
        .environment()
        .docker
        .host
        .clone()
        .unwrap_or_else(|| "unix:///var/run/docker.sock".to_owned());
    let endpoint = host.endpoint();
    let endpoint = endpoint.map_err(|failure| failed(failure.why(), fix))?;
    match Daemon::connect(endpoint.clone()) {
        Ok(_) => Ok(format!("answers at {address}")),
        Err(error) => Err(failed(error.to_string(), fix)),
    }
}

/// The docker command.
pub(super) fn docker_command(_: &Host) -> Answer {
    let fix = "install the package docker-cli, or set docker_path in containers.yaml";
    match probe("docker", &["--version"], SOON) {
        Ok(output) if output.succeeded() => Ok(output.words().to_owned()),
        Ok(output) => Err(warning(output.words(), fix)),
        Err(error) => Err(warning(format!("docker: {error}"), fix)),
    }
}

/// Slurm, where it is installed.
pub(super) fn slurm(_: &Host) -> Answer {
    match probe("sinfo", &["--noheader", "--format=%P"], SOON) {
        Ok(output) if output.succeeded() => {
            let partitions: Vec<&str> = output.out.split_whitespace().collect();
            Ok(format!("answers, partitions: {}", partitions.join(" ")))
        }
        Ok(output) => Err(warning(
            format!("sinfo: {}", output.words()),
            "ask an administrator whether slurmctld runs; `type: local` in batch.yaml does without Slurm",
        )),
        Err(_) => Ok("not installed: docker VMs run on this machine".to_owned()),
    }
}

/// Whether nodes see the home folder, which must not be on a file system of this machine alone.
pub(super) fn home(host: &Host, on_node: bool) -> Answer {
    let environment = host.environment();
    if probe("sinfo", &["--version"], SOON).is_err() {
        return Ok("no Slurm: this machine is the node".to_owned());
    }
    let home = &environment.home;
    let fix = "put PCOCC_USER_CONF_DIR on a file system that nodes share";
    if on_node {
        let path = environment.user_conf.to_string_lossy();
        let path = if environment.user_conf.exists() {
            path
        } else {
            home.to_string_lossy()
        };
        let job = [
            "--immediate=10",
            "--ntasks=1",
            "--time=1",
            "test",
            "-w",
            &path,
        ];
        return match probe("srun", &job, Duration::from_secs(12)) {
            Ok(output) if output.succeeded() => Ok(format!("{path} can be written on a node")),
            Ok(output) => Err(warning(
                format!("{path} on a node: {}", output.words()),
                fix,
            )),
            Err(error) => Err(warning(
                format!("srun: {error}"),
                "install Slurm's commands",
            )),
        };
    }
    match file_system(home) {
        Some(kind) if LOCAL.contains(&kind.as_str()) => Err(warning(
            format!(
                "{} is on {kind}, which other machines may not see",
                home.display()
            ),
            format!("try with `pcocc doctor --on-node`; {fix}"),
        )),
        Some(kind) => Ok(format!("{} is on {kind}", home.display())),
        None => Err(warning(
            format!("cannot tell what {} is on", home.display()),
            "try with `pcocc doctor --on-node`",
        )),
    }
}

/// File systems that belong to one machine.
const LOCAL: [&str; 8] = [
    "ext2", "ext3", "ext4", "xfs", "btrfs", "tmpfs", "overlay", "zfs",
];

/// Type of the file system a folder is on.
fn file_system(folder: &Path) -> Option<String> {
    let folder = folder.canonicalize().ok()?;
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    mounts
        .lines()
        .filter_map(|line| {
            let (front, back) = line.split_once(" - ")?;
            let point = front.split(' ').nth(4)?;
            folder.starts_with(point).then(|| {
                (
                    point.len(),
                    back.split(' ').next().unwrap_or_default().to_owned(),
                )
            })
        })
        // The last mount on a path covers the others.
        .max_by_key(|(length, _)| *length)
        .map(|(_, kind)| kind)
}

/// Proxies that would catch the requests of docker's command to the VM.
pub(super) fn proxy(host: &Host) -> Answer {
    let variables = Environment::variables();
    let get = |name: &str| {
        variables
            .get(&name.to_lowercase())
            .or(variables.get(name))
            .filter(|value| !value.is_empty())
    };
    let Some(proxy) = get("HTTPS_PROXY").or(get("HTTP_PROXY")) else {
        return Ok("none".to_owned());
    };
    let docker = host.environment().docker.host.as_deref();
    let Some(address) = docker.and_then(|docker| docker.strip_prefix("tcp://")) else {
        return Ok(format!(
            "{}; not used for docker here",
            without_password(proxy)
        ));
    };
    let name = address.rsplit_once(':').map_or(address, |(name, _)| name);
    let spared = get("NO_PROXY").is_some_and(|list| {
        list.split(',').map(str::trim).any(|entry| {
            entry == "*"
                || entry == name
                || name.ends_with(&format!(".{}", entry.trim_start_matches('.')))
        })
    });
    match spared {
        true => Ok(format!("{}; {name} is spared", without_password(proxy))),
        false => Err(warning(
            format!(
                "{} would catch what docker sends to {name}",
                without_password(proxy)
            ),
            format!("export no_proxy=\"$no_proxy,{name}\""),
        )),
    }
}

/// Proxies are often written with a password.
fn without_password(proxy: &str) -> String {
    match proxy.rsplit_once('@') {
        Some((front, host)) => match front.split_once("://") {
            Some((scheme, _)) => format!("{scheme}://{host}"),
            None => host.to_owned(),
        },
        None => proxy.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_not_shown() {
        assert_eq!(without_password("http://u:p@proxy:1"), "http://proxy:1");
        assert_eq!(without_password("u:p@proxy:1"), "proxy:1");
        assert_eq!(without_password("http://proxy:1"), "http://proxy:1");
    }

    #[test]
    fn the_root_is_on_some_file_system() {
        assert!(file_system(Path::new("/")).is_some());
        assert_eq!(
            file_system(Path::new("/proc/self")).as_deref(),
            Some("proc")
        );
    }
}
