//! The docker endpoint: TLS with client certificates, in front of dockerd's unix socket and of the agent's
//! own services.
//!
//! Data path of a connection: TCP → rustls, which refuses clients of another authority → by ALPN either
//! dockerd's socket or a [`Service`] → bytes both ways until both ends are closed. One side's end is passed
//! on as such (`close_notify`, `shutdown`) while the other side goes on: `docker run` depends on it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use pcocc_guest::layers::Take;
use pcocc_guest::protocol::{ALPN_SERVICE, Adopt, ENDPOINT_PORT, Service, ServiceAnswer};
use tokio::io::{
    AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional_with_sizes,
};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{self, RootCertStore, ServerConfig};

use crate::content::{self, Content};
use crate::daemons::DOCKER_SOCKET;
use crate::reaper::Reaper;
use crate::{Failure, say, shell};

/// Bytes on their way, each direction.
const BUFFER: usize = 128 << 10;
/// How long a client may take for its handshake, and for its question.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a client waits for a dockerd that is starting again.
const RESTART: Duration = Duration::from_secs(60);
/// Longest line that asks for a service.
const MAX_QUESTION: u64 = 64 << 10;

/// Opens the endpoint with the job's identity.
pub(crate) async fn open(adopt: &Adopt, reaper: &Reaper) -> Result<(), Failure> {
    let acceptor = TlsAcceptor::from(Arc::new(configuration(adopt)?));
    let listener = TcpListener::bind(("0.0.0.0", ENDPOINT_PORT))
        .await
        .map_err(Failure::of("open the docker endpoint"))?;
    let reaper = reaper.clone();
    tokio::spawn(async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let (acceptor, reaper) = (acceptor.clone(), reaper.clone());
                    tokio::spawn(async move {
                        // Only a client that broke off or was refused needs to know.
                        let _ = serve(stream, &acceptor, &reaper).await;
                    });
                }
                Err(error) => {
                    say(&format!("failed to accept a connection: {error}"));
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    });
    Ok(())
}

/// TLS 1.2 and up, only for clients of the job's authority.
fn configuration(adopt: &Adopt) -> Result<ServerConfig, Failure> {
    let failed = "use the endpoint's certificates";
    let certificates = |pem: &str| {
        CertificateDer::pem_slice_iter(pem.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(Failure::of(failed))
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&adopt.ca_pem)? {
        roots.add(certificate).map_err(Failure::of(failed))?;
    }
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .build()
            .map_err(Failure::of(failed))?;
    let key =
        PrivateKeyDer::from_pem_slice(adopt.key_pem.as_bytes()).map_err(Failure::of(failed))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(Failure::of(failed))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(certificates(&adopt.cert_pem)?, key)
        .map_err(Failure::of(failed))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec(), ALPN_SERVICE.to_vec()];
    Ok(config)
}

async fn serve(stream: TcpStream, acceptor: &TlsAcceptor, reaper: &Reaper) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = tokio::time::timeout(PATIENCE, acceptor.accept(stream)).await??;
    if stream.get_ref().1.alpn_protocol() == Some(ALPN_SERVICE) {
        return serve_agent(stream, reaper).await;
    }
    let begun = tokio::time::Instant::now();
    let mut docker = loop {
        match UnixStream::connect(DOCKER_SOCKET).await {
            Ok(docker) => break docker,
            Err(error) if begun.elapsed() > RESTART => return Err(error),
            Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    };
    copy_bidirectional_with_sizes(&mut stream, &mut docker, BUFFER, BUFFER).await?;
    Ok(())
}

async fn serve_agent<S>(mut stream: S, reaper: &Reaper) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let question = tokio::time::timeout(PATIENCE, read_line(&mut stream)).await??;
    let service = match serde_json::from_slice(&question) {
        Ok(service) => service,
        Err(error) => {
            return refuse(&mut stream, format!("does not know this service: {error}")).await;
        }
    };
    match service {
        Service::Connect { port } => {
            let mut target = match TcpStream::connect(("127.0.0.1", port)).await {
                Ok(target) => target,
                Err(error) => {
                    return refuse(
                        &mut stream,
                        format!("cannot reach its port {port}: {error}"),
                    )
                    .await;
                }
            };
            target.set_nodelay(true)?;
            answer(&mut stream, &ServiceAnswer::Ok).await?;
            copy_bidirectional_with_sizes(&mut stream, &mut target, BUFFER, BUFFER).await?;
        }
        Service::Shell {
            term,
            rows,
            columns,
            command,
        } => match shell::open(&term, rows, columns, command.as_deref(), reaper) {
            Ok((mut terminal, started)) => {
                answer(&mut stream, &ServiceAnswer::Ok).await?;
                let copied =
                    copy_bidirectional_with_sizes(&mut stream, &mut terminal, BUFFER, BUFFER).await;
                // The shell of a client that has gone ends as with a closed terminal.
                started.kill(rustix::process::Signal::HUP);
                copied?;
            }
            Err(error) => return refuse(&mut stream, error.to_string()).await,
        },
        Service::Image { id } => send(&mut stream, content::config(id).await).await?,
        Service::Blob { digest } => send(&mut stream, content::blob(digest).await).await?,
        Service::Layer { chain_id } => {
            send(&mut stream, content::layer(chain_id, Take::All).await).await?;
        }
        Service::Entries { chain_id } => {
            send(&mut stream, content::layer(chain_id, Take::Entries).await).await?;
        }
        Service::File {
            chain_id,
            path,
            offset,
            length,
        } => {
            let file = content::file(chain_id, path, offset, length).await;
            send(&mut stream, file).await?;
        }
    }
    Ok(())
}

/// Sends content, or why there is none.
async fn send<S>(stream: &mut S, content: Result<Content, String>) -> io::Result<()>
where
    S: AsyncWrite + Unpin,
{
    let mut content = match content {
        Ok(content) => content,
        Err(why) => return refuse(stream, why).await,
    };
    let bytes = content.bytes;
    answer(stream, &ServiceAnswer::Content { bytes }).await?;
    while let Some(chunk) = content.chunks.recv().await {
        stream.write_all(&chunk).await?;
    }
    match content.sent.await? {
        Ok(()) => stream.shutdown().await,
        // The client sees an end too early.
        Err(error) => {
            say(&format!("docker's files: {error}"));
            Ok(())
        }
    }
}

/// Reads a line byte by byte: the bytes behind it are the service's.
async fn read_line<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    loop {
        match stream.read_u8().await? {
            b'\n' => return Ok(line),
            _ if line.len() as u64 > MAX_QUESTION => return Err(io::ErrorKind::InvalidData.into()),
            byte => line.push(byte),
        }
    }
}

async fn refuse<S: AsyncWrite + Unpin>(stream: &mut S, why: String) -> io::Result<()> {
    answer(stream, &ServiceAnswer::Refused(why)).await?;
    stream.shutdown().await
}

async fn answer<S: AsyncWrite + Unpin>(stream: &mut S, answer: &ServiceAnswer) -> io::Result<()> {
    let mut line = serde_json::to_vec(answer)?;
    line.push(b'\n');
    stream.write_all(&line).await?;
    stream.flush().await
}
