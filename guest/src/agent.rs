//! The conversation with the host, from "here I am" to "power off".
//!
//! Phases, each begun by a message of the host: prepare (dockerd starts with the site's settings) → quiesce, when a snapshot
//! is to be taken → adopt (the guest becomes a job's, the endpoint opens) → shut down. See
//! [`pcocc_guest::protocol`].

use std::fs;
use std::process::Command;
use std::time::Duration;

use pcocc_guest::protocol::{Adopt, FromGuest, Prepare, ToGuest, VERSION};

use crate::control::Control;
use crate::daemons::{self, Daemons};
use crate::engine_id::{self, Occurrences};
use crate::reaper::Reaper;
use crate::{Failure, adopt, endpoint, init, network, say};

/// Longest time dockerd may take to its first answer. The host gives up earlier.
const DAEMON_START: Duration = Duration::from_secs(600);

/// Obeys the host until it ends the guest.
pub(crate) fn run() -> Result<(), Failure> {
    let reaper = Reaper::start().map_err(Failure::of("start a thread"))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(Failure::of("start the agent"))?;
    runtime.block_on(converse(reaper))
}

async fn converse(reaper: Reaper) -> Result<(), Failure> {
    let (control, mut host) = Control::open()?;
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    control.send(&FromGuest::Hello {
        protocol: VERSION,
        kernel: kernel.trim().to_owned(),
    });
    let mut guest = Guest {
        control,
        reaper,
        daemons: None,
        occurrences: None,
    };
    while let Some(message) = host.recv().await {
        let done = match message {
            ToGuest::Prepare(prepare) => guest.prepare(&prepare).await,
            ToGuest::Quiesce => guest.quiesce(),
            ToGuest::Adopt(adopt) => guest.adopt(&adopt).await,
            ToGuest::Clock { time_ns } => adopt::correct_clock(time_ns),
            ToGuest::Shutdown { grace_ms } => {
                guest.control.send(&FromGuest::ShuttingDown);
                if let Some(daemons) = &guest.daemons {
                    daemons.stop(Duration::from_millis(grace_ms)).await;
                }
                return Ok(());
            }
        };
        if let Err(error) = done {
            say(&error.to_string());
            guest.control.send(&FromGuest::Failed {
                why: error.to_string(),
            });
        }
    }
    Err(Failure("the control channel is gone".into()))
}

struct Guest {
    control: Control,
    reaper: Reaper,
    daemons: Option<Daemons>,
    occurrences: Option<Occurrences>,
}

impl Guest {
    async fn prepare(&mut self, prepare: &Prepare) -> Result<(), Failure> {
        adopt::set_clock(prepare.time_ns)?;
        network::set_up(&prepare.network, &self.reaper).await?;
        trust(&prepare.ca_certificates)?;
        init::make_folder("/etc/docker")?;
        for (registry, certificates) in &prepare.registry_certificates {
            trust_for(registry, certificates)?;
        }
        fs::write("/etc/docker/daemon.json", prepare.daemon_json.to_string())
            .map_err(Failure::of("write /etc/docker/daemon.json"))?;
        engine_id::plant()?;
        // The template is small; the disk is as large as the job asked for.
        self.reaper
            .run(Command::new("/usr/sbin/resize2fs").arg(init::DATA_DISK))
            .await?;
        let daemons = Daemons::start(&self.reaper, &self.control, &prepare.environment)?;
        daemons::wait_ready(DAEMON_START).await?;
        if let Some(pid) = daemons.dockerd() {
            self.occurrences = Some(engine_id::find(pid)?);
        }
        self.daemons = Some(daemons);
        self.control.send(&FromGuest::Prepared);
        Ok(())
    }

    fn quiesce(&self) -> Result<(), Failure> {
        rustix::fs::sync();
        // Cached pages of the disks would make the snapshot large.
        fs::write("/proc/sys/vm/drop_caches", "1").map_err(Failure::of("drop caches"))?;
        self.control.send(&FromGuest::Quiesced);
        Ok(())
    }

    async fn adopt(&self, job: &Adopt) -> Result<(), Failure> {
        let warnings = adopt::run(job)?;
        network::forget_neighbours(&self.reaper).await?;
        if let Some(occurrences) = &self.occurrences {
            engine_id::replace(occurrences, &job.engine_id)?;
        }
        endpoint::open(job, &self.reaper).await?;
        daemons::ping().await?;
        self.control.send(&FromGuest::Adopted { warnings });
        Ok(())
    }
}

/// Adds certificates to those that programs of the guest trust.
fn trust(certificates: &[String]) -> Result<(), Failure> {
    const BUNDLE: &str = "/etc/ssl/certs/ca-certificates.crt";
    if certificates.is_empty() {
        return Ok(());
    }
    let mut bundle = fs::read_to_string(BUNDLE).map_err(Failure::of(format!("read {BUNDLE}")))?;
    for certificate in certificates {
        bundle.push('\n');
        bundle.push_str(certificate.trim_end());
        bundle.push('\n');
    }
    fs::write(BUNDLE, bundle).map_err(Failure::of(format!("write {BUNDLE}")))
}

/// Adds certificates that dockerd trusts for one registry only.
fn trust_for(registry: &str, certificates: &str) -> Result<(), Failure> {
    if registry.is_empty() || registry.starts_with('.') || registry.contains('/') {
        return Err(Failure(format!("{registry:?} is no name of a registry")));
    }
    let folder = format!("/etc/docker/certs.d/{registry}");
    init::make_folder(&folder)?;
    let file = format!("{folder}/ca.crt");
    fs::write(&file, certificates).map_err(Failure::of(format!("write {file}")))
}
