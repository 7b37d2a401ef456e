//! TLS clients of a machine's endpoint: the ping of docker, and the agent's services.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use pcocc_guest::protocol::{ALPN_SERVICE, MAX_GUEST_LINE, ServiceAnswer};
pub use pcocc_guest::protocol::{Digest, Service};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;

use crate::machine::ClientIdentity;

/// How long an endpoint may be silent.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long the agent may look for what it is asked for: in a busy guest this is the slowest step.
const SEARCH: Duration = Duration::from_secs(300);

/// Longest refusal that is told, in characters.
const MAX_REFUSAL: usize = 1000;

/// A machine's endpoint with a client's certificates.
#[derive(Clone, Debug)]
pub struct EndpointClient {
    address: SocketAddr,
    config: Arc<ClientConfig>,
}

/// The bytes of a service, once it was granted.
pub type ServiceStream = tokio_rustls::client::TlsStream<tokio::net::TcpStream>;

impl EndpointClient {
    /// Prepares a client of the endpoint at `address`, whose certificate must name that address and be of `ca_pem`.
    pub fn new(address: SocketAddr, ca_pem: &str, client: &ClientIdentity) -> io::Result<Self> {
        let bad = |error: &dyn std::fmt::Display| {
            io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("certificates: {error}"),
            )
        };
        let certificates = |pem: &str| {
            CertificateDer::pem_slice_iter(pem.as_bytes())
                .collect::<Result<Vec<_>, _>>()
                .map_err(|error| bad(&error))
        };
        let mut roots = RootCertStore::empty();
        for certificate in certificates(ca_pem)? {
            roots.add(certificate).map_err(|error| bad(&error))?;
        }
        let key = PrivateKeyDer::from_pem_slice(client.key_pem.as_bytes())
            .map_err(|error| bad(&error))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| bad(&error))?
            .with_root_certificates(roots)
            .with_client_auth_cert(certificates(&client.cert_pem)?, key)
            .map_err(|error| bad(&error))?;
        Ok(Self {
            address: reachable(address),
            config: Arc::new(config),
        })
    }

    /// Pings the docker daemon.
    pub fn ping(&self) -> io::Result<()> {
        let name = ServerName::IpAddress(self.address.ip().into());
        let connection =
            ClientConnection::new(Arc::clone(&self.config), name).map_err(io::Error::other)?;
        let socket = TcpStream::connect_timeout(&self.address, PATIENCE)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        let mut stream = StreamOwned::new(connection, socket);
        stream.write_all(b"GET /_ping HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n")?;
        let mut answer = [0; 12];
        stream.read_exact(&mut answer)?;
        match &answer {
            b"HTTP/1.1 200" => Ok(()),
            other => Err(io::Error::other(format!(
                "the docker daemon answers {:?}",
                String::from_utf8_lossy(other)
            ))),
        }
    }

    /// Opens a service of the guest's agent.
    pub async fn open(&self, service: &Service) -> io::Result<ServiceStream> {
        match self.ask(service).await? {
            (ServiceAnswer::Ok, stream) => Ok(stream),
            (answer, _) => Err(unexpected(&answer)),
        }
    }

    /// Opens a service that sends content; returns the number of bytes as well.
    pub async fn content(&self, service: &Service) -> io::Result<(u64, ServiceStream)> {
        match self.ask(service).await? {
            (ServiceAnswer::Content { bytes }, stream) => Ok((bytes, stream)),
            (answer, _) => Err(unexpected(&answer)),
        }
    }

    async fn ask(&self, service: &Service) -> io::Result<(ServiceAnswer, ServiceStream)> {
        let mut config = ClientConfig::clone(&self.config);
        config.alpn_protocols = vec![ALPN_SERVICE.to_vec()];
        let name = ServerName::IpAddress(self.address.ip().into());
        let socket = tokio::net::TcpStream::connect(self.address);
        let socket = tokio::time::timeout(PATIENCE, socket).await??;
        socket.set_nodelay(true)?;
        let mut stream = TlsConnector::from(Arc::new(config))
            .connect(name, socket)
            .await?;
        let mut question = serde_json::to_vec(service)?;
        question.push(b'\n');
        stream.write_all(&question).await?;
        stream.flush().await?;
        let line = tokio::time::timeout(SEARCH, answer_line(&mut stream)).await??;
        Ok((serde_json::from_slice(&line)?, stream))
    }
}

/// Reads the line of an answer, and nothing behind it: that is the service's.
async fn answer_line(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    loop {
        match stream.read_u8().await? {
            b'\n' => return Ok(line),
            byte if line.len() < MAX_GUEST_LINE => line.push(byte),
            _ => return Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

/// The error of an answer that grants nothing, or something else than was asked for.
fn unexpected(answer: &ServiceAnswer) -> io::Error {
    match answer {
        ServiceAnswer::Refused(why) => {
            let why: String = why.chars().take(MAX_REFUSAL).collect();
            io::Error::other(format!("the guest {why}"))
        }
        ServiceAnswer::Ok | ServiceAnswer::Content { .. } => {
            io::Error::other("the guest answers another question")
        }
    }
}

/// The address at which something that listens at `address` is reached from the same node.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_cut() {
        let refused = |why: &str| unexpected(&ServiceAnswer::Refused(why.to_owned())).to_string();
        assert_eq!(refused("has no such image"), "the guest has no such image");
        let long = refused(&"\u{e9}".repeat(60_000));
        assert_eq!(long.chars().count(), "the guest ".len() + MAX_REFUSAL);
    }

    #[test]
    fn an_answer_is_a_line_of_bounded_length() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let mut both = &b"{}\ncontent"[..];
        assert_eq!(runtime.block_on(answer_line(&mut both)).unwrap(), b"{}");
        assert_eq!(both, b"content");
        let endless = runtime.block_on(answer_line(&mut tokio::io::repeat(b'x')));
        assert_eq!(endless.unwrap_err().kind(), io::ErrorKind::InvalidData);
        let cut = runtime.block_on(answer_line(&mut &b"{"[..]));
        assert_eq!(cut.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
