//! What a VM is asked for in one transfer, and how it comes.

use std::fmt;
use std::io::Read as _;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::stream::{Stream, try_unfold};
use pcocc_core::cancel::Cancel;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::sync::oneshot;

use crate::docker::client::Daemon;
use crate::docker::layer_service::{Answer, LayerService};
use crate::docker::stream::Arriving;
use pcocc_image::oci::MAX_DOCUMENT;
use pcocc_image::{Error, Result};
use pcocc_layers::{ChainId, Digest};

/// Bytes that are read at once.
const CHUNK: usize = 128 << 10;

/// The VM, in one transfer.
pub(super) struct Vm<'a> {
    pub(super) daemon: Daemon,
    pub(super) service: &'a Arc<dyn LayerService>,
    pub(super) cancel: &'a Cancel,
}

/// What the VM is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Asked {
    Config(Digest),
    Layer(ChainId),
    Blob(Digest),
}

impl Asked {
    fn of(self, service: &dyn LayerService) -> Answer<'_> {
        match self {
            Self::Config(id) => service.config(id),
            Self::Layer(chain_id) => service.layer(chain_id),
            Self::Blob(digest) => service.blob(digest),
        }
    }
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(id) => write!(f, "the config of image {id}"),
            Self::Layer(chain_id) => write!(f, "layer {chain_id}"),
            Self::Blob(digest) => write!(f, "blob {digest}"),
        }
    }
}

impl Vm<'_> {
    /// A document, whose digest must be `expected`.
    pub(super) fn document(&self, asked: Asked, expected: Digest) -> Result<Vec<u8>> {
        let document = self.daemon.quick(async {
            let failed = |error| broken(&self.daemon, asked, &error);
            let content = asked.of(&**self.service).await.map_err(failed)?;
            if content.bytes > MAX_DOCUMENT {
                return Err(Error::invalid(
                    asked.to_string(),
                    format!(
                        "claims {} bytes, more than the {MAX_DOCUMENT} allowed",
                        content.bytes
                    ),
                ));
            }
            let mut document = Vec::new();
            let mut stream = content.stream.take(content.bytes);
            stream.read_to_end(&mut document).await.map_err(failed)?;
            Ok(document)
        })?;
        // A document that was cut off is found out, too.
        let found = Digest::of(&document);
        match found == expected {
            true => Ok(document),
            false => Err(Error::Corrupt {
                expected,
                found: found.to_string(),
            }),
        }
    }

    /// Has a layer sent.
    pub(super) fn open(&self, asked: Asked) -> Result<Coming> {
        let (tell, size) = oneshot::channel();
        let unopened = State::Unopened(Arc::clone(self.service), tell);
        let bytes = bytes(unopened, asked, self.daemon.clone());
        Ok(Coming {
            size,
            bytes: Arriving::new(&self.daemon, bytes, self.cancel)?,
        })
    }
}

/// A layer that comes.
pub(super) struct Coming {
    size: oneshot::Receiver<u64>,
    pub(super) bytes: Arriving,
}

impl Coming {
    /// Waits for the size that is announced.
    pub(super) fn size(&mut self, daemon: &Daemon) -> Result<u64> {
        let size = &mut self.size;
        match daemon.runtime()?.block_on(size) {
            Ok(size) => Ok(size),
            // There is a reason instead of the first bytes.
            Err(_) => Err(match self.bytes.read(&mut [0]) {
                Err(error) => Error::io("read", "a layer")(error),
                Ok(_) => Error::invalid("a layer", "comes without its size"),
            }),
        }
    }
}

enum State {
    Unopened(Arc<dyn LayerService>, oneshot::Sender<u64>),
    Open(Box<dyn AsyncRead + Send + Unpin>, u64),
}

/// The bytes of a layer. Its size is told as soon as it is known; an end before that size is an error.
fn bytes(
    unopened: State,
    asked: Asked,
    daemon: Daemon,
) -> impl Stream<Item = Result<Bytes>> + Send + 'static {
    try_unfold(unopened, move |state| {
        let daemon = daemon.clone();
        async move {
            let failed = |error| broken(&daemon, asked, &error);
            let (mut stream, left) = match state {
                State::Open(stream, left) => (stream, left),
                State::Unopened(service, tell) => {
                    let content = asked.of(&*service).await.map_err(failed)?;
                    // Nobody waits for the size of a layer that is opened late.
                    let _ = tell.send(content.bytes);
                    (content.stream, content.bytes)
                }
            };
            if left == 0 {
                return Ok(None);
            }
            let mut chunk = BytesMut::with_capacity(CHUNK);
            let mut bounded = (&mut stream).take(left);
            match bounded.read_buf(&mut chunk).await.map_err(failed)? {
                0 => Err(failed(std::io::ErrorKind::UnexpectedEof.into())),
                read => {
                    let left = left.saturating_sub(read as u64);
                    Ok(Some((chunk.freeze(), State::Open(stream, left))))
                }
            }
        }
    })
}

fn broken(daemon: &Daemon, asked: Asked, error: &std::io::Error) -> Error {
    Error::Unreachable {
        endpoint: daemon.endpoint().to_string(),
        why: format!("does not hand out {asked}: {error}"),
    }
}
