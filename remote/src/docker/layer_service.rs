//! What a docker VM hands out beside docker's API: the config of an image, and single layers.
//!
//! The caller knows how the VM is reached, and implements [`LayerService`]. Nothing that it gives is believed:
//! [`crate::docker::DaemonSource`] verifies every digest.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;

use pcocc_layers::{ChainId, Digest};
use tokio::io::AsyncRead;

/// An answer, in a while. It is awaited on the daemon's own runtime, and dropped when the transfer is given up.
pub type Answer<'a> = Pin<Box<dyn Future<Output = io::Result<Content>> + Send + 'a>>;

/// Bytes of known number.
pub struct Content {
    /// Their number. A stream that ends earlier was cut off.
    pub bytes: u64,
    /// The bytes.
    pub stream: Box<dyn AsyncRead + Send + Unpin>,
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Content({} bytes)", self.bytes)
    }
}

/// Hands out the images of a daemon.
pub trait LayerService: fmt::Debug + Send + Sync {
    /// The config of the image with the ID `id`, verbatim; where a graph driver keeps images.
    fn config(&self, id: Digest) -> Answer<'_>;

    /// The plain tar of the topmost layer of `chain_id`; where a graph driver keeps images.
    fn layer(&self, chain_id: ChainId) -> Answer<'_>;

    /// The blob with this digest, as it is; where containerd keeps images.
    fn blob(&self, digest: Digest) -> Answer<'_>;
}
