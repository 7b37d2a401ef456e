//! One HTTP connection per request to a daemon: unix socket, TCP, or TCP with mutual TLS.
//!
//! Phases: connect (bounded) → TLS handshake (bounded) → HTTP/1.1. This module tells the failures of each phase
//! apart; bollard only builds requests and reads answers. The endpoint names the one authority for the daemon's
//! certificate: the machine's own roots are not used.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bollard::BollardRequest;
use hyper::body::Incoming;
use hyper::header::{HOST, HeaderValue};
use hyper::{Request, Response, Uri};
use hyper_util::rt::TokioIo;
use pcocc_core::named;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::AbortHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};

use super::bounds::{self, Allowance, LastOverrun, Overrun};
use super::endpoint::{Endpoint, TlsFiles};
use super::liveness::{Liveness, Monitored};
use super::ssh::{self, SshWords};
use pcocc_image::{Error, Result};

/// Longest wait for a connection, and longest wait for the TLS handshake.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Closes a connection when its answer is not needed any more, even in the middle of an upload.
struct CloseOnDrop(Option<AbortHandle>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        if let Some(task) = self.0.take() {
            task.abort();
        }
    }
}

/// Opens connections to one endpoint.
pub(super) struct Connector {
    endpoint: Endpoint,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    /// When the daemon gave its last sign of life on any connection.
    pub(super) liveness: Liveness,
    /// The last answer that was too long.
    overrun: LastOverrun,
    ssh_words: SshWords,
    /// Whether the daemon's machine lives, if there is another way to know than its answers.
    lives: Option<Lives>,
}

/// Says whether the machine of a daemon lives. May block.
pub type Lives = Arc<dyn Fn() -> bool + Send + Sync>;

impl Connector {
    /// Reads the endpoint's certificates.
    pub(super) fn new(endpoint: Endpoint, lives: Option<Lives>) -> Result<Self> {
        let tls = match &endpoint {
            Endpoint::Tcp {
                host,
                tls: Some(files),
                ..
            } => {
                let name = ServerName::try_from(host.clone()).map_err(|_| {
                    Error::invalid(format!("docker host {host:?}"), "is no legal host name")
                })?;
                Some((
                    TlsConnector::from(Arc::new(tls_config(files, &endpoint)?)),
                    name,
                ))
            }
            _ => None,
        };
        Ok(Self {
            endpoint,
            tls,
            liveness: Liveness::default(),
            overrun: LastOverrun::default(),
            ssh_words: SshWords::default(),
            lives,
        })
    }

    /// Whether the daemon's machine is known to live: then the daemon is busy, however long it is silent.
    pub(super) async fn lives(&self) -> bool {
        let Some(lives) = self.lives.clone() else {
            return false;
        };
        let lives = tokio::task::spawn_blocking(move || lives()).await;
        let lives = lives.unwrap_or(false);
        tracing::debug!(endpoint = %self.endpoint, lives, "the docker daemon is slow to answer");
        lives
    }

    /// Waits for `future` for `time`, and on as long as the daemon's machine is known to live; `None` after that.
    pub(super) async fn patiently<T>(
        &self,
        time: Duration,
        future: impl Future<Output = T>,
    ) -> Option<T> {
        let mut future = std::pin::pin!(future);
        loop {
            match tokio::time::timeout(time, &mut future).await {
                Ok(answer) => return Some(answer),
                Err(_) if self.lives().await => {}
                Err(_) => return None,
            }
        }
    }

    pub(super) fn unreachable(&self, why: impl Into<String>) -> Error {
        Error::Unreachable {
            endpoint: self.endpoint.to_string(),
            why: why.into(),
        }
    }

