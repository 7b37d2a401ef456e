//! Images of containerd's store: a layout whose blobs are those of the store, in the form in which it keeps them.

use std::fs::File;
use std::io::Read;

use super::vm::{Asked, Vm};
use crate::docker::client::Inspected;
use pcocc_image::oci::{Documents, Image, Layer, MAX_DOCUMENT};
use pcocc_image::transfer::{Context, Layout, Receiver, Source as _};
use pcocc_image::{Error, Result};
use pcocc_layers::Digest;

/// Sends the image that docker described as `inspected`.
pub(super) fn send(
    vm: &Vm<'_>,
    inspected: &Inspected,
    receiver: &mut dyn Receiver,
    context: &Context,
) -> Result<Image> {
    Blobs { vm, inspected }.send(receiver, context)
}

struct Blobs<'a> {
    vm: &'a Vm<'a>,
    inspected: &'a Inspected,
}

impl Documents for Blobs<'_> {
    type Error = Error;

    /// The manifest or index that is the image for docker.
    fn root(&self) -> Result<Vec<u8>> {
        let id = self.inspected.id;
        self.vm.document(Asked::Blob(id), id)
    }

    fn document(&self, digest: Digest, size: u64) -> Result<Vec<u8>> {
        match size > MAX_DOCUMENT {
            true => Err(Error::invalid(
                format!("document {digest}"),
                format!("claims {size} bytes, more than the {MAX_DOCUMENT} allowed"),
            )),
            false => self.vm.document(Asked::Blob(digest), digest),
        }
    }
}

impl Layout for Blobs<'_> {
    fn image(&self, _: &Context) -> Result<Image> {
        let image = Documents::image(self)?;
        tracing::debug!(image = %self.inspected.id, layers = image.layers().len(), "the VM hands out blobs");
        match image.diff_ids() == self.inspected.diff_ids {
            true => Ok(image),
            false => Err(Error::invalid(
                "the image in the VM",
                "has other layers than the daemon said",
            )),
        }
    }

    fn open_layer<'a>(&'a self, layer: &Layer) -> Result<Box<dyn Read + Send + 'a>> {
        Ok(Box::new(self.vm.open(Asked::Blob(layer.digest))?.bytes))
    }

    fn layer_file(&self, _: &Layer) -> Option<File> {
        None
    }
}
