//! The guest's own network: fixed addresses, no DHCP.

use std::fs;
use std::process::{Command, Stdio};

use pcocc_guest::protocol::Network;

use crate::Failure;
use crate::reaper::Reaper;

/// The only network card.
const CARD: &str = "eth0";

/// Sets addresses, route and name server.
pub(crate) async fn set_up(network: &Network, reaper: &Reaper) -> Result<(), Failure> {
    let script = format!(
        "ip link set lo up && ip address add {} dev {CARD} && ip link set {CARD} up && \
         ip route add default via {}",
        network.address, network.gateway
    );
    reaper
        .run(Command::new("/usr/bin/busybox").args(["sh", "-c", &script]))
        .await?;
    fs::write(
        "/etc/resolv.conf",
        format!("nameserver {}\n", network.nameserver),
    )
    .map_err(Failure::of("write /etc/resolv.conf"))
}

/// Forgets the neighbours of before a resume.
pub(crate) async fn forget_neighbours(reaper: &Reaper) -> Result<(), Failure> {
    reaper
        .run(
            Command::new("/usr/bin/busybox")
                .args(["ip", "neigh", "flush", "dev", CARD])
                // Without neighbours it prints that there is nothing to flush.
                .stdout(Stdio::null())
                .stderr(Stdio::null()),
        )
        .await
}
