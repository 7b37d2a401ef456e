//! The address of a docker daemon: the values of DOCKER_HOST, DOCKER_TLS_VERIFY and DOCKER_CERT_PATH, parsed
//! once. The caller reads the environment.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use super::ssh::SshHost;
use pcocc_image::{Error, Result};

/// Docker's default address.
const DEFAULT_SOCKET: &str = "/var/run/docker.sock";

/// The certificates of both sides of a TLS connection, with docker's file names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificate of the authority that signed the daemon's certificate.
    pub ca: PathBuf,
    /// The client's certificate and its private key, for a daemon that wants to know its clients.
    pub client: Option<(PathBuf, PathBuf)>,
}

impl TlsFiles {
    /// `ca.pem`, `cert.pem` and `key.pem` of a folder.
    pub fn of_folder(folder: &Path) -> Self {
        Self {
            ca: folder.join("ca.pem"),
            client: Some((folder.join("cert.pem"), folder.join("key.pem"))),
        }
    }
}

/// The address of a docker daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// A unix socket.
    Unix(PathBuf),
    /// A TCP port, with mutual TLS if `tls` is set.
    Tcp {
        /// Host name or address, IPv6 addresses without brackets.
        host: String,
        /// Port.
        port: u16,
        /// Certificates of a TLS connection.
        tls: Option<TlsFiles>,
    },
    /// A machine on which ssh runs docker's own command, which passes the bytes on.
    Ssh(SshHost),
}

impl Default for Endpoint {
    fn default() -> Self {
        Self::Unix(DEFAULT_SOCKET.into())
    }
}

impl Endpoint {
    /// Parses docker's own variables; empty values count as absent, as in docker.
    ///
    /// `host` is DOCKER_HOST (`unix://PATH`, `tcp://HOST[:PORT]` or `ssh://[USER@]HOST[:PORT]`), `tls_verify` is DOCKER_TLS_VERIFY (any
    /// value turns TLS on for TCP), `cert_path` is DOCKER_CERT_PATH or docker's default folder.
    pub fn parse(
        host: Option<&str>,
        tls_verify: Option<&str>,
        cert_path: Option<&Path>,
    ) -> Result<Self> {
        let Some(host) = host.filter(|host| !host.is_empty()) else {
            return Ok(Self::default());
        };
        let bad = |why: &str| Error::invalid(format!("docker host {host:?}"), why);
        match host.split_once("://") {
            Some(("unix", "")) => Ok(Self::default()),
            Some(("unix", path)) if path.starts_with('/') => Ok(Self::Unix(path.into())),
            Some(("unix", _)) => Err(bad("names no absolute path; write unix:///path/to/socket")),
            Some(("tcp", address)) => {
                let wants_tls = tls_verify.is_some_and(|value| !value.is_empty());
                let tls = match (wants_tls, cert_path) {
                    (false, _) => None,
                    (true, Some(folder)) if !folder.as_os_str().is_empty() => {
                        Some(TlsFiles::of_folder(folder))
                    }
                    (true, _) => {
                        return Err(bad(
                            "shall be reached with TLS, but no folder with ca.pem, cert.pem and \
                             key.pem is known; set DOCKER_CERT_PATH",
                        ));
                    }
                };
                let default_port = if tls.is_some() { 2376 } else { 2375 };
                let (host, port) = parse_address(address, default_port)
                    .ok_or_else(|| bad("is not of the form tcp://HOST:PORT"))?;
                Ok(Self::Tcp { host, port, tls })
            }
            Some(("ssh", address)) => SshHost::parse(address).map(Self::Ssh).ok_or_else(|| {
                bad("is not of the form ssh://[USER@]HOST[:PORT][/SOCKET]; passwords are asked for by ssh")
            }),
            Some((scheme, _)) => Err(bad(&format!(
                "has the scheme {scheme:?}; pcocc knows unix://, tcp:// and ssh://"
            ))),
            None => Err(bad("has no scheme; write unix:///path or tcp://HOST:PORT")),
        }
    }
}

