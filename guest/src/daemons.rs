//! containerd and dockerd: started side by side, restarted when they end, stopped with the guest.
//!
//! dockerd's settings are all in `/etc/docker/daemon.json`, which the host wrote.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pcocc_guest::protocol::FromGuest;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::control::Control;
use crate::reaper::{Reaper, Started};
use crate::{Failure, say};

/// dockerd's own socket.
pub(crate) const DOCKER_SOCKET: &str = "/run/docker.sock";
/// More ends than this within [`WINDOW`], and a daemon is given up.
const MAX_ENDS: usize = 5;
const WINDOW: Duration = Duration::from_secs(120);

/// The running daemons.
#[derive(Clone, Debug)]
pub(crate) struct Daemons {
    pids: Arc<Mutex<BTreeMap<&'static str, Pid>>>,
}

impl Daemons {
    /// Starts both and keeps them running; `environment` is dockerd's besides PATH.
    pub(crate) fn start(
        reaper: &Reaper,
        control: &Control,
        environment: &BTreeMap<String, String>,
    ) -> Result<Self, Failure> {
        let daemons = Self {
            pids: Arc::default(),
        };
        let containerd = || {
            let mut command = daemon("/usr/bin/containerd");
            command.args(["--config", "/etc/containerd/config.toml"]);
            command
        };
        let environment = environment.clone();
        let dockerd = move || {
            let mut command = daemon("/usr/sbin/dockerd");
            command.envs(&environment);
            // A pid file of a dockerd that was killed names a process that may exist again.
            let _ = std::fs::remove_file("/run/docker.pid");
            command
        };
        daemons.keep("containerd", containerd, reaper, control)?;
        daemons.keep("dockerd", dockerd, reaper, control)?;
        Ok(daemons)
    }

    fn keep(
        &self,
        name: &'static str,
        command: impl Fn() -> Command + Send + 'static,
        reaper: &Reaper,
        control: &Control,
    ) -> Result<(), Failure> {
        let start = {
            let reaper = reaper.clone();
            move || {
                reaper
                    .spawn(&mut command())
                    .map_err(Failure::of(format!("start {name}")))
            }
        };
        let mut started = start()?;
        let (daemons, control) = (self.clone(), control.clone());
        daemons.note(name, &started);
        tokio::spawn(async move {
            let mut ends: Vec<Instant> = Vec::new();
            loop {
                let how = (&mut started.ended)
                    .await
                    .unwrap_or_else(|_| "was lost".into());
                let how = format!("{name} {how}");
                say(&how);
                ends.retain(|end| end.elapsed() < WINDOW);
                ends.push(Instant::now());
                if ends.len() > MAX_ENDS {
                    control.send(&FromGuest::DaemonFailed { why: how });
                    return;
                }
                started = match start() {
                    Ok(started) => started,
                    Err(error) => {
                        control.send(&FromGuest::DaemonFailed {
                            why: error.to_string(),
                        });
                        return;
                    }
                };
                daemons.note(name, &started);
                if name == "dockerd" && wait_ready(Duration::from_secs(300)).await.is_err() {
                    // The next round reports its next end.
                    continue;
                }
                control.send(&FromGuest::DaemonRestarted { how });
            }
        });
        Ok(())
    }

    fn note(&self, name: &'static str, started: &Started) {
        let mut pids = self.pids.lock();
        pids.insert(name, started.pid);
    }

    /// The process id of dockerd.
    pub(crate) fn dockerd(&self) -> Option<Pid> {
        let pids = self.pids.lock();
        pids.get("dockerd").copied()
    }

    /// Asks dockerd to stop the containers and waits for it, at most `grace`. Does nothing when there are
    /// none: the daemon's data goes with the guest.
    pub(crate) async fn stop(&self, grace: Duration) {
        let busy = std::fs::read_dir("/sys/fs/cgroup/docker")
            .into_iter()
            .flatten()
            .flatten()
            .any(|entry| entry.path().is_dir());
        let Some(pid) = self.dockerd().filter(|_| busy) else {
            return;
        };
        let begun = Instant::now();
        let _ = kill_process(pid, Signal::TERM);
        // dockerd closes its socket last.
        while begun.elapsed() < grace && ping().await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// The command of a daemon whose output goes to the console.
fn daemon(program: &str) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("HOME", "/root")
        .stdin(Stdio::null());
    command
}

/// Waits until dockerd answers, at most `longest`.
pub(crate) async fn wait_ready(longest: Duration) -> Result<(), Failure> {
    let begun = Instant::now();
    loop {
        match ping().await {
            Ok(()) => return Ok(()),
            Err(error) if begun.elapsed() > longest => {
                return Err(Failure(format!(
                    "dockerd does not answer after {} s: {error}",
                    longest.as_secs()
                )));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// Asks dockerd for a sign of life.
pub(crate) async fn ping() -> Result<(), Failure> {
    let failed = || Failure::of::<std::io::Error>("ask dockerd");
    let mut socket = UnixStream::connect(DOCKER_SOCKET).await.map_err(failed())?;
    let question = b"GET /_ping HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n";
    socket.write_all(question).await.map_err(failed())?;
    let mut answer = Vec::new();
    let mut socket = socket.take(1 << 16);
    socket.read_to_end(&mut answer).await.map_err(failed())?;
    if answer.starts_with(b"HTTP/1.1 200") {
        Ok(())
    } else {
        Err(Failure("dockerd says that it is not well".into()))
    }
}
