//! What host and guest say to each other.
//!
//! **Control**, over the virtio-serial port [`CONTROL_PORT`]: one JSON document a line, both ways. The
//! guest says [`FromGuest::Hello`] when its agent runs; the host answers [`ToGuest::Prepare`] (all that must be
//! known before dockerd starts); the guest says [`FromGuest::Prepared`] when dockerd answers. Here a snapshot may be
//! taken: [`ToGuest::Quiesce`], [`FromGuest::Quiesced`]. Then, in this life or in that of a clone,
//! [`ToGuest::Adopt`] makes the guest a job's own, and [`FromGuest::Adopted`] says that its endpoint is open.
//!
//! **Services**, over the docker endpoint: a client that offers the ALPN protocol [`ALPN_SERVICE`] sends a
//! [`Service`] as one line of JSON; the guest answers one line of JSON, a [`ServiceAnswer`]; after `ok` the
//! connection is the service's bytes, after `content` so many bytes follow. An end before the last of them means that
//! the guest could not go on.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Version of the protocol: host and guest must agree.
pub const VERSION: u32 = 2;

/// Name of the virtio-serial port of the control channel.
pub const CONTROL_PORT: &str = "pcocc.control";

/// TCP port of the docker endpoint inside the guest.
pub const ENDPOINT_PORT: u16 = 2376;

/// ALPN protocol of the agent's own services at the docker endpoint.
pub const ALPN_SERVICE: &[u8] = b"pcocc/1";

/// Longest line that is read, in bytes: certificates and a daemon.json fit many times.
pub const MAX_LINE: usize = 4 << 20;

/// Longest line of the guest's that the host reads, in bytes. Who is in the guest may write anything there.
pub const MAX_GUEST_LINE: usize = 64 << 10;

/// What the host says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "say")]
pub enum ToGuest {
    /// Start dockerd with these settings.
    Prepare(Box<Prepare>),
    /// Get ready to be saved: flush the disk, give up caches.
    Quiesce,
    /// Become this job's.
    Adopt(Box<Adopt>),
    /// The wall clock, now and then: corrects a guest whose node was suspended.
    Clock {
        /// Nanoseconds since 1970.
        time_ns: u64,
    },
    /// End: stop containers and dockerd, flush, power off. `grace_ms` for dockerd, then kill.
    Shutdown {
        /// Time for dockerd to stop its containers, in milliseconds.
        grace_ms: u64,
    },
}

/// What must be known before dockerd starts.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prepare {
    /// Wall clock, in nanoseconds since 1970.
    pub time_ns: u64,
    /// Environment variables of dockerd: the proxies.
    pub environment: BTreeMap<String, String>,
    /// PEM certificates trusted besides the usual ones.
    pub ca_certificates: Vec<String>,
    /// PEM certificates trusted for one registry each, by its `HOST[:PORT]`.
    pub registry_certificates: BTreeMap<String, String>,
    /// The whole `/etc/docker/daemon.json`.
    pub daemon_json: serde_json::Value,
    /// The guest's own network.
    pub network: Network,
}

impl fmt::Debug for Prepare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Prepare(secret)")
    }
}

/// The guest's network, set without DHCP.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// IPv4 address and prefix length, such as `10.0.2.15/24`.
    pub address: String,
    /// IPv4 address of the gateway.
    pub gateway: String,
    /// IPv4 address of the name server.
    pub nameserver: String,
}

/// What makes a guest a job's own.
#[derive(Serialize, Deserialize)]
pub struct Adopt {
    /// Wall clock, in nanoseconds since 1970.
    pub time_ns: u64,
    /// Fresh random bytes, base64: a clone's pool is that of its snapshot.
    pub entropy: String,
    /// Host name.
    pub hostname: String,
    /// The guest's `/etc/machine-id`, 32 hex digits.
    pub machine_id: String,
    /// The docker daemon's engine id, a UUID in its text form.
    pub engine_id: String,
    /// Certificate authority of the clients, PEM.
    pub ca_pem: String,
    /// The endpoint's certificate, PEM.
    pub cert_pem: String,
    /// The endpoint's key, PEM.
    pub key_pem: String,
    /// The user, as the guest is to know them.
    pub user: User,
    /// What to mount.
    pub mounts: Vec<Mount>,
}

