//! The one path by which an image moves from a store to a store.
//!
//! Data path: [`copy`] opens the [`Sink`] for one image → the [`Source`] offers its layers to the [`Receiver`]
//! in any order → the receiver skips the layers it has and verifies the others while they stream → the source
//! returns the [`Image`] → [`Receiver::commit`] publishes the image, atomically and last. A receiver that is
//! dropped before its commit leaves the destination as it was.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt as _;

use pcocc_core::cancel::Cancel;
use pcocc_core::progress::Reporter;

use crate::error::{Error, Result};
use crate::oci::{Image, Layer};
use pcocc_layers::Compression;
use pcocc_layers::{DiffId, Digest};

/// What accompanies every transfer.
#[derive(Clone, Debug)]
pub struct Context {
    /// Where progress goes.
    pub progress: Reporter,
    /// Asks the transfer to stop and roll back.
    pub cancel: Cancel,
}

impl Context {
    /// A context that reports nothing and is never cancelled.
    pub fn silent() -> Self {
        Self {
            progress: Reporter::silent(),
            cancel: Cancel::new(),
        }
    }

    /// Fails with [`Error::Cancelled`] once the transfer was asked to stop.
    pub fn check(&self) -> Result<()> {
        if self.cancel.is_cancelled() {
            Err(Error::Cancelled)
        } else {
            Ok(())
        }
    }
}

/// Opens a layer's stream from its first byte.
pub type OpenLayer<'a> = dyn Fn() -> Result<Box<dyn Read + Send + 'a>> + Sync + 'a;

/// A layer on offer.
pub struct Offer<'a> {
    /// Digest and size of the blob as the source stores it; `None` for a plain tar that the receiver may store
    /// in any form.
    pub blob: Option<(Digest, u64)>,
    /// How the stream is compressed.
    pub compression: Compression,
    /// Digest of the plain tar, when the source knows it before sending.
    pub diff_id: Option<DiffId>,
    /// Length of the stream in bytes, when known.
    pub size: Option<u64>,
    /// A local file that is exactly the stream and may be read at any offset or linked.
    pub file: Option<File>,
    /// The stream moves only when it is opened, from another machine: a receiver that has the layer reads its own
    /// copy.
    pub is_far: bool,
    /// Opens the stream; a stream that can only be read once fails the second time.
    pub open: &'a OpenLayer<'a>,
}

impl Offer<'_> {
    /// The digest of the plain tar. Fails when the source does not know it; `cannot` completes the error, such
    /// as "cannot be written to a docker archive".
    pub fn known_diff_id(&self, cannot: &str) -> Result<DiffId> {
        self.diff_id
            .ok_or_else(|| Error::invalid("a layer without a diff ID", cannot))
    }

    /// The digest that names the layer: the blob's, or else the plain tar's.
    pub fn digest(&self) -> Option<Digest> {
        match (self.blob, self.diff_id) {
            (Some((digest, _)), _) | (None, Some(DiffId(digest))) => Some(digest),
            (None, None) => None,
        }
    }

    /// Digest and length that the stream must have, when they are known before reading.
    pub fn expected(&self) -> Option<(Digest, u64)> {
        match (self.blob, self.diff_id, self.compression) {
            (Some(blob), _, _) => Some(blob),
            (None, Some(diff_id), Compression::None) => self.size.map(|size| (diff_id.0, size)),
            _ => None,
        }
    }
}

impl std::fmt::Debug for Offer<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Offer")
            .field("blob", &self.blob)
            .field("compression", &self.compression)
            .field("diff_id", &self.diff_id)
            .field("size", &self.size)
            .field("file", &self.file)
            .field("is_far", &self.is_far)
            .finish_non_exhaustive()
    }
}

/// Where an image comes from.
pub trait Source: Send + Sync {
    /// Offers the image's layers to `receiver`, then returns the image.
    ///
    /// A source that knows the image ID alone asks [`Receiver::recall`] first, and a source that knows the
    /// whole image asks [`Receiver::holds`]. If the store has the image, nothing is sent. Otherwise a source
    /// that knows the image calls [`Receiver::expect`] before the first layer, and one that knows diff IDs calls
    /// [`Receiver::expect_layers`].
    fn send(&self, receiver: &mut dyn Receiver, context: &Context) -> Result<Image>;

    /// Whether to try the transfer again after `error`: the source will send the image in another way. True a
    /// bounded number of times.
    fn again(&self, _error: &Error) -> bool {
        false
    }
}

/// Where an image goes: a store and the name the image shall have there.
pub trait Sink: Send + Sync {
    /// Starts to receive one image. Fails at once when the name is illegal or taken, or when the store cannot
    /// be written.
    fn open(&self, context: &Context) -> Result<Box<dyn Receiver + '_>>;

    /// Whether to try the transfer again after `error`: the sink will take the image in another way. True a
    /// bounded number of times.
    fn again(&self, _error: &Error) -> bool {
        false
    }
}

