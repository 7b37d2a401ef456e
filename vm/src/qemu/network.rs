//! The machine's network: what the guest can reach, enforced on the node without root.
//!
//! QEMU runs in a user and network namespace of its own, so its user-mode network sees that namespace and
//! nothing else; slirp4netns connects the namespace to the node, without the node's loopback. What the guest may not
//! reach is an "unreachable" route in the namespace, set before QEMU starts and out of its reach afterwards: as
//! an ordinary user of the namespace it has no rights over it.
//!
//! ```text
//! client → listen (slirp4netns, on the node) → tap0 of the namespace → QEMU's hostfwd → guest:2376
//! guest → QEMU's user-mode network → routes of the namespace → tap0 → slirp4netns → the node's sockets
//! ```
//!
//! Where user namespaces or slirp4netns are missing, QEMU is told to let nothing out (`restrict=on`).

use std::fs;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use pcocc_core::cancel::Cancel;
use pcocc_guest::protocol::ENDPOINT_PORT;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, recv, send, socket_with};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::process::Process;
use crate::machine::{MachineError, NetworkPolicy};

/// Network of the namespace's side of slirp4netns.
const OUTER_NET: &str = "198.18.1.0/24";
/// slirp4netns's name server in it.
pub(crate) const NAMESERVER: &str = "198.18.1.3";
/// How long slirp4netns may take to be ready.
const PATIENCE: Duration = Duration::from_secs(20);

/// How the docker endpoint is reached from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Forward {
    /// Through the namespace.
    Namespace,
    /// QEMU itself listens on the node, and lets nothing out.
    Direct(SocketAddr),
}

/// What the child does between fork and exec to be in a namespace of its own: only system calls on bytes that
/// were made before.
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
            // What listens on all addresses of the node is reached through any of them.
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

    /// Finds out whether this node lets the user have such namespaces, and connect them.
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

/// Divides a network into those that have all its addresses but `hole`; leaves it as it is when `hole` is not in it.
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

/// Fails with [`MachineError::PortTaken`] when somebody listens at `listen` already.
pub(crate) fn check_free(listen: SocketAddr) -> Result<(), MachineError> {
    match TcpListener::bind(listen) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            Err(MachineError::PortTaken(listen))
        }
        Err(error) => Err(MachineError::io("listen at", listen.to_string())(error)),
    }
}

/// The connection between a namespace and the node; ends when dropped.
#[derive(Debug)]
pub(crate) struct Uplink {
    process: Process,
    /// slirp4netns ends when this does, should its parent-death signal have been lost.
    _alive: OwnedFd,
}

