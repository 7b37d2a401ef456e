//! A docker VM, as the rest of pcocc sees it: a specification, a hypervisor that starts it, and the
//! running machine. `qemu` is the real hypervisor; [`crate::testing`] has one in memory, also with faults.
//!
//! Data path: the launcher makes a [`MachineSpec`] from a [`MachinePlan`] → [`Hypervisor::start`] boots or resumes the VM,
//! reports each [`Stage`] as it begins, gives the guest its identity and shares, and returns once the
//! docker daemon has answered `/_ping` over TLS at [`MachineSpec::listen`] → the launcher calls
//! [`Machine::wait`] until the VM ends, or [`Machine::stop`]. Dropping a machine ends it at once.
//!
//! The port at `listen` speaks TLS only, to clients of the job's CA only. Without ALPN it is the
//! docker API; with the ALPN protocol [`pcocc_guest::protocol::ALPN_SERVICE`] it is the guest's agent:
//! see there how a client reaches a published port or a shell in the guest.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use pcocc_core::FileError;
use pcocc_core::cancel::Cancel;
pub use pcocc_guest::protocol::User as GuestUser;

/// The plan of a VM, made before its launcher runs. Paths are those of the VM's node.
#[derive(Clone, Debug)]
pub struct MachinePlan {
    /// Host name of the guest.
    pub hostname: String,
    /// Number of virtual CPUs, at least 1.
    pub cpus: u32,
    /// Memory of the guest in MiB.
    pub memory_mib: u64,
    /// Size of the disk for the docker daemon's data, in bytes.
    pub disk_bytes: u64,
    /// Folder on a node-local disk for this VM alone: the data disk lives here. Made and removed by
    /// the caller, mode 0700.
    pub scratch: PathBuf,
    /// Short node-local folder for this VM's sockets, made and removed by the caller, mode 0700.
    pub sockets: PathBuf,
    /// File that gets what the guest writes to its console; made if missing, appended to.
    pub console_log: PathBuf,
    /// Most bytes of it that are kept, together with [`crate::job::older`].
    pub console_bytes: u64,
    /// The user whose VM it is.
    pub user: GuestUser,
    /// Folders of the node that the guest sees.
    pub shares: Vec<Share>,
    /// Settings of the docker daemon in the guest.
    pub environment: GuestEnvironment,
    /// What the guest may reach.
    pub network: NetworkPolicy,
    /// Addresses that the guest may reach although [`NetworkPolicy::Public`] closes them: proxies, for one.
    pub reachable: Vec<Ipv4Addr>,
    /// Whether to resume a snapshot, and to make one when there is none.
    pub snapshot: bool,
    /// Node-local folder of this user's snapshots and of what is remembered about the node; made if
    /// missing, mode 0700.
    pub cache: PathBuf,
    /// Longest time the start may take.
    pub deadline: Duration,
}

/// Everything a VM is made from: the plan, and what the launcher adds.
#[derive(Clone, Debug)]
pub struct MachineSpec {
    /// The plan.
    pub plan: MachinePlan,
    /// The files the guest boots from.
    pub image: GuestFiles,
    /// Address and port of the docker endpoint on the node.
    pub listen: SocketAddr,
    /// The guest's certificates for clients.
    pub identity: ServerIdentity,
    /// The launcher's own certificates for its ping of the daemon.
    pub client: ClientIdentity,
}

/// The files of a guest image, unpacked on the node (`guest_image`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestFiles {
    /// Linux kernel, as QEMU's `-kernel` takes it.
    pub kernel: PathBuf,
    /// First root file system: the agent and the modules that are needed to mount the root.
    pub initramfs: PathBuf,
    /// Root file system, squashfs, attached read only.
    pub root: PathBuf,
    /// Empty data disk in qcow2 format, copied for each VM and grown to its size.
    pub data: PathBuf,
    /// Identifies the content of all of them, as hex digits.
    pub id: String,
}

/// Certificate and key of the docker endpoint, in PEM. Secret.
#[derive(Clone, PartialEq, Eq)]
pub struct ServerIdentity {
    /// The job's certificate authority; only its clients are let in.
    pub ca_pem: String,
    /// The server's certificate.
    pub cert_pem: String,
    /// The server's private key, PKCS#8.
    pub key_pem: String,
}

impl fmt::Debug for ServerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServerIdentity(secret)")
    }
}

/// Certificate and key of a client of the docker endpoint, in PEM. Secret.
#[derive(Clone, PartialEq, Eq)]
pub struct ClientIdentity {
    /// The client's certificate.
    pub cert_pem: String,
    /// The client's private key, PKCS#8.
    pub key_pem: String,
}

impl fmt::Debug for ClientIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientIdentity(secret)")
    }
}

/// A folder of the node that the guest sees, with no more than the user's own rights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// Folder on the node.
    pub source: PathBuf,
    /// Folder in the guest; absolute.
    pub dest: PathBuf,
    /// Whether the guest may only read it.
    pub read_only: bool,
}

/// Most folders a VM can share: it has that many 9p devices, plugged in before any snapshot.
pub const MAX_SHARES: usize = 8;

/// Settings of the docker daemon in the guest, known before it starts. A snapshot is only resumed for
/// the settings it was made with.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct GuestEnvironment {
    /// `HTTP_PROXY`, `HTTPS_PROXY`, `NO_PROXY` for the docker daemon, by name. May hold passwords.
    pub proxies: BTreeMap<String, String>,
    /// The site's certificate authorities, PEM, trusted besides the usual ones.
    pub ca_certificates: Vec<String>,
    /// Certificate authorities of single registries, PEM, by the registry's `HOST[:PORT]`.
    pub registry_certificates: BTreeMap<String, String>,
    /// Registry mirrors of the docker daemon.
    pub registry_mirrors: Vec<String>,
    /// Registries that the docker daemon may reach over HTTP or unverified TLS, as `HOST[:PORT]`.
    pub insecure_registries: Vec<String>,
    /// The site's or the user's own `daemon.json`, laid over pcocc's.
    pub daemon_json: Option<serde_json::Value>,
}

