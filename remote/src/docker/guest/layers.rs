//! Reads an image out of a docker VM layer by layer, where the VM has a [`LayerService`].
//!
//! Phases: the config, whose digest must be the image ID → the receiver says which layers it has → the others come, each
//! on a connection of its own, [`AHEAD`] of them at once → the image. Layers that the receiver has do not move.
//!
//! Whatever goes wrong with the service, [`Way`] lets the transfer begin anew, once, with `docker save`.

use std::collections::{HashSet, VecDeque};
use std::io::Read;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::stream::{Stream, try_unfold};
use parking_lot::Mutex;
use pcocc_core::cancel::Cancel;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::sync::oneshot;

use super::client::{Daemon, Inspected};
use super::layer_service::LayerService;
use super::stream::Arriving;
use pcocc_image::oci::{Image, MAX_DOCUMENT, diff_ids};
use pcocc_image::transfer::{Context, Offer, Receiver};
use pcocc_image::{Error, Result};
use pcocc_layers::{ChainId, Compression, Digest};

/// Layers that are on their way at once.
const AHEAD: usize = 3;

/// Bytes that are read at once.
const CHUNK: usize = 128 << 10;

/// By which way a source sends its image.
#[derive(Debug, Default)]
pub(super) struct Way(Mutex<Tried>);

#[derive(Debug, Default, PartialEq, Eq)]
enum Tried {
    #[default]
    Nothing,
    Service,
    Both,
}

impl Way {
    /// The service of `daemon`, if there is one that did not fail.
    pub(super) fn service(&self, daemon: &Daemon) -> Option<Arc<dyn LayerService>> {
        let service = daemon.layer_service()?;
        let mut tried = self.0.lock();
        match *tried {
            Tried::Both => None,
            _ => {
                *tried = Tried::Service;
                Some(Arc::clone(service))
            }
        }
    }

    /// Whether `error` may be the service's fault, so that the other way is left.
    pub(super) fn again(&self, error: &Error) -> bool {
        let mut tried = self.0.lock();
        let left = *tried == Tried::Service
            && matches!(
                error,
                Error::Corrupt { .. }
                    | Error::Invalid { .. }
                    | Error::NotFound(_)
                    | Error::Unreachable { .. }
            );
        if left {
            tracing::debug!(%error, "the VM hands out no layers: `docker save` instead");
            *tried = Tried::Both;
        }
        left
    }
}

/// Sends the image that `daemon` described as `inspected`.
pub(super) fn send(
    daemon: &Daemon,
    service: &Arc<dyn LayerService>,
    inspected: &Inspected,
    receiver: &mut dyn Receiver,
    context: &Context,
) -> Result<Image> {
    let from = Vm {
        daemon: daemon.in_transfer().until(&context.cancel),
        service,
        cancel: &context.cancel,
    };
    let config = from.config(inspected)?;
    let mut missing = VecDeque::new();
    let chain_ids = ChainId::prefixes(&inspected.diff_ids);
    let layers: Vec<_> = inspected.diff_ids.iter().copied().zip(chain_ids).collect();
    let mut seen = HashSet::new();
    for (diff_id, chain_id) in &layers {
        if seen.insert(*diff_id) && !receiver.has_layer(*diff_id)? {
            missing.push_back((*diff_id, *chain_id));
        }
    }
    tracing::debug!(
        image = %inspected.id,
        layers = layers.len(),
        missing = missing.len(),
        "the VM hands out layers"
    );
    let mut coming = VecDeque::new();
    let mut taken = Vec::new();
    for (diff_id, chain_id) in layers {
        context.check()?;
        while coming.len() < AHEAD
            && let Some((diff_id, chain_id)) = missing.pop_front()
        {
            coming.push_back((diff_id, from.open(chain_id)?));
        }
        let opened = match coming.front() {
            Some((next, _)) if *next == diff_id => coming.pop_front(),
            // The receiver has this layer.
            _ => None,
        };
        let (size, opened) = match opened {
            None => (None, None),
            Some((_, mut layer)) => (Some(layer.size(&from.daemon)?), Some(layer.bytes)),
        };
        let opened = Mutex::new(opened);
        let open = || -> Result<Box<dyn Read + Send>> {
            Ok(match opened.lock().take() {
                Some(bytes) => Box::new(bytes),
                None => Box::new(from.open(chain_id)?.bytes),
            })
        };
        let offer = Offer {
            blob: None,
            compression: Compression::None,
            diff_id: Some(diff_id),
            size,
            file: None,
            is_far: true,
            open: &open,
        };
        taken.push(receiver.layer(&offer, context)?);
    }
    Image::assemble(config, taken)
}

/// The VM, in one transfer.
struct Vm<'a> {
    daemon: Daemon,
    service: &'a Arc<dyn LayerService>,
    cancel: &'a Cancel,
}

impl Vm<'_> {
    /// The image's config, which is the one that docker described.
    fn config(&self, inspected: &Inspected) -> Result<Vec<u8>> {
        let what = "image config";
        let config = self.daemon.quick(async {
            let failed = |error| broken(&self.daemon, what, &error);
            let content = self.service.config(inspected.id).await.map_err(failed)?;
            if content.bytes > MAX_DOCUMENT {
                let why = format!(
                    "claims {} bytes, more than the {MAX_DOCUMENT} allowed",
                    content.bytes
                );
                return Err(Error::invalid(what, why));
            }
            let mut config = Vec::new();
            let mut stream = content.stream.take(content.bytes);
            stream.read_to_end(&mut config).await.map_err(failed)?;
            Ok(config)
        })?;
        // A config that was cut off is found out, too.
        let id = Digest::of(&config);
        if id != inspected.id {
            return Err(Error::Corrupt {
                expected: inspected.id,
                found: format!("the config {id}"),
            });
        }
        match diff_ids(&config)? == inspected.diff_ids {
            true => Ok(config),
            false => Err(Error::invalid(
                what,
                "names other layers than the daemon said",
            )),
        }
    }

    /// Has a layer sent.
    fn open(&self, chain_id: ChainId) -> Result<Coming> {
        let (tell, size) = oneshot::channel();
        let unopened = State::Unopened(Arc::clone(self.service), tell);
        let bytes = bytes(unopened, chain_id, self.daemon.clone());
        Ok(Coming {
            size,
            bytes: Arriving::new(&self.daemon, bytes, self.cancel)?,
        })
    }
}

/// A layer that comes.
struct Coming {
    size: oneshot::Receiver<u64>,
    bytes: Arriving,
}

impl Coming {
    /// Waits for the size that is announced.
    fn size(&mut self, daemon: &Daemon) -> Result<u64> {
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
    chain_id: ChainId,
    daemon: Daemon,
) -> impl Stream<Item = Result<Bytes>> + Send + 'static {
    try_unfold(unopened, move |state| {
        let daemon = daemon.clone();
        async move {
            let failed = |error| broken(&daemon, &format!("layer {chain_id}"), &error);
            let (mut stream, left) = match state {
                State::Open(stream, left) => (stream, left),
                State::Unopened(service, tell) => {
                    let content = service.layer(chain_id).await.map_err(failed)?;
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

fn broken(daemon: &Daemon, what: &str, error: &std::io::Error) -> Error {
    Error::Unreachable {
        endpoint: daemon.endpoint().to_string(),
        why: format!("does not hand out {what}: {error}"),
    }
}
