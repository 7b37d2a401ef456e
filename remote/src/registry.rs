//! Images of a registry (`docker://[HOST[:PORT]/]PATH[:TAG|@DIGEST]`; OCI distribution spec 1.1).
//!
//! Reading: `GET manifests/TAG` → through an index or manifest list to this machine's platform → manifest and
//! config, verified → each layer streamed from `GET blobs/DIGEST`, verified by the receiver. Writing: `HEAD`
//! each blob, upload the missing blobs while they are read, `PUT` the manifest last.
//!
//! reqwest speaks HTTP on a runtime of this module's own, behind a blocking interface. The crate oci-client was
//! tried: it reads manifests and error pages of any size into memory, sends identity tokens as bearer tokens,
//! and cannot be interrupted. Memory here holds only documents up to [`pcocc_image::oci::MAX_DOCUMENT`] and a
//! few chunks of a layer.

mod authorities;
mod challenge;
mod credentials;
mod failure;
mod plain;
mod push;
mod redirects;
mod retries;
mod rules;
mod session;
pub mod testing;

use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use parking_lot::Mutex;
use reqwest::header::{ACCEPT, HeaderValue, RANGE};
use reqwest::{Method, Response, StatusCode, Url};

pub use credentials::CredentialFile;
use pcocc_image::oci::{Documents, Image, Layer, Platform};
use pcocc_image::reference::DockerReference;
use pcocc_image::stream;
use pcocc_image::transfer::{Context, Layout, Receiver, Sink};
use pcocc_image::{Error, Result};
use pcocc_layers::Digest;
use retries::Retries;
pub use rules::RulesFile;
use rules::{Place, Rules};
use session::Session;

/// The accepted manifest types: all that [`pcocc_image::oci`] reads, and schema 1 for a better error message.
const MANIFEST_TYPES: &str = "application/vnd.oci.image.manifest.v1+json, \
     application/vnd.oci.image.index.v1+json, \
     application/vnd.docker.distribution.manifest.v2+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, \
     application/vnd.docker.distribution.manifest.v1+prettyjws;q=0.1";

/// Access to registries.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// Registry for references without a host; Docker Hub when `None`.
    pub default_registry: Option<String>,
    /// Registries (`host` or `host:port`) that may be reached over HTTP or unverified TLS.
    pub insecure_registries: Vec<String>,
    /// Folders with certificate authorities of registries, as `HOST[:PORT]/*.crt`, beside the machine's own.
    pub certificate_folders: Vec<PathBuf>,
    /// Podman's `registries.conf` files; of a later one the rules come first.
    pub rules: Vec<RulesFile>,
    /// Files with credentials; the first that has some for a registry counts.
    pub credentials: Vec<CredentialFile>,
}

/// One image of a registry; reads as a [`Layout`], writes as a [`Sink`].
#[derive(Debug)]
pub struct RegistryImage {
    reference: DockerReference,
    /// Registry host and port, as the user knows it.
    host: String,
    access: Access,
    machine: Platform,
    session: Mutex<Option<Arc<Session>>>,
}

impl RegistryImage {
    /// The image whose reference follows `docker://`. Nothing is sent yet.
    pub fn new(reference: &str, access: Access) -> Result<Self> {
        let parsed: DockerReference = reference.parse()?;
        let explicit = parsed.has_registry()
            || reference.starts_with("docker.io/")
            || reference.starts_with("index.docker.io/");
        let host = match &access.default_registry {
            Some(registry) if !explicit => registry.trim_end_matches('/').to_owned(),
            _ => parsed.domain().to_owned(),
        };
        Ok(Self {
            reference: parsed,
            host,
            access,
            machine: Platform::host(),
            session: Mutex::new(None),
        })
    }

    /// The same, for another machine than this one.
    #[must_use]
    pub fn for_machine(self, machine: Platform) -> Self {
        Self { machine, ..self }
    }

    /// The whole name, with the registry.
    pub fn name(&self) -> String {
        let tag = match (self.reference.digest(), self.reference.tag()) {
            (Some(digest), _) => format!("@{digest}"),
            (None, tag) => format!(":{}", tag.unwrap_or("latest")),
        };
        format!("{}/{}{tag}", self.host, self.reference.path())
    }

    /// The connection for a read. Made when it is first used.
    fn session_to_read(&self, context: &Context) -> Result<Arc<Session>> {
        if let Some(session) = &*self.session.lock() {
            return Ok(Arc::clone(session));
        }
        self.find(context).map(|(session, _)| session)
    }

