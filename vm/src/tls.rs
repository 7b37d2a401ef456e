//! A job's own certificates: one authority for each job, a server and a client signed by it.
//!
//! The authority's key is dropped as soon as both are signed: no further client can ever be added. Keys are
//! ECDSA P-256: made in a millisecond, and known to every TLS 1.2 and 1.3 client.

use std::net::IpAddr;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, string::Ia5String,
};
use time::OffsetDateTime;

use crate::job::{ClientFiles, JobId};
use crate::machine::{ClientIdentity, ServerIdentity};

/// How much earlier than now certificates are valid, in seconds: clocks of nodes differ.
const BEFORE: i64 = 24 * 3600;
/// How much longer than the job they are valid, in seconds.
const AFTER: i64 = 24 * 3600;
/// How long they are valid for a job without an end, in seconds.
const WITHOUT_END: i64 = 366 * 24 * 3600;

/// A certificate could not be made.
#[derive(Debug, thiserror::Error)]
#[error("make a certificate for {name:?}: {why}")]
pub struct TlsError {
    name: String,
    why: String,
}

/// When certificates are valid, in unix seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// From then.
    pub from: i64,
    /// Until then.
    pub until: i64,
}

impl Validity {
    /// For a job that runs from `now` to `deadline`, in unix seconds, with a margin at both ends.
    pub fn of_job(now: u64, deadline: Option<u64>) -> Self {
        let seconds = |time: u64| i64::try_from(time).unwrap_or(i64::MAX / 2);
        let end = match deadline {
            // A deadline that passed by a jump of the clock must not stop a job that still runs.
            Some(deadline) => seconds(deadline.max(now)) + AFTER,
            None => seconds(now) + WITHOUT_END,
        };
        Self {
            from: seconds(now) - BEFORE,
            until: end,
        }
    }
}

/// The certificates by which both ends of a job's docker endpoint know each other. Secret.
#[derive(Clone, Debug)]
pub struct Identities {
    /// The docker endpoint's.
    pub server: ServerIdentity,
    /// Its clients'.
    pub client: ClientIdentity,
}

impl Identities {
    /// Issues the certificates of the job `id`. `names` are all host names and addresses a client may use for the endpoint.
    pub fn issue(id: JobId, names: &[String], validity: Validity) -> Result<Self, TlsError> {
        let failed = |name: &str| {
            let name = name.to_owned();
            move |error: rcgen::Error| TlsError {
                name,
                why: error.to_string(),
            }
        };
        let authority = format!("pcocc job {id}");
        let mut params = params(&authority, validity)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = new_key(&authority)?;
        let certificate = params.self_signed(&key).map_err(failed(&authority))?;
        let issuer = Issuer::new(params, key);
        let signed = |name: &str, usage, names: &[String]| -> Result<(String, String), TlsError> {
            let mut params = self::params(name, validity)?;
            params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
            params.extended_key_usages = vec![usage];
            params.use_authority_key_identifier_extension = true;
            for alternative in names {
                params.subject_alt_names.push(match alternative.parse() {
                    Ok(address) => SanType::IpAddress(address),
                    Err(_) => SanType::DnsName(
                        Ia5String::try_from(alternative.as_str()).map_err(failed(alternative))?,
                    ),
                });
            }
            let key = new_key(name)?;
            let certificate = params.signed_by(&key, &issuer).map_err(failed(name))?;
            Ok((certificate.pem(), key.serialize_pem()))
        };
        let server = signed(
            &format!("pcocc job {id} docker"),
            ExtendedKeyUsagePurpose::ServerAuth,
            names,
        )?;
        let client = signed(
            &format!("pcocc job {id} client"),
            ExtendedKeyUsagePurpose::ClientAuth,
            &[],
        )?;
        Ok(Self {
            server: ServerIdentity {
                ca_pem: certificate.pem(),
                cert_pem: server.0,
                key_pem: server.1,
            },
            client: ClientIdentity {
                cert_pem: client.0,
                key_pem: client.1,
            },
        })
    }

    /// The files docker's client is given.
    pub fn client_files(&self) -> ClientFiles {
        ClientFiles {
            ca: self.server.ca_pem.clone(),
            cert: self.client.cert_pem.clone(),
            key: self.client.key_pem.clone(),
        }
    }
}

/// All names of an endpoint at `address` on the machine `host`: both as they are, the short host name, and those of
/// the loopback when it is there.
pub fn endpoint_names(host: &str, address: IpAddr, named: Option<&str>) -> Vec<String> {
    let mut names = vec![address.to_string()];
    let mut add = |name: &str| {
        if !name.is_empty() && !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
    };
    if let Some(named) = named {
        add(named);
    }
    if address.is_loopback() {
        add("localhost");
        add("127.0.0.1");
        add("::1");
    }
    add(host);
    if let Some((short, _)) = host.split_once('.') {
        add(short);
    }
    names
}

fn new_key(name: &str) -> Result<KeyPair, TlsError> {
    KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(|error| TlsError {
        name: name.to_owned(),
        why: error.to_string(),
    })
}

fn params(name: &str, validity: Validity) -> Result<CertificateParams, TlsError> {
    let date = |seconds: i64| {
        OffsetDateTime::from_unix_timestamp(seconds).map_err(|error| TlsError {
            name: name.to_owned(),
            why: error.to_string(),
        })
    };
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = date(validity.from)?;
    params.not_after = date(validity.until)?;
    Ok(params)
}

#[cfg(test)]
mod tests;
