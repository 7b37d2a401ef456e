//! Puts an image into a daemon: an archive for `docker load`, made while it is sent.
//!
//! Phases: find the layers that the daemon has → stream each other layer into the archive, verified on the way
//! → write config, manifest and names → read the daemon's answer to its end → check that the name stands for
//! the image. A mismatch breaks the request off, and the daemon loads nothing.
//!
//! The archive is an OCI layout and a docker archive at once: every daemon accepts this form. A graph driver
//! gets plain layers, which are the least work for it, without the layers that it has by chain ID. containerd's
//! store gets the blobs unchanged, so that the image keeps its ID. The final name is in the archive: the daemon
//! sets the name last, in one step, and a killed transfer leaves nothing behind.

mod layers;

use std::collections::HashSet;
use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use pcocc_core::progress::BlobKind;

use super::client::{Daemon, ImageStore};
use super::layer_stream::LayerStream;
use super::stream::LoadStream;
use pcocc_image::layout::{MARKER, MARKER_NAME};
use pcocc_image::meter;
use pcocc_image::oci::{Image, Layer};
use pcocc_image::reference::DockerReference;
use pcocc_image::transfer::{Context, Offer, Receiver, Sink};
use pcocc_image::{Error, Result};
use pcocc_layers::{ChainId, DiffId, Digest};

/// A name in a daemon as a sink. An existing name moves to the new image, as in `docker load`;
/// [`DaemonSink::only_new`] forbids that.
#[derive(Debug)]
pub struct DaemonSink {
    daemon: Daemon,
    reference: DockerReference,
    /// Fail when the name is taken.
    only_new: bool,
    /// Send all layers: the daemon has refused an archive without the layers it has.
    full: AtomicBool,
    /// Count the bytes of every plain layer beforehand: a cheap guess was wrong.
    exact: AtomicBool,
    /// One of the two has just been set.
    retry: AtomicBool,
}

impl DaemonSink {
    /// A sink for the image `name`; the tag `latest` is implied.
    ///
    /// Fails with [`Error::Invalid`] when docker does not accept the name.
    pub fn new(daemon: Daemon, name: &str) -> Result<Self> {
        let reference: DockerReference = name.parse()?;
        if reference.tag().is_none() || reference.digest().is_some() {
            return Err(Error::invalid(
                format!("image name {name:?}"),
                "has a digest; an image is loaded under NAME[:TAG]",
            ));
        }
        Ok(Self {
            // Requests during the transfer are part of it: a loss of the daemon ends all of it.
            daemon: daemon.in_transfer(),
            reference,
            only_new: false,
            full: AtomicBool::new(false),
            exact: AtomicBool::new(false),
            retry: AtomicBool::new(false),
        })
    }

    /// Fails with [`Error::Exists`] when the name is taken before the end of the transfer.
    ///
    /// Docker has no conditional tagging. A program that takes the name between the last check, after all
    /// layers, and the end of the request still loses the name.
    #[must_use]
    pub fn only_new(mut self) -> Self {
        self.only_new = true;
        self
    }