    /// Connects to the first place that has the image; gives the document that the image's name stands for as well.
    fn find(&self, context: &Context) -> Result<(Arc<Session>, Vec<u8>)> {
        let rules = Rules::parse(&self.access.rules)?;
        let by_digest = self.reference.digest().is_some();
        let mut places = rules
            .to_read(&self.host, self.reference.path(), by_digest)?
            .into_iter();
        loop {
            let place = places
                .next()
                .unwrap_or_else(|| Place::of(&self.host, self.reference.path()));
            let found = self.connect(&place, false, context).and_then(|session| {
                let root = self.root_of(&session)?;
                Ok((Arc::new(session), root))
            });
            match found {
                Err(error) if places.len() > 0 && !matches!(error, Error::Cancelled) => {
                    tracing::debug!(host = place.host, %error, "the mirror is passed over");
                }
                found => {
                    let (session, root) = found?;
                    *self.session.lock() = Some(Arc::clone(&session));
                    return Ok((session, root));
                }
            }
        }
    }

    /// The connection for a write.
    fn session_to_write(&self, context: &Context) -> Result<Arc<Session>> {
        let rules = Rules::parse(&self.access.rules)?;
        let place = rules.to_write(&self.host, self.reference.path())?;
        self.connect(&place, true, context).map(Arc::new)
    }

    fn connect(&self, place: &Place, push: bool, context: &Context) -> Result<Session> {
        let mut access = self.access.clone();
        if place.insecure {
            access.insecure_registries.push(place.host.clone());
        }
        Session::connect(&place.host, &place.path, push, &access, context)
    }

    /// The manifest or index that the image's name stands for.
    fn root_of(&self, session: &Session) -> Result<Vec<u8>> {
        let known = self.reference.digest();
        let name = match (known, self.reference.tag()) {
            (Some(digest), _) => digest.to_string(),
            (None, tag) => tag.unwrap_or("latest").to_owned(),
        };
        self.manifest(session, &name, known)
    }

    /// Fetches a manifest or index by tag or digest; verified if a digest is known.
    fn manifest(&self, session: &Session, what: &str, known: Option<Digest>) -> Result<Vec<u8>> {
        let accept = [(ACCEPT, HeaderValue::from_static(MANIFEST_TYPES))];
        let action = "get the manifest";
        let url = session.url(&format!("manifests/{what}"))?;
        let response = session.send(&Method::GET, &url, &accept, None, action)?;
        if response.status() == StatusCode::NOT_FOUND {
            return Err(Error::NotFound(format!("docker://{}", self.name())));
        }
        let response = session.successful(response, action)?;
        let promised = match response.headers().get("docker-content-digest") {
            // Other algorithms cannot be compared.
            Some(value) if value.as_bytes().starts_with(b"sha256:") => {
                Some(String::from_utf8_lossy(value.as_bytes()).parse()?)
            }
            _ => None,
        };
        let bytes = session.document(response, "image manifest")?;
        let found = Digest::of(&bytes);
        match known.or(promised) {
            // The digest of a schema 1 manifest leaves its signatures out; nothing is read of it but that it is one.
            Some(expected) if expected != found && !(known.is_none() && is_schema_1(&bytes)) => {
                Err(Error::Corrupt {
                    expected,
                    found: found.to_string(),
                })
            }
            _ => Ok(bytes),
        }
    }
}

/// Whether a manifest says that it is of docker's old schema, which is refused by that name.
fn is_schema_1(manifest: &[u8]) -> bool {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Version {
        schema_version: u64,
    }
    serde_json::from_slice(manifest).is_ok_and(|Version { schema_version }| schema_version == 1)
}

/// The documents of an image, as the registry sends them.
struct RegistryDocuments<'a> {
    image: &'a RegistryImage,
    session: Arc<Session>,
    root: Vec<u8>,
}

impl Documents for RegistryDocuments<'_> {
    type Error = Error;

    fn machine(&self) -> Platform {
        self.image.machine.clone()
    }

    fn root(&self) -> Result<Vec<u8>> {
        Ok(self.root.clone())
    }

    fn document(&self, digest: Digest, size: u64) -> Result<Vec<u8>> {
        stream::document(get_blob(&self.session, digest, Some(size))?, digest, size)
    }

    fn manifest(&self, digest: Digest, _size: u64) -> Result<Vec<u8>> {
        self.image
            .manifest(&self.session, &digest.to_string(), Some(digest))
    }
}

