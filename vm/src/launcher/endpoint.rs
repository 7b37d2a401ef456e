//! Where the docker endpoint of a VM is.

use std::net::{IpAddr, SocketAddr, TcpListener};

use pcocc_core::batch::Ports;

use super::LaunchError;
use crate::machine::MachineError;

/// Where a docker endpoint is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSpec {
    /// Name of the node.
    pub node: String,
    /// The address to listen at.
    pub address: IpAddr,
    /// The name clients shall use instead of the address.
    pub name: Option<String>,
    /// The ports to choose from; any when missing.
    pub ports: Option<Ports>,
}

impl EndpointSpec {
    /// A port that is free now.
    pub(super) fn free_port(&self) -> Result<SocketAddr, LaunchError> {
        let bound = |port: u16| {
            let listener = TcpListener::bind((self.address, port))?;
            listener.local_addr()
        };
        let Some(Ports { first, last }) = self.ports else {
            let failed = MachineError::io("listen at", self.address.to_string());
            return bound(0).map_err(|error| failed(error).into());
        };
        // Launchers of one node start at different ports.
        let count = u32::from(last - first) + 1;
        let start = std::process::id() % count;
        for step in 0..count {
            let port = first + u16::try_from((start + step) % count).unwrap_or(0);
            if let Ok(found) = bound(port) {
                return Ok(found);
            }
        }
        Err(LaunchError::NoPort {
            address: self.address,
            first,
            last,
        })
    }

    /// The endpoint's URL for clients.
    pub(super) fn url(&self, found: SocketAddr) -> String {
        match &self.name {
            Some(name) => format!("tcp://{name}:{}", found.port()),
            None => format!("tcp://{found}"),
        }
    }
}