    /// The image that has the name; fails when the name is taken and must be free.
    fn holder(&self, asking: &Daemon, name: &str) -> Result<Option<Digest>> {
        match asking.inspect(name) {
            Ok(_) if self.only_new => {
                Err(Error::Exists(format!("image {name} in the docker daemon")))
            }
            Ok(image) => Ok(Some(image.id)),
            Err(Error::NotFound(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Sink for DaemonSink {
    fn open(&self, context: &Context) -> Result<Box<dyn Receiver + '_>> {
        context.check()?;
        // Before the first byte is sent, a cancelled transfer waits for no request.
        let asking = self.daemon.until(&context.cancel);
        let store = asking.info()?.image_store;
        let name = self.reference.to_string();
        let before = self.holder(&asking, &name)?;
        Ok(Box::new(Load {
            sink: self,
            asking,
            name,
            store,
            before,
            held: None,
            left_out: HashSet::new(),
            stream: None,
            sent: Vec::new(),
            blobs: 0,
        }))
    }

    fn again(&self, _error: &Error) -> bool {
        self.retry.swap(false, Ordering::AcqRel)
    }
}

struct Load<'a> {
    sink: &'a DaemonSink,
    /// The daemon, for requests that a cancelled transfer does not wait for.
    asking: Daemon,
    name: String,
    store: ImageStore,
    /// The image that had the name before.
    before: Option<Digest>,
    /// ID of an image that the daemon already has.
    held: Option<Digest>,
    left_out: HashSet<DiffId>,
    stream: Option<LoadStream>,
    /// The layers in the archive, in their sent form.
    sent: Vec<Sent>,
    blobs: u64,
}

struct Sent {
    path: String,
    layer: Layer,
}

impl Receiver for Load<'_> {
    fn recall(&mut self, _id: Digest) -> Result<Option<Image>> {
        // A daemon gives an image's config only in an archive.
        Ok(None)
    }

    fn holds(&mut self, image: &Image) -> Result<bool> {
        if self.store != ImageStore::GraphDriver {
            return Ok(false);
        }
        match self.asking.inspect(&image.id().to_string()) {
            Ok(found) if found.id == image.id() => {
                self.held = Some(found.id);
                Ok(true)
            }
            Ok(_) | Err(Error::NotFound(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn expect(&mut self, image: &Image) -> Result<()> {
        if self.store == ImageStore::GraphDriver && !self.sink.full.load(Ordering::Acquire) {
            let present = self.asking.chain_ids()?;
            let diff_ids = image.diff_ids();
            let below = ChainId::prefixes(&diff_ids)
                .iter()
                .rposition(|chain_id| present.contains(chain_id))
                .map_or(0, |top| top + 1);
            let (there, needed) = diff_ids.split_at(below);
            self.left_out = there
                .iter()
                .filter(|diff_id| !needed.contains(diff_id))
                .copied()
                .collect();
        }
        Ok(())
    }

    fn has_layer(&mut self, diff_id: DiffId) -> Result<bool> {
        Ok(self.left_out.contains(&diff_id))
    }

    fn layer(&mut self, offer: &Offer<'_>, context: &Context) -> Result<Layer> {
        context.check()?;
        let sent_before = self.sent.iter().find(|sent| match offer.blob {
            Some((digest, _)) if self.store == ImageStore::Containerd => {
                sent.layer.digest == digest
            }
            _ => offer.diff_id == Some(sent.layer.diff_id),
        });
        let known = sent_before.map(|sent| sent.layer.diff_id).or_else(|| {
            offer
                .diff_id
                .filter(|diff_id| self.left_out.contains(diff_id))
        });
        if let Some(diff_id) = known {
            let (digest, size) = offer.blob.unwrap_or((diff_id.0, offer.size.unwrap_or(0)));
            meter::skipped(&context.progress, BlobKind::Layer, &digest.to_string());
            return Ok(Layer {
                digest,
                size,
                compression: offer.compression,
                diff_id,
            });
        }
        self.blobs += 1;
        let source = LayerStream::new((offer.open)()?, offer, self.blobs, context);
        let taken = match self.store {
            ImageStore::GraphDriver => self.plain_layer(offer, source, context),
            ImageStore::Containerd => self.stored_layer(offer, source, context),
        };
        taken.map_err(|error| {
            self.give_up();
            layers::blame(error, offer)
        })
    }

    fn commit(mut self: Box<Self>, image: &Image, context: &Context) -> Result<()> {
        context.check()?;
        if self.sink.only_new {
            // The name is in the archive's end, which is not sent yet.
            self.sink.holder(&self.asking, &self.name)?;
        }
        let committed = match self.held {
            Some(id) => {
                context
                    .progress
                    .stage("Writing manifest to image destination");
                self.sink.daemon.tag(
                    &id.to_string(),
                    &self.sink.reference.familiar_name(),
                    self.sink.reference.tag().unwrap_or("latest"),
                )
            }
            None => self.finish(image, context),
        };
        let committed = committed.and_then(|()| self.verify(image));
        self.sink.daemon.changed();
        match &committed {
            Ok(()) => {}
            Err(Error::Cancelled | Error::Unreachable { .. }) => {}
            Err(_) => {
                self.restore_name();
                if !self.left_out.is_empty() && !self.sink.full.swap(true, Ordering::AcqRel) {
                    self.sink.retry.store(true, Ordering::Release);
                }
            }
        }
        committed
    }
}

impl Load<'_> {
    /// Completes the archive and waits for the daemon.
    fn finish(&mut self, image: &Image, context: &Context) -> Result<()> {
        let mut paths = Vec::new();
        let mut layers = Vec::new();
        for layer in image.layers() {
            match self.sent.iter().find(|s| s.layer.diff_id == layer.diff_id) {
                Some(sent) => {
                    paths.push(sent.path.clone());
                    layers.push(sent.layer.clone());
                }
                // The daemon finds this layer by its chain ID, not in the archive.
                None if self.left_out.contains(&layer.diff_id) => {
                    paths.push(blob_path(layer.diff_id.0));
                    layers.push(layer.clone());
                }
                None => {
                    return Err(Error::NotFound(format!("layer {}", layer.digest)));
                }
            }
        }
        // For a graph driver, the manifest lists the layers as they are in the archive. A store whose image ID
        // depends on the manifest gets the image's own.
        let packed = match self.store {
            ImageStore::Containerd if image.layers() == layers => image.clone(),
            _ => Image::assemble(image.config().to_vec(), layers)?,
        };
        let config = blob_path(packed.id());
        self.document(&config, packed.config(), context)?;
        self.document(
            &blob_path(packed.manifest_digest()),
            packed.manifest(),
            context,
        )?;
        self.document("index.json", &self.index(&packed)?, context)?;
        self.document(MARKER_NAME, MARKER, context)?;
        let manifest = serde_json::json!([{
            "Config": config,
            "RepoTags": [self.name],
            "Layers": paths,
        }]);
        self.document("manifest.json", manifest.to_string().as_bytes(), context)?;
        self.write(&[0; 1024], context)?;
        // The daemon unpacks only now, with no other sign than its answer.
        context.progress.stage("Docker unpacks the layers");
        match self.stream.take() {
            Some(stream) => stream.finish(),
            None => Ok(()),
        }
    }

    /// The index with the image's name, for containerd's store, which does not read `manifest.json` beside an
    /// OCI layout.
    fn index(&self, image: &Image) -> Result<Vec<u8>> {
        let malformed = |error: serde_json::Error| Error::invalid("image index", error.to_string());
        let tag = self.sink.reference.tag();
        let mut index: serde_json::Value =
            serde_json::from_slice(&image.index(tag)?).map_err(malformed)?;
        if let Some(annotations) = index.pointer_mut("/manifests/0/annotations") {
            annotations["io.containerd.image.name"] = self.sink.reference.canonical().into();
        }
        serde_json::to_vec(&index).map_err(malformed)
    }

    fn verify(&self, image: &Image) -> Result<()> {
        let found = self.sink.daemon.inspect(&self.name)?;
        let right = match self.store {
            ImageStore::GraphDriver => found.id == image.id(),
            // The ID may be the digest of an index that the daemon made around the manifest.
            ImageStore::Containerd => found.diff_ids == image.diff_ids(),
        };
        if right {
            Ok(())
        } else {
            Err(Error::Daemon {
                action: format!("load image {}", self.name),
                message: format!(
                    "it took the archive without an error, but the name now stands for {}",
                    found.id
                ),
            })
        }
    }

    /// Gives the name back to its image, after a failed load moved it.
    fn restore_name(&self) {
        let daemon = &self.sink.daemon;
        let Ok(now) = daemon.inspect(&self.name) else {
            return;
        };
        let restored = match self.before {
            Some(before) if before == now.id => return,
            Some(before) => daemon.tag(
                &before.to_string(),
                &self.sink.reference.familiar_name(),
                self.sink.reference.tag().unwrap_or("latest"),
            ),
            None => daemon.remove(&self.name),
        };
        if let Err(error) = restored {
            tracing::warn!(%error, name = self.name, "cannot undo a failed load");
        }
    }

    fn begin(&mut self, path: &str, size: u64, context: &Context) -> Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_path(path).map_err(Error::io("pack", path))?;
        header.set_size(size);
        header.set_mode(0o644);
        header.set_entry_type(tar::EntryType::Regular);
        header.set_cksum();
        self.write(header.as_bytes(), context)
    }

    fn document(&mut self, path: &str, data: &[u8], context: &Context) -> Result<()> {
        self.begin(path, data.len() as u64, context)?;
        self.write(data, context)?;
        self.pad(data.len() as u64, context)
    }

    fn pad(&mut self, size: u64, context: &Context) -> Result<()> {
        let padding = [0; 512];
        let missing = usize::try_from((512 - size % 512) % 512).unwrap_or(0);
        self.write(padding.get(..missing).unwrap_or_default(), context)
    }

    /// Copies at most `limit` bytes into the archive.
    fn copy(&mut self, source: &mut dyn Read, limit: u64, context: &Context) -> Result<u64> {
        let mut limited = source.take(limit);
        let mut chunk = vec![0; 256 << 10];
        let mut copied = 0;
        loop {
            context.check()?;
            let n = match limited.read(&mut chunk) {
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    self.give_up();
                    return Err(Error::io("read", "layer")(error));
                }
            };
            let Some(data) = chunk.get(..n).filter(|data| !data.is_empty()) else {
                return Ok(copied);
            };
            self.write(data, context)?;
            copied += n as u64;
        }
    }

    fn write(&mut self, data: &[u8], context: &Context) -> Result<()> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            empty => {
                let opened = LoadStream::open(&self.sink.daemon, &self.name, &context.cancel)?;
                empty.insert(opened)
            }
        };
        let Err(broken) = stream.write_all(data) else {
            return Ok(());
        };
        match self.stream.take().map(LoadStream::outcome) {
            Some(Err(error)) => Err(error),
            _ => Err(Error::Daemon {
                action: format!("load image {}", self.name),
                message: format!("it stopped reading: {broken}"),
            }),
        }
    }

    /// Breaks the request off.
    fn give_up(&mut self) {
        self.stream = None;
    }
}

fn blob_path(digest: Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}
