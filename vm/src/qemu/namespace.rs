//! The network namespace of a machine: what the guest can reach, enforced on the node without root.
//!
//! QEMU runs in a user and network namespace of its own, so its user-mode network sees that namespace and
//! nothing else; [`super::uplink`] connects the namespace to the node. What the guest may not reach is an "unreachable" route
//! in the namespace, set before QEMU starts: as an ordinary user of the namespace QEMU has no rights over its routes.
//!
//! ```text
//! client → listen (slirp4netns, on the node) → tap0 of the namespace → QEMU's hostfwd → guest:2376
//! guest → QEMU's user-mode network → routes of the namespace → tap0 → slirp4netns → the node's sockets
//! ```
//!
//! Where user namespaces or slirp4netns are missing, QEMU is told to let nothing out (`restrict=on`).

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, recv, send, socket_with};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::process::Process;
use crate::machine::NetworkPolicy;

/// The namespace that a child enters between fork and exec, by system calls on bytes that were prepared before.
#[derive(Clone, Debug)]
pub(crate) struct Namespace {
    uid_map: Vec<u8>,
    gid_map: Vec<u8>,
    routes: Vec<[u8; 36]>,
}

impl Namespace {
    /// Prepares a namespace for `policy`, with the user's own ids and no others; `reachable` are exceptions to
    /// [`NetworkPolicy::Public`].
    pub(crate) fn new(policy: NetworkPolicy, reachable: &[Ipv4Addr]) -> Self {
        let uid = rustix::process::geteuid().as_raw();
        let gid = rustix::process::getegid().as_raw();
        let mut closed: Vec<(Ipv4Addr, u8)> = match policy {
            NetworkPolicy::Open => Vec::new(),
            NetworkPolicy::Public => PRIVATE.to_vec(),
            NetworkPolicy::Closed => EVERYTHING.to_vec(),
        };
        if policy == NetworkPolicy::Public {
            let table = fs::read_to_string("/proc/net/fib_trie").unwrap_or_default();
            // Programs that listen on all addresses of the node can be reached through any of them.
            closed.extend(
                own_addresses(&table)
                    .into_iter()
                    .map(|address| (address, 32)),
            );
            for hole in reachable {
                closed = closed
                    .into_iter()
                    .flat_map(|network| without(network, *hole))
                    .collect();
            }
        }
        Self {
            uid_map: format!("{uid} {uid} 1").into_bytes(),
            gid_map: format!("{gid} {gid} 1").into_bytes(),
            routes: closed
                .into_iter()
                .map(|(address, length)| unreachable(address, length))
                .collect(),
        }
    }

    /// Enters the namespace. Async-signal-safe.
    #[expect(unsafe_code, reason = "unshare")]
    pub(crate) fn enter(&self) -> io::Result<()> {
        // SAFETY: the file table stays shared; user and network namespaces touch no memory.
        unsafe { unshare_unsafe(UnshareFlags::NEWUSER | UnshareFlags::NEWNET)? };
        write_file(c"/proc/self/setgroups", b"deny")?;
        write_file(c"/proc/self/uid_map", &self.uid_map)?;
        write_file(c"/proc/self/gid_map", &self.gid_map)?;
        // Protocol 0 is NETLINK_ROUTE.
        let netlink = socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            rustix::net::SocketFlags::CLOEXEC,
            None,
        )?;
        for route in &self.routes {
            send(&netlink, route, SendFlags::empty())?;
            let mut answer = [0; 512];
            recv(&netlink, &mut answer, RecvFlags::empty())?;
            // An error message: header of 16 bytes, then 0 or a negative errno.
            let code = [answer[16], answer[17], answer[18], answer[19]];
            match i32::from_ne_bytes(code) {
                0 => {}
                code => return Err(io::Error::from_raw_os_error(-code)),
            }
        }
        Ok(())
    }

    /// Checks whether the user can have such a namespace on this node, and connect it.
    #[expect(unsafe_code, reason = "code between fork and exec")]
    pub(crate) fn is_possible(&self) -> Result<(), String> {
        fs::File::options()
            .read(true)
            .write(true)
            .open(TUN)
            .map_err(|error| format!("{TUN} cannot be opened: {error}"))?;
        let namespace = self.clone();
        let mut command = Command::new("true");
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        // SAFETY: `enter` is async-signal-safe.
        let mut process = unsafe { Process::start(command, move || namespace.enter()) }
            .map_err(|error| error.to_string())?;
        match process.wait(Duration::from_secs(10)) {
            Some("exited with status 0") => Ok(()),
            how => Err(how.unwrap_or("does not end").to_owned()),
        }
    }
}

/// The device that slirp4netns makes its end of the cable with; for everybody, where udev runs.
const TUN: &str = "/dev/net/tun";

/// Everything, as two routes that are more exact than the default one.
const EVERYTHING: [(Ipv4Addr, u8); 2] = [
    (Ipv4Addr::new(0, 0, 0, 0), 1),
    (Ipv4Addr::new(128, 0, 0, 0), 1),
];

