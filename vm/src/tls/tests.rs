//! Both ends of a job's endpoint, as rustls sees them, without a network between.

use std::sync::Arc;

use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{
    self, ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection,
};

use super::*;

const NOW: u64 = 1_795_000_000;

fn now() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

fn job(number: u32, validity: Validity) -> Identities {
    let names = ["node-1".to_owned(), "10.1.2.3".into(), "127.0.0.1".into()];
    Identities::issue(JobId::new(number).unwrap(), &names, validity).unwrap()
}

fn roots(pem: &str) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap())
        .unwrap();
    roots
}

fn pair(cert: &str, key: &str) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    (
        vec![CertificateDer::from_pem_slice(cert.as_bytes()).unwrap()],
        PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
    )
}

/// Lets a client talk to the server of `server`; gives the first error of either side.
fn handshake(
    server: &Identities,
    ca: &str,
    client: Option<&ClientIdentity>,
    name: &str,
) -> Result<(), String> {
    let provider = Arc::new(default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(
        Arc::new(roots(&server.server.ca_pem)),
        Arc::clone(&provider),
    )
    .build()
    .unwrap();
    let (cert, key) = pair(&server.server.cert_pem, &server.server.key_pem);
    let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(cert, key)
        .unwrap();
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots(ca));
    let config = match client {
        Some(client) => {
            let (cert, key) = pair(&client.cert_pem, &client.key_pem);
            config.with_client_auth_cert(cert, key).unwrap()
        }
        None => config.with_no_client_auth(),
    };
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut server = ServerConnection::new(Arc::new(server)).unwrap();
    let show = |error: rustls::Error| error.to_string();
    for _ in 0..8 {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        server.read_tls(&mut bytes.as_slice()).unwrap();
        server.process_new_packets().map_err(show)?;
        let mut bytes = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut bytes).unwrap();
        }
        client.read_tls(&mut bytes.as_slice()).unwrap();
        client.process_new_packets().map_err(show)?;
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    Ok(())
}

#[test]
fn a_jobs_own_client_is_let_in_by_every_name() {
    let job = job(1, Validity::of_job(now(), Some(now() + 60)));
    let ca = job.server.ca_pem.clone();
    for name in ["node-1", "10.1.2.3", "127.0.0.1"] {
        handshake(&job, &ca, Some(&job.client), name).unwrap();
    }
    let error = handshake(&job, &ca, Some(&job.client), "node-2").unwrap_err();
    assert!(error.contains("not valid for name"), "{error}");
}

#[test]
fn nobody_else_is_let_in() {
    let validity = Validity::of_job(now(), None);
    let (job, other) = (job(1, validity), self::job(2, validity));
    let ca = &job.server.ca_pem;
    handshake(&job, ca, None, "node-1").unwrap_err();
    handshake(&job, ca, Some(&other.client), "node-1").unwrap_err();
    // The server's certificate is none for a client.
    let server_as_client = ClientIdentity {
        cert_pem: job.server.cert_pem.clone(),
        key_pem: job.server.key_pem.clone(),
    };
    handshake(&job, ca, Some(&server_as_client), "node-1").unwrap_err();
    // Nor does a client believe another job's server.
    handshake(&other, ca, Some(&job.client), "node-1").unwrap_err();
}

#[test]
fn certificates_end_a_day_after_the_job() {
    let over = Validity {
        from: i64::try_from(now()).unwrap() - 3 * AFTER,
        until: i64::try_from(now()).unwrap() - AFTER,
    };
    let job = job(1, over);
    let error = handshake(&job, &job.server.ca_pem, Some(&job.client), "node-1").unwrap_err();
    assert!(error.contains("xpired"), "{error}");
    let validity = Validity::of_job(NOW, Some(NOW + 60));
    assert_eq!(validity.until, NOW as i64 + 60 + 24 * 3600);
    assert_eq!(validity.from, NOW as i64 - 24 * 3600);
    let passed = Validity::of_job(NOW, Some(NOW - 3600));
    assert!(passed.until > NOW as i64);
}

#[test]
fn an_endpoint_has_all_its_names() {
    let names = |host, address: &str, named| endpoint_names(host, address.parse().unwrap(), named);
    assert_eq!(
        names("n1.site", "10.0.0.1", Some("n1-ib")),
        ["10.0.0.1", "n1-ib", "n1.site", "n1"]
    );
    assert_eq!(
        names("vm", "127.0.0.1", None),
        ["127.0.0.1", "localhost", "::1", "vm"]
    );
}
