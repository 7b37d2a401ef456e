//! Reads an image out of a docker VM piece by piece, where the VM has a [`LayerService`].
//!
//! Phases: the config, or the manifest whose digest is the image ID → the receiver says which layers it has → the others
//! come, each on a connection of its own ([`vm`]). [`layers`] is for graph drivers, which keep unpacked layers; [`blobs`] for
//! containerd's store.
//!
//! Whatever goes wrong with the service, [`Way`] lets the transfer begin anew, once, with `docker save`.

mod blobs;
mod layers;
mod vm;

use std::sync::Arc;

use parking_lot::Mutex;

use super::client::{Daemon, ImageStore, Inspected};
use super::layer_service::LayerService;
use pcocc_image::oci::Image;
use pcocc_image::transfer::{Context, Receiver};
use pcocc_image::{Error, Result};

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
    store: ImageStore,
    receiver: &mut dyn Receiver,
    context: &Context,
) -> Result<Image> {
    let vm = vm::Vm {
        daemon: daemon.in_transfer().until(&context.cancel),
        service,
        cancel: &context.cancel,
    };
    match store {
        ImageStore::GraphDriver => layers::send(&vm, inspected, receiver, context),
        ImageStore::Containerd => blobs::send(&vm, inspected, receiver, context),
    }
}
