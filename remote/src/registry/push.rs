//! Sending an image to a registry.
//!
//! A layer is uploaded by one `PATCH`, between the `POST` that opens the upload and the `PUT` that closes it
//! under the digest. The body is read, hashed and sent chunk by chunk; only a few chunks are in memory. Every
//! registry accepts this, because docker and skopeo do the same. The manifest is sent last.

use std::io::{self, Write};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use pcocc_core::progress::BlobKind;
use reqwest::header::{CONTENT_TYPE, HeaderValue};
use reqwest::{Method, Response, StatusCode};
use tokio::sync::mpsc;

use super::session::Session;
use pcocc_image::meter;
use pcocc_image::oci::{Image, Layer};
use pcocc_image::stream as blob_stream;
use pcocc_image::transfer::{Context, Offer, Receiver};
use pcocc_image::{Error, Result};
use pcocc_layers::{DiffId, Digest};

/// Chunks between the reader and the network.
const CHUNKS: usize = 4;

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
    fn begin(&self) -> Result<reqwest::Url> {
        let url = self.session.url("blobs/uploads/")?;
        let action = "open an upload";
        let response = self
            .session
            .send(&Method::POST, &url, &[], Some(Bytes::new()), action)?;
        let response = self.session.successful(response, action)?;
        self.session.location(&response)
    }

    /// Closes an upload with its last bytes.
    fn end(&self, mut url: reqwest::Url, digest: Digest, bytes: Bytes) -> Result<()> {
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
        self.session.successful(response, action).map(drop)
    }

    /// Uploads a layer; returns digest and size of the sent bytes.
    fn upload(&self, offer: &Offer<'_>, context: &Context) -> Result<(Digest, u64)> {
        let expected = offer.expected();
        let name = expected.map_or("layer".to_owned(), |(digest, _)| digest.to_string());
        let mut reader = (offer.open)()?;
        let url = self.begin()?;
        let (sender, receiver) = mpsc::channel::<io::Result<Bytes>>(CHUNKS);
        let body = reqwest::Body::wrap_stream(stream::unfold(receiver, |mut receiver| async {
            receiver.recv().await.map(|chunk| (chunk, receiver))
        }));
        let (read, sent) = std::thread::scope(|scope| {
            let read = scope.spawn(move || {
                let mut writer = Chunks(sender);
                let read = blob_stream::copy(&mut reader, &mut writer, &name, expected, context);
                if read.is_err() {
                    // The request must not end as if it were complete.
                    let _ = writer.0.blocking_send(Err(io::Error::other("given up")));
                }
                read
            });
            let sent: Result<Response> =
                self.session
                    .send_stream(&Method::PATCH, &url, body, "take a blob");
            let read = read
                .join()
                .unwrap_or_else(|_| Err(Error::invalid("the layer's reader", "broke down")));
            (read, sent)
        });
        // The reader's error is the cause, unless the end of the request stopped the reader.
        let response = match (read, sent) {
            (Ok(read), Ok(response)) => {
                let response = self.session.successful(response, "take a blob")?;
                (read, response)
            }
            (
                Err(Error::Io {
                    action: "write", ..
                }),
                Ok(response),
            ) => {
                self.session.successful(response, "take a blob")?;
                return Err(Error::Registry {
                    registry: self.session.host().to_owned(),
                    action: "take a blob".to_owned(),
                    message: "it answered before the blob was sent".to_owned(),
                });
            }
            (
                Err(Error::Io {
                    action: "write", ..
                }),
                Err(error),
            ) => return Err(error),
            (Err(error), _) => return Err(error),
            (Ok(_), Err(error)) => return Err(error),
        };
        let ((digest, size), response) = response;
        self.end(self.session.location(&response)?, digest, Bytes::new())?;
        Ok((digest, size))
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
        let url = self.session.url(&format!("manifests/{}", self.tag))?;
        let headers = [(
            CONTENT_TYPE,
            HeaderValue::from_static("application/vnd.oci.image.manifest.v1+json"),
        )];
        let manifest = Bytes::copy_from_slice(image.manifest());
        let action = "take the manifest";
        let response = self
            .session
            .send(&Method::PUT, &url, &headers, Some(manifest), action)?;
        self.session.successful(response, action).map(drop)
    }
}

/// Cuts the written bytes into chunks for the network.
struct Chunks(mpsc::Sender<io::Result<Bytes>>);

impl Write for Chunks {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0
            .blocking_send(Ok(Bytes::copy_from_slice(buf)))
            .map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
