//! Sending an image to a registry.
//!
//! A layer is uploaded by one `PATCH`, between the `POST` that opens the upload and the `PUT` that closes it
//! under the digest. The body is read, hashed and sent chunk by chunk; only a few chunks are in memory. Every
//! registry accepts this, because docker and skopeo do the same. When the upload breaks, the registry is asked how much of
//! it has arrived, and the rest follows. The manifest is sent last; to a registry that refuses OCI's, as docker's.

use std::io::{self, Write};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use pcocc_core::progress::BlobKind;
use reqwest::header::{CONTENT_TYPE, HeaderValue, RANGE};
use reqwest::{Method, Response, StatusCode, Url};
use tokio::sync::mpsc;

use super::retries::Retries;
use super::session::Session;
use pcocc_image::meter;
use pcocc_image::oci::{DOCKER_MANIFEST, Image, Layer, OCI_MANIFEST};
use pcocc_image::stream as blob_stream;
use pcocc_image::transfer::{Context, Offer, Receiver};
use pcocc_image::{Error, Result};
use pcocc_layers::{DiffId, Digest};

/// Chunks between the reader and the network.
const CHUNKS: usize = 4;

const TAKE_MANIFEST: &str = "take the manifest";

/// One image on its way into a registry.
pub(super) struct Push {
    session: Arc<Session>,
    tag: String,
    sent: Vec<Layer>,
}

impl Push {
    /// Starts to send the image with the tag `tag`.
    pub(super) fn new(session: Arc<Session>, tag: &str) -> Self {
        Self {
            session,
            tag: tag.to_owned(),
            sent: Vec::new(),
        }
    }

    fn has_blob(&self, digest: Digest) -> Result<bool> {
        let url = self.session.url(&format!("blobs/{digest}"))?;
        let action = "look for a blob";
        let response = self.session.send(&Method::HEAD, &url, &[], None, action)?;
        match response.status() {
            StatusCode::NOT_FOUND => Ok(false),
            _ => self.session.successful(response, action).map(|_| true),
        }
    }

    /// Opens an upload; returns its URL.
    fn begin(&self) -> Result<Url> {
        let url = self.session.url("blobs/uploads/")?;
        let action = "open an upload";
        let response = self
            .session
            .send(&Method::POST, &url, &[], Some(Bytes::new()), action)?;
        let response = self.session.successful(response, action)?;
        self.session.location(&response)
    }

    /// Closes an upload with its last bytes.
    fn end(&self, mut url: Url, digest: Digest, bytes: Bytes) -> Result<()> {
        url.query_pairs_mut()
            .append_pair("digest", &digest.to_string());
        let headers = [(
            CONTENT_TYPE,
            HeaderValue::from_static("application/octet-stream"),
        )];
        let action = "take a blob";
        let response = self
            .session
            .send(&Method::PUT, &url, &headers, Some(bytes), action)?;
        // The first of several tries may have closed it.
        if response.status() == StatusCode::NOT_FOUND && self.has_blob(digest)? {
            return Ok(());
        }
        self.session.successful(response, action).map(drop)
    }

    /// Where a broken upload goes on, and from which byte: a new one from the first where the registry has forgotten it.
    fn resume(&self, url: &Url) -> Result<(Url, u64)> {
        let action = "say how much of an upload has arrived";
        let response = self.session.send(&Method::GET, url, &[], None, action)?;
        // `0-N`, N included; `0-0` is said of no byte as well (OCI distribution spec, "Resuming an upload").
        let range = response
            .headers()
            .get(RANGE)
            .and_then(|value| value.to_str().ok());
        let last = range.and_then(|range| range.rsplit('-').next()?.parse::<u64>().ok());
        match last.filter(|last| response.status().is_success() && *last > 0) {
            Some(last) => Ok((self.session.location(&response)?, last + 1)),
            None => Ok((self.begin()?, 0)),
        }
    }

    /// Uploads a layer; returns digest and size of the sent bytes.
    fn upload(&self, offer: &Offer<'_>, context: &Context) -> Result<(Digest, u64)> {
        let action = "take a blob";
        let mut retries = Retries::default();
        let (mut url, mut at) = (self.begin()?, 0);
        loop {
            let (read, sent) = self.patch(offer, &url, at, context);
            // The reader's error is the cause, unless the end of the request stopped the reader.
            let read = match read {
                Err(Error::Io {
                    action: "write", ..
                }) => None,
                read => Some(read?),
            };
            let (why, pause) = match sent? {
                Ok(response) => match (retries.after_answer(&response), read) {
                    (Some(pause), _) => (format!("answered {}", response.status()), pause),
                    (None, read) => {
                        let response = self.session.successful(response, action)?;
                        let (digest, size) = read.ok_or_else(|| Error::Registry {
                            registry: self.session.host().to_owned(),
                            action: action.to_owned(),
                            message: "it answered before the blob was sent".to_owned(),
                        })?;
                        self.end(self.session.location(&response)?, digest, Bytes::new())?;
                        return Ok((digest, size));
                    }
                },
                Err(error) => match retries.after_error(&error) {
                    Some(pause) => ("broke the connection".to_owned(), pause),
                    None => return Err(self.session.explain(action, &error)),
                },
            };
            self.session.rest(&why, &retries, pause)?;
            (url, at) = self.resume(&url)?;
        }
    }

