//! The connection of a machine's namespace with the node: slirp4netns, without the node's loopback.

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
use rustix::pipe::{PipeFlags, pipe_with};

use super::process::Process;
use super::words::Words;
use crate::machine::{MachineError, NetworkPolicy};

/// Network of the namespace's side of slirp4netns.
const OUTER_NET: &str = "198.18.1.0/24";
/// slirp4netns's name server in it.
pub(crate) const NAMESERVER: &str = "198.18.1.3";
/// Most characters of slirp4netns's words in an error.
pub(crate) const MAX_WORDS: usize = 1000;
/// How long slirp4netns may take to be ready.
const PATIENCE: Duration = Duration::from_secs(20);

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
        let pipe = Words::new();
        let (words, output) = pipe.map_err(MachineError::io("make a pipe for", "slirp4netns"))?;
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
            .stdout(output.0)
            .stderr(output.1);
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
        words: &Words,
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
                let text = words.last();
                return Err(MachineError::Hypervisor {
                    program: "slirp4netns".into(),
                    why: format!(
                        "{}: {}",
                        how.as_deref().unwrap_or("does not get ready"),
                        match text.trim() {
                            "" => "it said nothing".to_owned(),
                            words => {
                                let words = words.replace('\n', "; ");
                                words.chars().take(MAX_WORDS).collect()
                            }
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
    let ask = || -> io::Result<Vec<u8>> {
        let mut socket = UnixStream::connect(api)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.write_all(question.to_string().as_bytes())?;
        socket.shutdown(std::net::Shutdown::Write)?;
        let mut answer = Vec::new();
        socket.take(1 << 16).read_to_end(&mut answer)?;
        Ok(answer)
    };
    let answer = ask().map_err(MachineError::io("ask slirp4netns at", api))?;
    let Err(words) = forwarded(&answer) else {
        return Ok(());
    };
    // It does not say why.
    check_free(listen)?;
    Err(MachineError::Hypervisor {
        program: "slirp4netns".into(),
        why: format!("does not forward {listen}: {words}"),
    })
}

/// Whether slirp4netns forwards, from its answer; its own words if not.
pub(crate) fn forwarded(answer: &[u8]) -> Result<(), String> {
    let parsed: serde_json::Value = serde_json::from_slice(answer).unwrap_or_default();
    if parsed.get("return").is_some() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(answer);
    Err(words.trim().chars().take(MAX_WORDS).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_told_in_bearable_length() {
        forwarded(br#"{"return": {"id": 1}}"#).unwrap();
        let refused = r#"{"error": {"desc": "bad request"}}"#;
        assert_eq!(
            forwarded(format!("{refused}\n").as_bytes()),
            Err(refused.to_owned())
        );
        assert_eq!(forwarded(b""), Err(String::new()));
        assert_eq!(forwarded(&[b'x'; 60_000]).unwrap_err().len(), MAX_WORDS);
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