impl fmt::Debug for Adopt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Adopt(secret)")
    }
}

/// A line of `/etc/passwd`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// Login name.
    pub name: String,
    /// User number.
    pub uid: u32,
    /// Group number.
    pub gid: u32,
    /// Home folder.
    pub home: PathBuf,
}

/// A 9p share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Its tag.
    pub tag: String,
    /// Where it is mounted.
    pub dest: PathBuf,
    /// Whether it is mounted read only (the host refuses writes in any case).
    pub read_only: bool,
}

/// What the guest says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "say")]
pub enum FromGuest {
    /// The agent runs.
    Hello {
        /// Its protocol [`VERSION`].
        protocol: u32,
        /// Release of the guest's kernel.
        kernel: String,
    },
    /// dockerd answers on its own socket.
    Prepared,
    /// Ready to be saved.
    Quiesced,
    /// The endpoint is open.
    Adopted {
        /// Folders that could not be mounted, each with why.
        warnings: Vec<String>,
    },
    /// dockerd ended and was started again.
    DaemonRestarted {
        /// How it ended.
        how: String,
    },
    /// dockerd ended and does not start any more.
    DaemonFailed {
        /// Why.
        why: String,
    },
    /// What was asked for cannot be done.
    Failed {
        /// Why.
        why: String,
    },
    /// The guest is about to power off.
    ShuttingDown,
}

/// What a client asks of the agent at the endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "service")]
pub enum Service {
    /// Connects to a TCP port of the guest itself, such as one that a container publishes.
    Connect {
        /// The port.
        port: u16,
    },
    /// Runs a root shell of the guest on a terminal of its own. Its bytes are the terminal's.
    Shell {
        /// `TERM` of the client.
        term: String,
        /// Rows of the client's terminal.
        rows: u16,
        /// Columns of the client's terminal.
        columns: u16,
        /// A command line for `sh -c`; an interactive shell when absent.
        command: Option<String>,
    },
    /// Sends an image's config as docker keeps it; its digest is the image's ID.
    Image {
        /// The image's ID.
        id: Digest,
    },
    /// Sends a layer as the very tar that it was; its digest is the layer's diff ID.
    Layer {
        /// The chain ID of the layer and of those below it (OCI image config, "Layer ChainID").
        chain_id: Digest,
    },
    /// Sends the tar of a layer without the content of its files: headers, their extensions, and padding.
    Entries {
        /// The chain ID, as for a layer.
        chain_id: Digest,
    },
    /// Sends a part of one file of a layer: less than was asked for at the end of the file. Files without content, such as
    /// whiteouts, need not be there.
    File {
        /// The chain ID, as for a layer.
        chain_id: Digest,
        /// The path in the tar, base64.
        path: String,
        /// The first byte.
        offset: u64,
        /// The number of bytes.
        length: u64,
    },
    /// Sends a blob of containerd's content store: a manifest, a config, or a layer in the form in which it is stored.
    Blob {
        /// The blob's digest.
        digest: Digest,
    },
}

/// The agent's answer to a [`Service`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ServiceAnswer {
    /// The connection is the service's from here on.
    Ok,
    /// So many bytes follow.
    Content {
        /// Their number.
        bytes: u64,
    },
    /// It cannot be had; why.
    Refused(String),
}

/// A digest in its text form, `sha256:` and 64 lower-case hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

/// A text that is no digest.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not sha256: and 64 lower-case hexadecimal digits")]
pub struct NoDigest(String);

impl Digest {
    /// The 64 hexadecimal digits.
    pub fn hex(&self) -> &str {
        self.0.strip_prefix(ALGORITHM).unwrap_or_default()
    }
}

const ALGORITHM: &str = "sha256:";

impl TryFrom<String> for Digest {
    type Error = NoDigest;

    fn try_from(text: String) -> Result<Self, NoDigest> {
        let hex = text.strip_prefix(ALGORITHM).unwrap_or_default();
        let is_hex = hex
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        match hex.len() == 64 && is_hex {
            true => Ok(Self(text)),
            false => Err(NoDigest(text.chars().take(80).collect())),
        }
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