/// Addresses that are not of the internet: RFC 1918, 6598, 3927, 1122, and multicast.
const PRIVATE: [(Ipv4Addr, u8); 8] = [
    (Ipv4Addr::new(0, 0, 0, 0), 8),
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(224, 0, 0, 0), 4),
    (Ipv4Addr::new(240, 0, 0, 0), 4),
];

/// Divides a network into networks with all of its addresses but `hole`.
fn without(network: (Ipv4Addr, u8), hole: Ipv4Addr) -> Vec<(Ipv4Addr, u8)> {
    let (mut address, mut length) = (u32::from(network.0), network.1);
    let hole = u32::from(hole);
    // The bits by which two addresses of the network may differ.
    let within = |length: u8| u32::MAX.checked_shr(length.into()).unwrap_or(0);
    if (address ^ hole) & !within(length) != 0 {
        return vec![network];
    }
    let mut rest = Vec::new();
    while length < 32 {
        length += 1;
        let half = 1 << (32 - length);
        let (with, other) = match hole & half {
            0 => (address, address | half),
            _ => (address | half, address),
        };
        rest.push((Ipv4Addr::from(other), length));
        address = with;
    }
    rest
}

/// Builds the netlink message (rtnetlink(7), RTM_NEWROUTE) that makes a network unreachable.
fn unreachable(address: Ipv4Addr, length: u8) -> [u8; 36] {
    const RTM_NEWROUTE: u16 = 24;
    const REQUEST_ACK_CREATE_REPLACE: u16 = 0x1 | 0x4 | 0x400 | 0x100;
    const AF_INET: u8 = 2;
    const RT_TABLE_MAIN: u8 = 254;
    const RTPROT_STATIC: u8 = 4;
    const RTN_UNREACHABLE: u8 = 7;
    let mut message = [0; 36];
    message[0..4].copy_from_slice(&36_u32.to_ne_bytes());
    message[4..6].copy_from_slice(&RTM_NEWROUTE.to_ne_bytes());
    message[6..8].copy_from_slice(&REQUEST_ACK_CREATE_REPLACE.to_ne_bytes());
    message[8..12].copy_from_slice(&1_u32.to_ne_bytes());
    message[16] = AF_INET;
    message[17] = length;
    message[20] = RT_TABLE_MAIN;
    message[21] = RTPROT_STATIC;
    message[23] = RTN_UNREACHABLE;
    // One attribute: RTA_DST (1), 8 bytes long.
    message[28..30].copy_from_slice(&8_u16.to_ne_bytes());
    message[30..32].copy_from_slice(&1_u16.to_ne_bytes());
    message[32..36].copy_from_slice(&address.octets());
    message
}

/// Reads the node's own addresses out of `/proc/net/fib_trie`, without its loopback.
fn own_addresses(table: &str) -> Vec<Ipv4Addr> {
    let mut found = Vec::new();
    let mut last = None;
    for line in table.lines() {
        if let Some((_, address)) = line.split_once("|-- ") {
            last = address.trim().parse::<Ipv4Addr>().ok();
        } else if line.contains("/32 host LOCAL")
            && let Some(address) = last.filter(|address| !address.is_loopback())
        {
            found.push(address);
        }
    }
    found.sort_unstable();
    found.dedup();
    found
}

fn write_file(path: &std::ffi::CStr, bytes: &[u8]) -> io::Result<()> {
    use rustix::fs::{Mode, OFlags, open};
    let file = open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(&file, bytes)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_addresses_are_read() {
        let table = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\nLocal:\n\
                     \x20    |-- 127.0.0.1\n        /32 host LOCAL\n     |-- 192.0.2.7\n        /32 host LOCAL\n\
                     \x20    |-- 192.0.2.255\n        /32 link BROADCAST\n";
        assert_eq!(own_addresses(table), [Ipv4Addr::new(192, 0, 2, 7)]);
    }

    #[test]
    fn a_hole_is_all_that_is_missing() {
        let network = |text: &str, length| (text.parse::<Ipv4Addr>().unwrap(), length);
        let hole = "10.0.0.2".parse().unwrap();
        let rest = without(network("10.0.0.0", 29), hole);
        let expected = [
            network("10.0.0.4", 30),
            network("10.0.0.0", 31),
            network("10.0.0.3", 32),
        ];
        assert_eq!(rest, expected);
        assert!(without((hole, 32), hole).is_empty());
        let whole = without(network("0.0.0.0", 0), hole);
        let addresses: u64 = whole.iter().map(|(_, length)| 1_u64 << (32 - length)).sum();
        assert_eq!(addresses, (1 << 32) - 1);
        let elsewhere = network("172.16.0.0", 12);
        assert_eq!(without(elsewhere, hole), [elsewhere]);
    }

    #[test]
    fn routes_are_taken_by_the_kernel() {
        for policy in [
            NetworkPolicy::Public,
            NetworkPolicy::Closed,
            NetworkPolicy::Open,
        ] {
            let holes = [Ipv4Addr::new(10, 1, 2, 3), Ipv4Addr::new(10, 1, 2, 4)];
            Namespace::new(policy, &holes).is_possible().unwrap();
        }
    }
}
