//! A registry of a few lines, which says whatever a test wants it to say.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio_rustls::rustls::client::danger::HandshakeSignatureValid;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use tokio_rustls::rustls::{
    self, DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, ServerConnection,
    SignatureScheme, StreamOwned, crypto,
};

/// A request as it came in.
#[derive(Clone, Debug)]
pub(super) struct Request {
    /// `METHOD /path?query`
    pub(super) line: String,
    pub(super) authorization: Option<String>,
    /// The first byte of a `Range`.
    pub(super) range: Option<usize>,
    pub(super) body: Vec<u8>,
}

/// An answer in the making.
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Vec<u8>,
    /// Sends the body again and again without an end.
    pub(super) endless: bool,
    /// Keeps silent after the body.
    pub(super) hang: bool,
}

pub(super) fn reply(status: u16, body: &[u8]) -> Reply {
    Reply {
        status,
        headers: Vec::new(),
        body: body.to_vec(),
        endless: false,
        hang: false,
    }
}

impl Reply {
    pub(super) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

/// A running server and the requests it saw.
pub(super) struct Server {
    pub(super) address: String,
    seen: Arc<Mutex<Vec<Request>>>,
    /// Its own authority, in PEM, when it speaks TLS.
    authority: Option<String>,
    /// The key of its certificate, in PEM.
    client_key: Option<String>,
    shown: Arc<AtomicUsize>,
}

/// Which clients have to show a certificate.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Ask {
    Nobody,
    /// Whoever has one.
    Whoever,
    Everybody,
}

trait Connection: Read + Write + Send {}
impl<T: Read + Write + Send> Connection for T {}

impl Server {
    /// Answers every request by `answer`, until the test process ends.
    pub(super) fn start(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        Self::launch(answer, None)
    }

    /// The same with TLS, by a certificate that is its own authority.
    pub(super) fn start_tls(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_asking(Ask::Nobody, answer)
    }

    /// The same; `ask` says which clients have to show a certificate.
    pub(super) fn start_asking(
        ask: Ask,
        answer: impl Fn(&Request) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let shown = Arc::new(AtomicUsize::new(0));
        let (config, key, pem) = identity(ask, &shown);
        Self {
            client_key: Some(key),
            shown,
            ..Self::launch(answer, Some((config, pem)))
        }
    }

    /// How often a client showed a certificate.
    pub(super) fn certificates(&self) -> usize {
        self.shown.load(Ordering::SeqCst)
    }

    /// Puts a certificate that it admits, and the key, into a folder of authorities.
    pub(super) fn admit(&self, folder: &Path) {
        let own = folder.join(&self.address);
        std::fs::write(own.join("client.cert"), self.authority.as_ref().unwrap()).unwrap();
        std::fs::write(own.join("client.key"), self.client_key.as_ref().unwrap()).unwrap();
    }

    fn launch(
        answer: impl Fn(&Request) -> Reply + Send + Sync + 'static,
        tls: Option<(Arc<ServerConfig>, String)>,
    ) -> Self {
        let (config, authority) = tls.unzip();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&seen);
        let answer = Arc::new(answer);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (noted, answer) = (Arc::clone(&noted), Arc::clone(&answer));
                let stream: Box<dyn Connection> = match &config {
                    None => Box::new(stream),
                    Some(config) => {
                        let tls = ServerConnection::new(Arc::clone(config)).unwrap();
                        Box::new(StreamOwned::new(tls, stream))
                    }
                };
                std::thread::spawn(move || serve(stream, &noted, &*answer));
            }
        });
        Self {
            address,
            seen,
            authority,
            client_key: None,
            shown: Arc::default(),
        }
    }

    /// Its address as the beginning of a URL.
    pub(super) fn origin(&self) -> String {
        let scheme = match self.authority {
            Some(_) => "https",
            None => "http",
        };
        format!("{scheme}://{}", self.address)
    }

    /// Puts its authority into a folder of authorities, for the registry at `address`.
    pub(super) fn trust(&self, folder: &Path, address: &str) {
        let own = folder.join(address);
        std::fs::create_dir_all(&own).unwrap();
        let file = own.join(format!("{}.crt", self.address));
        std::fs::write(file, self.authority.as_ref().unwrap()).unwrap();
    }

    pub(super) fn seen(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }
}

