//! The node: its name, its address for docker's clients, its scratch disk.

use std::net::{IpAddr, ToSocketAddrs as _};
use std::path::PathBuf;

use pcocc_core::batch::BatchConfig;
use pcocc_vm::job::{Backend, Here};
use pcocc_vm::launcher::EndpointSpec;

use crate::errors::{Failure, Outcome};
use crate::invocation::Invocation;

/// The node, with the site's settings.
#[derive(Clone, Debug)]
pub(super) struct Node {
    /// The node's name.
    pub(super) name: String,
    /// Folder on a disk of the node.
    pub(super) scratch: PathBuf,
    /// The user's runtime folder, if there is one.
    pub(super) runtime: Option<PathBuf>,
    /// The site's configuration.
    pub(super) batch: BatchConfig,
}

impl Node {
    /// Describes the node this process runs on.
    pub(super) fn describe(invocation: &Invocation) -> Outcome<Self> {
        let environment = &invocation.environment;
        let batch = invocation.host.batch()?.clone();
        let scratch = match &batch.docker_scratch {
            Some(scratch) => scratch.path(&environment.path_variables())?,
            None => environment.temporary.clone(),
        };
        Ok(Self {
            name: Here::read()?.host,
            scratch,
            runtime: environment.runtime.clone(),
            batch,
        })
    }

    /// The address of the docker endpoint of a job of `backend`.
    pub(super) fn endpoint(
        &self,
        invocation: &Invocation,
        backend: Backend,
    ) -> Outcome<EndpointSpec> {
        let mut endpoint = EndpointSpec {
            node: self.name.clone(),
            address: IpAddr::from([127, 0, 0, 1]),
            name: None,
            ports: self.batch.docker_ports,
        };
        if backend == Backend::Local {
            return Ok(endpoint);
        }
        let variables = invocation.environment.path_variables();
        let address = self.batch.docker_address.as_ref();
        let named = address
            .map(|address| address.text(&variables))
            .transpose()?;
        let name = named.as_deref().unwrap_or(&self.name);
        endpoint.address = resolve(name, named.is_some()).map_err(|why| {
            let failure = match address {
                Some(address) => Failure::from(address.error(why)),
                None => Failure::because(why),
            };
            failure.hint("set docker_address in batch.yaml to a name that the login node can reach")
        })?;
        if !self.batch.docker_resolve_address {
            endpoint.name = Some(name.to_owned());
        }
        Ok(endpoint)
    }
}

/// The address of `name`; loopback addresses only if the site gave the name.
fn resolve(name: &str, given: bool) -> Result<IpAddr, String> {
    let found = (name, 0)
        .to_socket_addrs()
        .map_err(|error| format!("the node's name {name:?} has no address: {error}"))?;
    let mut addresses: Vec<IpAddr> = found.map(|address| address.ip()).collect();
    if !given {
        addresses.retain(|address| !address.is_loopback());
    }
    // IPv4 first: the guest's network is tested mostly with IPv4.
    addresses.sort_by_key(IpAddr::is_ipv6);
    addresses
        .first()
        .copied()
        .ok_or_else(|| format!("the node's name {name:?} only has addresses of its own loopback"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loopback_address_is_used_only_when_it_is_asked_for() {
        assert_eq!(resolve("127.0.0.1", true).unwrap().to_string(), "127.0.0.1");
        let why = resolve("localhost", false).unwrap_err();
        assert!(why.contains("loopback"), "{why}");
        assert!(resolve("no such name", true).is_err());
    }
}