    /// Sends one request on a connection of its own. `prefix` goes before the path (the API version).
    pub(super) async fn send(
        &self,
        request: BollardRequest,
        prefix: &str,
    ) -> Result<Response<Incoming>> {
        let most = bounds::of_answer(request.method(), request.uri().path());
        let request = self.origin_form(request, prefix)?;
        let stream = self.connect().await?;
        let allowance = Allowance::new(&self.overrun);
        let monitored = Monitored::new(stream, &self.liveness, &allowance);
        let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
            // The monitor is inside of TLS, whose end may be another program than the daemon.
            .handshake(TokioIo::new(monitored))
            .await
            .map_err(|error| self.broken(&error))?;
        // An attached terminal takes the connection over after the answer.
        let task = tokio::spawn(connection.with_upgrades());
        let mut guard = CloseOnDrop(Some(task.abort_handle()));
        let answer = sender.send_request(request).await;
        guard.0 = None;
        match answer {
            Ok(answer) => {
                allowance.body(answer.status(), most);
                Ok(answer)
            }
            // The request was not sent: the error that ended the connection says why.
            Err(error) if error.is_canceled() => {
                drop(sender);
                match tokio::time::timeout(CONNECT_TIMEOUT, task).await {
                    Ok(Ok(Err(cause))) => Err(self.broken(&cause)),
                    _ => Err(self.broken(&error)),
                }
            }
            Err(error) => Err(self.broken(&error)),
        }
    }

    fn origin_form(&self, request: BollardRequest, prefix: &str) -> Result<BollardRequest> {
        let (mut parts, body) = request.into_parts();
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        parts.uri = format!("{prefix}{path}").parse::<Uri>().map_err(|error| {
            Error::invalid(format!("docker request {path:?}"), error.to_string())
        })?;
        // Go's server refuses requests without a host, or with a path in the host.
        parts
            .headers
            .insert(HOST, HeaderValue::from_static("docker"));
        Ok(Request::from_parts(parts, body))
    }

    async fn connect(&self) -> Result<Box<dyn Stream>> {
        let within = async |future| match self.patiently(CONNECT_TIMEOUT, future).await {
            Some(Ok(stream)) => Ok(stream),
            Some(Err(error)) => Err(self.unreachable(self.explain(&error))),
            None => Err(self.unreachable(format!(
                "did not answer within {} seconds; is its machine up?",
                CONNECT_TIMEOUT.as_secs()
            ))),
        };
        let open: futures_util::future::BoxFuture<'_, io::Result<Box<dyn Stream>>> =
            match &self.endpoint {
                Endpoint::Unix(path) => Box::pin(async move {
                    Ok(Box::new(UnixStream::connect(path).await?) as Box<dyn Stream>)
                }),
                Endpoint::Tcp { host, port, .. } => Box::pin(async move {
                    let stream = TcpStream::connect((host.as_str(), *port)).await?;
                    stream.set_nodelay(true)?;
                    Ok(Box::new(stream) as Box<dyn Stream>)
                }),
                Endpoint::Ssh(host) => Box::pin(async move {
                    Ok(Box::new(ssh::connect(host, &self.ssh_words)?) as Box<dyn Stream>)
                }),
            };
        let stream = within(open).await?;
        match &self.tls {
            None => Ok(stream),
            Some((connector, name)) => {
                within(Box::pin(async move {
                    let stream = connector.connect(name.clone(), stream).await?;
                    Ok(Box::new(stream) as Box<dyn Stream>)
                }))
                .await
            }
        }
    }

    fn explain(&self, error: &io::Error) -> String {
        if let Some(tls) = error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<rustls::Error>())
        {
            return explain_tls(tls);
        }
        match (error.kind(), &self.endpoint) {
            (io::ErrorKind::NotFound, Endpoint::Unix(_)) => {
                "is not there: no such socket; start the daemon, or set DOCKER_HOST".to_owned()
            }
            (io::ErrorKind::NotFound, Endpoint::Ssh(_)) => {
                "is reached by ssh, which is not there; install it".to_owned()
            }
            (io::ErrorKind::PermissionDenied, Endpoint::Unix(_)) => {
                "may not be used by you: permission denied; ask to be put into the group docker"
                    .to_owned()
            }
            (io::ErrorKind::ConnectionRefused, _) => "does not run: connection refused".to_owned(),
            (io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset, _)
                if self.tls.is_some() =>
            {
                "closed the connection during the TLS handshake; does it speak TLS on this port?"
                    .to_owned()
            }
            _ => format!("cannot be reached: {error}"),
        }
    }

    /// A hint for the case that another program answers.
    pub(super) fn tls_hint(&self) -> &'static str {
        match (&self.endpoint, &self.tls) {
            // Go's server answers plain requests on a TLS port with status 400.
            (Endpoint::Tcp { .. }, None) => {
                "; if it expects TLS, set DOCKER_TLS_VERIFY and DOCKER_CERT_PATH"
            }
            _ => "",
        }
    }

    /// The error for a connection that ended before the answer.
    pub(super) fn broken(&self, error: &hyper::Error) -> Error {
        if let Some(overrun) = overrun(error) {
            return self.unreachable(overrun.to_string());
        }
        let cause = root_cause(error);
        if let (Endpoint::Ssh(_), Some(words)) = (&self.endpoint, self.ssh_words.take()) {
            return self.unreachable(format!("broke the connection: {cause}; ssh says: {words}"));
        }
        // In TLS 1.3, a refused client certificate shows only after the handshake.
        if cause.contains("received fatal alert") {
            return self.unreachable(format!("refused our client certificate: {cause}"));
        }
        if error.is_parse() {
            return self.unreachable(format!("does not speak HTTP: {cause}{}", self.tls_hint()));
        }
        self.unreachable(format!("broke the connection: {cause}"))
    }
}