/// A certificate of its own: the server's set-up, the key and the certificate in PEM. It is also what clients show.
fn identity(ask: Ask, shown: &Arc<AtomicUsize>) -> (Arc<ServerConfig>, String, String) {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let mut parameters = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    parameters.is_ca = rcgen::IsCa::NoCa;
    let certificate = parameters.self_signed(&key).unwrap();
    let provider = Arc::new(crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certificate.der().clone()).unwrap();
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let config = match ask {
        Ask::Nobody => config.with_no_client_auth(),
        Ask::Whoever | Ask::Everybody => config.with_client_cert_verifier(Arc::new(Counting {
            verifier: verifier.build().unwrap(),
            mandatory: ask == Ask::Everybody,
            shown: Arc::clone(shown),
        })),
    };
    let private = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = config
        .with_single_cert(vec![certificate.der().clone()], private)
        .unwrap();
    (Arc::new(config), key.serialize_pem(), certificate.pem())
}

/// Counts the certificates that clients show.
#[derive(Debug)]
struct Counting {
    verifier: Arc<dyn ClientCertVerifier>,
    mandatory: bool,
    shown: Arc<AtomicUsize>,
}

impl ClientCertVerifier for Counting {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn verify_client_cert(
        &self,
        own: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.shown.fetch_add(1, Ordering::SeqCst);
        self.verifier.verify_client_cert(own, others, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

/// One request, one answer, then the connection is closed.
fn serve(
    stream: Box<dyn Connection>,
    seen: &Mutex<Vec<Request>>,
    answer: &dyn Fn(&Request) -> Reply,
) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let mut first = String::new();
    reader.read_line(&mut first).ok()?;
    // What TLS clients say first is no line of text.
    let mut words = first.split(' ');
    let line = format!("{} {}", words.next()?, words.next()?);
    let mut request = Request {
        line,
        authorization: None,
        range: None,
        body: Vec::new(),
    };
    let (mut length, mut chunked) = (0, false);
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let Some((name, value)) = header.trim_end().split_once(": ") else {
            break;
        };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().ok()?,
            "transfer-encoding" => chunked = true,
            "range" => {
                let first = value.strip_prefix("bytes=")?.strip_suffix('-')?;
                request.range = Some(first.parse().ok()?);
            }
            "authorization" => request.authorization = Some(value.to_owned()),
            _ => {}
        }
    }
    if chunked {
        loop {
            let mut size = String::new();
            reader.read_line(&mut size).ok()?;
            let size = usize::from_str_radix(size.trim(), 16).ok()?;
            let mut chunk = vec![0; size + 2];
            reader.read_exact(&mut chunk).ok()?;
            request.body.extend_from_slice(&chunk[..size]);
            if size == 0 {
                break;
            }
        }
    } else {
        request.body = vec![0; length];
        reader.read_exact(&mut request.body).ok()?;
    }
    seen.lock().unwrap().push(request.clone());
    let reply = answer(&request);
    let mut head = format!("HTTP/1.1 {} X\r\nconnection: close\r\n", reply.status);
    let has_length = reply
        .headers
        .iter()
        .any(|(name, _)| *name == "content-length");
    for (name, value) in &reply.headers {
        head += &format!("{name}: {value}\r\n");
    }
    if !has_length && !reply.endless {
        head += &format!("content-length: {}\r\n", reply.body.len());
    }
    let stream = reader.get_mut();
    stream.write_all(head.as_bytes()).ok()?;
    stream.write_all(b"\r\n").ok()?;
    loop {
        stream.write_all(&reply.body).ok()?;
        if !reply.endless {
            break;
        }
    }
    if reply.hang {
        std::thread::sleep(std::time::Duration::from_secs(600));
    }
    Some(())
}