impl Uplink {
    /// Connects the namespace of process `pid` and forwards `listen` into it.
    #[expect(unsafe_code, reason = "code between fork and exec")]
    pub(crate) fn open(
        pid: u32,
        listen: SocketAddr,
        policy: NetworkPolicy,
        sockets: &Path,
        cancel: &Cancel,
    ) -> Result<Self, MachineError> {
        let IpAddr::V4(address) = listen.ip() else {
            return Err(MachineError::Spec(format!(
                "the docker endpoint {listen} must have an IPv4 address"
            )));
        };
        let pipes = || pipe_with(PipeFlags::CLOEXEC).map_err(io::Error::from);
        let failed = MachineError::io("make a pipe for", "slirp4netns");
        let ((ready, ready_end), (exit_end, alive)) = match (pipes(), pipes()) {
            (Ok(ready), Ok(exit)) => (ready, exit),
            (Err(error), _) | (_, Err(error)) => return Err(failed(error)),
        };
        let api = sockets.join("uplink");
        let words = sockets.join("uplink.log");
        let log = fs::File::create(&words).map_err(MachineError::io("make", &words))?;
        let mut command = Command::new("slirp4netns");
        command.args(["--configure", "--mtu=65520", "--disable-host-loopback"]);
        command.arg(format!("--cidr={OUTER_NET}"));
        command.arg(format!("--ready-fd={}", ready_end.as_raw_fd()));
        command.arg(format!("--exit-fd={}", exit_end.as_raw_fd()));
        command.arg("--api-socket").arg(&api);
        if policy == NetworkPolicy::Closed {
            command.arg("--disable-dns");
        }
        command.args([&pid.to_string(), "tap0"]);
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(MachineError::io("share", &words))?)
            .stderr(log);
        let inherit = move || {
            fcntl_setfd(&ready_end, FdFlags::empty())?;
            fcntl_setfd(&exit_end, FdFlags::empty())?;
            Ok(())
        };
        // SAFETY: two system calls.
        let started = unsafe { Process::start(command, inherit) };
        let process = started.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => MachineError::ProgramMissing {
                program: "slirp4netns".into(),
                package: "slirp4netns",
            },
            _ => MachineError::io("start", "slirp4netns")(error),
        })?;
        let mut uplink = Self {
            process,
            _alive: alive,
        };
        uplink.wait_ready(&ready, &words, cancel)?;
        forward(&api, address, listen)?;
        Ok(uplink)
    }

    fn wait_ready(
        &mut self,
        ready: &OwnedFd,
        words: &Path,
        cancel: &Cancel,
    ) -> Result<(), MachineError> {
        let begun = Instant::now();
        let slice = Timespec {
            tv_sec: 0,
            tv_nsec: 20_000_000,
        };
        loop {
            let mut fds = [PollFd::new(ready, PollFlags::IN)];
            // Interrupted by a signal: looked at again below.
            let _ = poll(&mut fds, Some(&slice));
            let mut byte = [0];
            let is_ready = fds[0].revents().contains(PollFlags::IN)
                && rustix::io::read(ready, &mut byte).unwrap_or(0) == 1;
            if is_ready {
                return Ok(());
            }
            if cancel.is_cancelled() {
                return Err(MachineError::Cancelled);
            }
            let how = self.process.wait(Duration::ZERO).map(str::to_owned);
            if how.is_some() || begun.elapsed() > PATIENCE {
                let text = fs::read_to_string(words).unwrap_or_default();
                return Err(MachineError::Hypervisor {
                    program: "slirp4netns".into(),
                    why: format!(
                        "{}: {}",
                        how.as_deref().unwrap_or("does not get ready"),
                        match text.trim() {
                            "" => "it said nothing".to_owned(),
                            words => words.replace('\n', "; "),
                        }
                    ),
                });
            }
        }
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }
}

/// Asks slirp4netns to forward `listen` to the endpoint in the namespace.
fn forward(api: &Path, address: Ipv4Addr, listen: SocketAddr) -> Result<(), MachineError> {
    let question = serde_json::json!({"execute": "add_hostfwd", "arguments": {
        "proto": "tcp", "host_addr": address.to_string(), "host_port": listen.port(),
        "guest_port": ENDPOINT_PORT,
    }});
    let ask = || -> io::Result<String> {
        let mut socket = UnixStream::connect(api)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.write_all(question.to_string().as_bytes())?;
        socket.shutdown(std::net::Shutdown::Write)?;
        let mut answer = String::new();
        socket.take(1 << 16).read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = ask().map_err(MachineError::io("ask slirp4netns at", api))?;
    let parsed: serde_json::Value = serde_json::from_str(&answer).unwrap_or_default();
    if parsed.get("return").is_some() {
        return Ok(());
    }
    // It does not say why.
    check_free(listen)?;
    Err(MachineError::Hypervisor {
        program: "slirp4netns".into(),
        why: format!("does not forward {listen}: {}", answer.trim()),
    })
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

    #[test]
    fn taken_ports_are_told() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = listener.local_addr().unwrap();
        assert!(matches!(check_free(taken), Err(MachineError::PortTaken(at)) if at == taken));
        drop(listener);
        check_free(taken).unwrap();
    }
}