impl Connector {
    /// A connection that ended in the middle of an answer, by the text that bollard makes of it.
    pub(super) fn broken_stream(&self, text: &str) -> Error {
        match self.overrun.take() {
            Some(overrun) => self.unreachable(overrun.to_string()),
            None => self.unreachable(format!("broke the connection: {text}")),
        }
    }
}

/// What is behind an error of a connection that gave too much.
fn overrun(error: &hyper::Error) -> Option<Overrun> {
    let mut next = std::error::Error::source(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return io.get_ref()?.downcast_ref::<Overrun>().copied();
        }
        next = error.source();
    }
    None
}

/// The innermost error of a chain, in words.
pub(super) fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

fn explain_tls(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidCertificate(why) => format!(
            "has a certificate that cannot be trusted: {why}; do the certificates in \
             DOCKER_CERT_PATH belong to this daemon?"
        ),
        rustls::Error::AlertReceived(alert) => {
            format!("refused our client certificate: TLS alert {alert:?}")
        }
        rustls::Error::InvalidMessage(_) => {
            "does not speak TLS on this port; unset DOCKER_TLS_VERIFY if that is intended"
                .to_owned()
        }
        other => format!("failed the TLS handshake: {other}"),
    }
}

/// Most bytes of a file with keys or certificates.
const MAX_PEM: u64 = 4 << 20;

fn tls_config(files: &TlsFiles, endpoint: &Endpoint) -> Result<ClientConfig> {
    let bad = |path: &Path, why: String| Error::invalid(path.display().to_string(), why);
    let read = |path: &Path| {
        named::read(path, MAX_PEM).map_err(|error| Error::Unreachable {
            endpoint: endpoint.to_string(),
            why: format!(
                "is to be reached with TLS, but {} cannot be read ({error}); set DOCKER_CERT_PATH to \
                 the folder that has ca.pem, cert.pem and key.pem, or unset DOCKER_TLS_VERIFY",
                path.display()
            ),
        })
    };
    let certificates = |path: &Path| -> Result<Vec<CertificateDer<'static>>> {
        let certificates = CertificateDer::pem_slice_iter(&read(path)?)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| bad(path, format!("is not a PEM certificate: {error}")))?;
        if certificates.is_empty() {
            return Err(bad(path, "holds no PEM certificate".to_owned()));
        }
        Ok(certificates)
    };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&files.ca)? {
        roots
            .add(certificate)
            .map_err(|error| bad(&files.ca, format!("is not a certificate: {error}")))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| bad(&files.ca, error.to_string()))?
        .with_root_certificates(roots);
    let Some((cert, key)) = &files.client else {
        return Ok(config.with_no_client_auth());
    };
    let private = PrivateKeyDer::from_pem_slice(&read(key)?)
        .map_err(|error| bad(key, format!("is not a PEM private key: {error}")))?;
    config
        .with_client_auth_cert(certificates(cert)?, private)
        .map_err(|error| {
            let why = format!("and {} do not belong together: {error}", key.display());
            bad(cert, why)
        })
}