impl Layout for RegistryImage {
    fn image(&self, context: &Context) -> Result<Image> {
        let (session, root) = self.find(context)?;
        let image = self;
        let documents = RegistryDocuments {
            image,
            session,
            root,
        };
        documents.image()
    }

    fn open_layer<'a>(&'a self, layer: &Layer) -> Result<Box<dyn Read + Send + 'a>> {
        let session = self.session_to_read(&Context::silent())?;
        Ok(Box::new(get_blob(
            &session,
            layer.digest,
            Some(layer.size),
        )?))
    }

    fn layer_file(&self, _layer: &Layer) -> Option<std::fs::File> {
        None
    }
}

impl Sink for RegistryImage {
    fn open(&self, context: &Context) -> Result<Box<dyn Receiver + '_>> {
        let Some(tag) = self.reference.tag() else {
            return Err(Error::invalid(
                format!("image name {}", self.name()),
                "has a digest, which follows from the image; give it a tag instead",
            ));
        };
        let session = self.session_to_write(context)?;
        Ok(Box::new(push::Push::new(session, tag)))
    }
}

/// Starts to download a blob.
fn get_blob(session: &Arc<Session>, digest: Digest, size: Option<u64>) -> Result<BlobReader> {
    let url = session.url(&format!("blobs/{digest}"))?;
    let response = request_blob(session, &url, digest, 0)?;
    if let (Some(size), Some(promised)) = (size, response.content_length())
        && size != promised
    {
        return Err(Error::Corrupt {
            expected: digest,
            found: format!("{promised} bytes instead of {size}"),
        });
    }
    Ok(BlobReader {
        session: Arc::clone(session),
        url,
        digest,
        response,
        retries: Retries::default(),
        chunk: Bytes::new(),
        at: 0,
        skip: 0,
    })
}

/// Asks for a blob from byte `at` on.
fn request_blob(session: &Session, url: &Url, digest: Digest, at: u64) -> Result<Response> {
    let action = "get a blob";
    let range = HeaderValue::from_str(&format!("bytes={at}-")).ok();
    let headers: Vec<_> = range
        .filter(|_| at > 0)
        .map(|range| (RANGE, range))
        .into_iter()
        .collect();
    let response = session.send(&Method::GET, url, &headers, None, action)?;
    if response.status() == StatusCode::NOT_FOUND {
        return Err(Error::NotFound(format!(
            "blob {digest} of the image in registry {}",
            session.host()
        )));
    }
    session.successful(response, action)
}

/// A blob that arrives. When its connection breaks, another one goes on from the same byte.
struct BlobReader {
    session: Arc<Session>,
    url: Url,
    digest: Digest,
    response: Response,
    retries: Retries,
    chunk: Bytes,
    /// Bytes that have arrived.
    at: u64,
    /// Bytes that a server without ranges sends once more.
    skip: u64,
}

impl BlobReader {
    /// The next bytes; empty at the end.
    fn next(&mut self) -> Result<Bytes> {
        loop {
            let response = &mut self.response;
            match self.session.attempt(|| response.chunk())? {
                Ok(chunk) => {
                    let mut chunk = chunk.unwrap_or_default();
                    let again = chunk
                        .len()
                        .min(usize::try_from(self.skip).unwrap_or(usize::MAX));
                    chunk.advance(again);
                    self.skip -= again as u64;
                    self.at += chunk.len() as u64;
                    if !chunk.is_empty() || again == 0 {
                        return Ok(chunk);
                    }
                }
                Err(error) => {
                    let Some(pause) = self.retries.after_error(&error) else {
                        return Err(self.session.explain("send a blob", &error));
                    };
                    let broken = format!("broke the connection at byte {}", self.at);
                    self.session.rest(&broken, &self.retries, pause)?;
                    self.response = request_blob(&self.session, &self.url, self.digest, self.at)?;
                    // A server may ignore ranges (RFC 9110 §14.2).
                    let is_rest = self.response.status() == StatusCode::PARTIAL_CONTENT;
                    self.skip = if is_rest { 0 } else { self.at };
                }
            }
        }
    }
}

impl Read for BlobReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.chunk.is_empty() {
            self.chunk = self.next()?;
        }
        let n = buf.len().min(self.chunk.len());
        if let (Some(to), Some(from)) = (buf.get_mut(..n), self.chunk.get(..n)) {
            to.copy_from_slice(from);
        }
        self.chunk.advance(n);
        Ok(n)
    }
}

#[cfg(test)]
mod tests;