impl fmt::Debug for GuestEnvironment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Proxies and registry settings hold passwords now and then.
        f.write_str("GuestEnvironment(secret)")
    }
}

/// What the guest may reach besides its own network. The node's loopback is never among it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NetworkPolicy {
    /// Nothing.
    Closed,
    /// Public addresses, but no private (RFC 1918, RFC 6598, link-local) ones.
    #[default]
    Public,
    /// Whatever the user can reach from the node.
    Open,
}

/// A step of a machine's start.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stage {
    /// The node's KVM is tried; once for a boot of the node.
    Probing,
    /// The guest's kernel boots.
    Booting,
    /// The docker daemon starts.
    DaemonStarting,
    /// The booted guest is being saved for later starts.
    SavingSnapshot,
    /// A saved guest is being resumed.
    Resuming,
    /// The guest is given its identity, clock and shares.
    Configuring,
    /// The docker daemon answered.
    Ready,
    /// A warning for the user; the start goes on.
    Warning(String),
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Probing => "Trying this node's KVM",
            Self::Booting => "Booting the guest",
            Self::DaemonStarting => "Starting the docker daemon",
            Self::SavingSnapshot => "Saving a snapshot for the next start",
            Self::Resuming => "Resuming the snapshot",
            Self::Configuring => "Configuring the guest",
            Self::Ready => "The docker daemon is ready",
            Self::Warning(text) => text,
        })
    }
}

/// How a machine ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Exit {
    /// The guest was shut down, by itself or on request.
    ShutDown,
    /// The guest's kernel panicked.
    Panicked,
    /// The hypervisor ended, in a way that the text describes.
    Died(String),
}

/// An event in a running guest.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MachineEvent {
    /// The docker daemon ended and was started again.
    DaemonRestarted {
        /// How it ended.
        how: String,
    },
    /// The docker daemon ended and does not start any more.
    DaemonFailed {
        /// Why.
        why: String,
    },
    /// Another event for the log.
    Note(String),
}

/// Starts machines.
pub trait Hypervisor: Send + Sync {
    /// Starts the machine `spec` and returns when its docker daemon answers.
    ///
    /// Calls `on_stage` as each stage begins. Whatever goes wrong, and when `cancel` is raised or the
    /// spec's deadline passes, nothing of the machine is left.
    fn start(
        &self,
        spec: &MachineSpec,
        cancel: &Cancel,
        on_stage: &mut dyn FnMut(Stage),
    ) -> Result<Box<dyn Machine>, MachineError>;
}

/// A running machine; ends when dropped.
pub trait Machine: Send {
    /// Where its docker daemon is reached.
    fn endpoint(&self) -> SocketAddr;
    /// Process ids of what runs for it on the node, the hypervisor first.
    fn processes(&self) -> Vec<u32>;
    /// Waits for the machine's end, at most `timeout`; `None` while the machine runs.
    fn wait(&mut self, timeout: Duration) -> Result<Option<Exit>, MachineError>;
    /// Takes the events since the last call.
    fn events(&mut self) -> Vec<MachineEvent>;
    /// Ends the machine: asks the guest, and kills it after `grace`. Nothing of the machine is left afterwards.
    fn stop(&mut self, grace: Duration) -> Result<(), MachineError>;
}

/// Why a machine could not be started or kept. Displays as a fragment that fits `failed to …: <error>`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MachineError {
    /// A program that is needed is not installed.
    #[error("the program {program} was not found (Debian package {package})")]
    ProgramMissing {
        /// Its name.
        program: String,
        /// The Debian package that has it.
        package: &'static str,
    },
    /// The guest image is not one this pcocc can use.
    #[error("guest image {what} {why}")]
    Image {
        /// Which, or which part of it.
        what: String,
        /// What is wrong with it.
        why: String,
    },
    /// A specification that cannot be met.
    #[error("{0}")]
    Spec(String),
    /// Not enough room on the node's disk.
    #[error(
        "{} has {free_mib} MiB free and the VM needs {needed_mib} MiB; \
         docker_scratch of batch.yaml can name a folder on another disk",
        folder.display()
    )]
    NoSpace {
        /// The folder.
        folder: PathBuf,
        /// What is free.
        free_mib: u64,
        /// What is needed.
        needed_mib: u64,
    },
    /// The docker endpoint's port is taken.
    #[error("address {0} is in use already")]
    PortTaken(SocketAddr),
    /// The hypervisor did not start, or ended too early.
    #[error("{program} {why}")]
    Hypervisor {
        /// Which program.
        program: String,
        /// The program's message, or how the program ended.
        why: String,
    },
    /// The guest reported a failure, or did not report what it should.
    #[error("the guest {0}")]
    Guest(String),
    /// The deadline passed.
    #[error("the docker daemon did not answer within {} s; the VM was {stage}", after.as_secs())]
    TimedOut {
        /// The deadline.
        after: Duration,
        /// The phase of the start, such as "booting".
        stage: String,
    },
    /// The start was cancelled.
    #[error("cancelled")]
    Cancelled,
    /// A file or socket operation failed.
    #[error(transparent)]
    File(#[from] FileError),
}

impl MachineError {
    /// Makes the error of `action` on `path` from the system's.
    pub fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        FileError::of(action, path)
    }
}