    /// Sends a layer from byte `at` on; gives what was read of it (all is, to be hashed), and the registry's answer.
    fn patch(
        &self,
        offer: &Offer<'_>,
        url: &Url,
        at: u64,
        context: &Context,
    ) -> (Result<(Digest, u64)>, Result<reqwest::Result<Response>>) {
        let expected = offer.expected();
        let name = expected.map_or("layer".to_owned(), |(digest, _)| digest.to_string());
        let (sender, receiver) = mpsc::channel::<io::Result<Bytes>>(CHUNKS);
        let body = reqwest::Body::wrap_stream(stream::unfold(receiver, |mut receiver| async {
            receiver.recv().await.map(|chunk| (chunk, receiver))
        }));
        std::thread::scope(|scope| {
            let read = scope.spawn(move || {
                let mut writer = Chunks { sender, skip: at };
                let read = (offer.open)().and_then(|mut reader| {
                    blob_stream::copy(&mut reader, &mut writer, &name, expected, context)
                });
                if read.is_err() {
                    // The request must not end as if it were complete.
                    let _ = writer
                        .sender
                        .blocking_send(Err(io::Error::other("given up")));
                }
                read
            });
            let sent = self.session.send_stream(&Method::PATCH, url, body);
            let read = read
                .join()
                .unwrap_or_else(|_| Err(Error::invalid("the layer's reader", "broke down")));
            (read, sent)
        })
    }

    /// Sends a manifest of this media type.
    fn put_manifest(&self, media_type: &'static str, manifest: Vec<u8>) -> Result<Response> {
        let url = self.session.url(&format!("manifests/{}", self.tag))?;
        let headers = [(CONTENT_TYPE, HeaderValue::from_static(media_type))];
        let body = Some(Bytes::from(manifest));
        self.session
            .send(&Method::PUT, &url, &headers, body, TAKE_MANIFEST)
    }
}

impl Receiver for Push {
    fn has_layer(&mut self, diff_id: DiffId) -> Result<bool> {
        Ok(self.sent.iter().any(|layer| layer.diff_id == diff_id))
    }

    fn layer(&mut self, offer: &Offer<'_>, context: &Context) -> Result<Layer> {
        let diff_id = offer.known_diff_id("cannot be sent to a registry")?;
        if let Some(twin) = self.sent.iter().find(|twin| twin.diff_id == diff_id) {
            return Ok(twin.clone());
        }
        blob_stream::check_offer(offer, context)?;
        let present = match offer.blob {
            Some((digest, size)) if self.has_blob(digest)? => Some((digest, size)),
            _ => None,
        };
        let (digest, size) = match present {
            Some((digest, size)) => {
                meter::skipped(&context.progress, BlobKind::Layer, &digest.to_string());
                (digest, size)
            }
            None => self.upload(offer, context)?,
        };
        let layer = Layer {
            digest,
            size,
            compression: offer.compression,
            diff_id,
        };
        self.sent.push(layer.clone());
        Ok(layer)
    }

    fn commit(self: Box<Self>, image: &Image, context: &Context) -> Result<()> {
        if self.has_blob(image.id())? {
            meter::skipped(&context.progress, BlobKind::Config, &image.id().to_string());
        } else {
            let config = Bytes::copy_from_slice(image.config());
            self.end(self.begin()?, image.id(), config)?;
            meter::config_moved(&context.progress, image);
        }
        context
            .progress
            .stage("Writing manifest to image destination");
        let mut response = self.put_manifest(OCI_MANIFEST, image.manifest().to_vec())?;
        if matches!(
            response.status(),
            StatusCode::BAD_REQUEST | StatusCode::UNSUPPORTED_MEDIA_TYPE
        ) && let Some(manifest) = image.docker_manifest()?
        {
            let host = self.session.host();
            context.progress.stage(format!(
                "Registry {host} refuses the OCI manifest; writing docker's (schema 2)"
            ));
            let second = self.put_manifest(DOCKER_MANIFEST, manifest)?;
            // If both are refused, the first refusal is about the manifest that was meant.
            if second.status().is_success() {
                response = second;
            }
        }
        self.session.successful(response, TAKE_MANIFEST).map(drop)
    }
}

/// Cuts the written bytes into chunks for the network, without the first `skip`.
struct Chunks {
    sender: mpsc::Sender<io::Result<Bytes>>,
    skip: u64,
}

impl Write for Chunks {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let skipped = buf
            .len()
            .min(usize::try_from(self.skip).unwrap_or(usize::MAX));
        self.skip -= skipped as u64;
        let rest = buf.get(skipped..).unwrap_or_default();
        if !rest.is_empty() {
            self.sender
                .blocking_send(Ok(Bytes::copy_from_slice(rest)))
                .map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        }
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