/// One image on its way into a store. The defaults are those of an empty store.
pub trait Receiver: Send {
    /// The image with this ID (config digest), if the store has it with all its blobs: then nothing needs to be
    /// sent.
    fn recall(&mut self, _id: Digest) -> Result<Option<Image>> {
        Ok(None)
    }

    /// Whether the store has every blob of `image`, so that nothing needs to be sent. Otherwise the receiver
    /// looks for each layer when it is offered.
    fn holds(&mut self, _image: &Image) -> Result<bool> {
        Ok(false)
    }

    /// Learns the whole image before its layers come, from sources that know it. The default ignores it.
    fn expect(&mut self, _image: &Image) -> Result<()> {
        Ok(())
    }

    /// Learns the diff IDs of the image's lowest layers before any layer comes: of all layers, from sources that know
    /// the image. A wrong announcement costs time and does no harm. The default ignores it.
    fn expect_layers(&mut self, _lowest: &[DiffId], _context: &Context) -> Result<()> {
        Ok(())
    }

    /// Whether the store has the plain layer with this diff ID, so that its stream need not be read.
    fn has_layer(&mut self, diff_id: DiffId) -> Result<bool>;

    /// Takes one layer, or skips a layer that the store has; returns the layer as the store keeps it.
    ///
    /// Fails with [`Error::Corrupt`] when the stream differs from the offer.
    fn layer(&mut self, offer: &Offer<'_>, context: &Context) -> Result<Layer>;

    /// Publishes the image under the sink's name. Every layer of `image` was taken before.
    fn commit(self: Box<Self>, image: &Image, context: &Context) -> Result<()>;
}

/// A source that can be read in any order and any number of times: a repository image, an OCI layout folder, an
/// archive, a registry. Every layout is a [`Source`].
pub trait Layout: Send + Sync {
    /// The image, its manifest and config verified.
    fn image(&self, context: &Context) -> Result<Image>;

    /// Opens a layer's blob as stored.
    fn open_layer<'a>(&'a self, layer: &Layer) -> Result<Box<dyn Read + Send + 'a>>;

    /// The local file that is exactly the layer's blob, opened, when there is one.
    fn layer_file(&self, layer: &Layer) -> Option<File>;
}

impl<T: Layout> Source for T {
    fn send(&self, receiver: &mut dyn Receiver, context: &Context) -> Result<Image> {
        let image = self.image(context)?;
        if receiver.holds(&image)? {
            return Ok(image);
        }
        receiver.expect(&image)?;
        receiver.expect_layers(&image.diff_ids(), context)?;
        let mut taken = Vec::new();
        for layer in image.layers() {
            context.check()?;
            let file = self.layer_file(layer);
            taken.push(receiver.layer(
                &Offer {
                    blob: Some((layer.digest, layer.size)),
                    compression: compression_of(self, layer, file.as_ref())?,
                    diff_id: Some(layer.diff_id),
                    size: Some(layer.size),
                    file,
                    is_far: false,
                    open: &|| self.open_layer(layer),
                },
                context,
            )?);
        }
        // The receiver stores a layer in another form: the manifest must say so.
        if taken == image.layers() {
            Ok(image)
        } else {
            Image::assemble(image.config().to_vec(), taken)
        }
    }
}

/// How a layer is compressed. Media types that say something else were left behind by recompression; docker goes by the first
/// bytes, too.
fn compression_of(
    layout: &(impl Layout + ?Sized),
    layer: &Layer,
    file: Option<&File>,
) -> Result<Compression> {
    if layer.digest == layer.diff_id.0 {
        return Ok(Compression::None);
    }
    let mut start = [0; 4];
    let read = match (file, layer.compression) {
        (Some(file), _) => file.read_at(&mut start, 0),
        // A plain tar would have the digest of its blob.
        (None, Compression::None) => layout.open_layer(layer)?.read(&mut start),
        (None, said) => return Ok(said),
    };
    read.map_err(Error::io("read", format!("layer {}", layer.digest)))?;
    Ok(match Compression::sniff(&start) {
        // Whatever it is, it is not what it is said to be: its reader finds out.
        Compression::None => layer.compression,
        found => found,
    })
}

/// Copies the image of `source` to `sink` and returns it as the sink holds it.
pub fn copy(source: &dyn Source, sink: &dyn Sink, context: &Context) -> Result<Image> {
    loop {
        match copy_once(source, sink, context) {
            Err(error) if !context.cancel.is_cancelled() && source.again(&error) => {
                tracing::debug!(%error, "the source sends the image in another way");
            }
            Err(error) if !context.cancel.is_cancelled() && sink.again(&error) => {
                context
                    .progress
                    .stage(format!("Trying again in another way: {error}"));
            }
            outcome => return outcome,
        }
    }
}

fn copy_once(source: &dyn Source, sink: &dyn Sink, context: &Context) -> Result<Image> {
    let mut receiver = sink.open(context)?;
    let image = source.send(&mut *receiver, context)?;
    context.check()?;
    receiver.commit(&image, context)?;
    Ok(image)
}

#[cfg(test)]
mod tests;