impl Endpoint {
    /// The variables by which docker's own command finds exactly this daemon; variables without a value must be
    /// unset.
    pub fn variables(&self) -> [(&'static str, Option<OsString>); 4] {
        let folder = match self {
            Self::Tcp { tls, .. } => tls.as_ref().and_then(|files| files.ca.parent()),
            Self::Unix(_) | Self::Ssh(_) => None,
        };
        [
            ("DOCKER_HOST", Some(self.to_string().into())),
            ("DOCKER_TLS_VERIFY", folder.map(|_| "1".into())),
            ("DOCKER_CERT_PATH", folder.map(Into::into)),
            // A context names a daemon as well, and docker would report the conflict.
            ("DOCKER_CONTEXT", None),
        ]
    }
}

fn parse_address(address: &str, default_port: u16) -> Option<(String, u16)> {
    let address = address.strip_suffix('/').unwrap_or(address);
    let (host, rest) = match address.strip_prefix('[') {
        Some(bracketed) => bracketed.split_once(']')?,
        None => match address.find(':') {
            Some(colon) => address.split_at(colon),
            None => (address, ""),
        },
    };
    let legal = |c: char| c.is_ascii_alphanumeric() || ".-_:%".contains(c);
    if host.is_empty() || !host.chars().all(legal) {
        return None;
    }
    let port = match rest {
        "" => default_port,
        rest => rest.strip_prefix(':')?.parse().ok().filter(|p| *p != 0)?,
    };
    Some((host.to_owned(), port))
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp { host, port, .. } if host.contains(':') => {
                write!(f, "tcp://[{host}]:{port}")
            }
            Self::Tcp { host, port, .. } => write!(f, "tcp://{host}:{port}"),
            Self::Ssh(host) => write!(f, "ssh://{host}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(host: &str, tls: &str) -> Result<Endpoint> {
        Endpoint::parse(Some(host), Some(tls), Some(Path::new("/certs")))
    }

    #[test]
    fn hosts_are_understood_as_docker_does() {
        for (host, tls, shown) in [
            ("", "", "unix:///var/run/docker.sock"),
            ("unix://", "1", "unix:///var/run/docker.sock"),
            ("unix:///tmp/d.sock", "1", "unix:///tmp/d.sock"),
            ("tcp://10.0.0.1", "", "tcp://10.0.0.1:2375"),
            ("tcp://10.0.0.1", "1", "tcp://10.0.0.1:2376"),
            ("tcp://node-1.site:60222/", "1", "tcp://node-1.site:60222"),
            ("tcp://[::1]:99", "", "tcp://[::1]:99"),
            ("ssh://me@there", "1", "ssh://me@there"),
        ] {
            assert_eq!(parse(host, tls).unwrap().to_string(), shown);
        }
        let Endpoint::Tcp { tls: Some(tls), .. } = parse("tcp://h:1", "1").unwrap() else {
            panic!("no TLS");
        };
        assert_eq!(tls.client.unwrap().1, Path::new("/certs/key.pem"));
    }

    #[test]
    fn docker_finds_the_same_daemon() {
        let [host, verify, folder, context] = parse("tcp://h:1", "1").unwrap().variables();
        assert_eq!(host.1.unwrap(), "tcp://h:1");
        assert_eq!(verify.1.unwrap(), "1");
        assert_eq!(folder.1.unwrap(), "/certs");
        assert_eq!(context, ("DOCKER_CONTEXT", None));
        let [host, verify, folder, _] = parse("unix:///d.sock", "1").unwrap().variables();
        assert_eq!(host.1.unwrap(), "unix:///d.sock");
        assert_eq!((verify.1, folder.1), (None, None));
    }

    #[test]
    fn what_cannot_be_reached_is_refused_by_name() {
        for (host, word) in [
            ("ssh://me:secret@there", "passwords"),
            ("ssh://-oProxyCommand=touch", "HOST"),
            ("npipe:////./pipe", "npipe"),
            ("unix://relative", "absolute"),
            ("/var/run/docker.sock", "scheme"),
            ("tcp://", "HOST:PORT"),
            ("tcp://h:0", "HOST:PORT"),
            ("tcp://h:99999", "HOST:PORT"),
            ("tcp://h:1/path", "HOST:PORT"),
            ("tcp://a b:1", "HOST:PORT"),
            ("tcp://[::1", "HOST:PORT"),
        ] {
            let error = parse(host, "").unwrap_err().to_string();
            assert!(error.contains(word) && error.contains(host), "{error}");
        }
        let error = Endpoint::parse(Some("tcp://h:1"), Some("1"), None).unwrap_err();
        assert!(error.to_string().contains("DOCKER_CERT_PATH"));
    }
}
