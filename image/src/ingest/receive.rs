//! One image on its way into a folder of blobs, layer by layer.
//!
//! [`Ingest`] decides for each layer whether the blob is there, whether the stream has to be read, and how the
//! layer is stored; `pass.rs` reads the stream.

use std::collections::HashMap;
use std::io::{Read, Write};

use pcocc_core::beneath::{self, TempFile};
use pcocc_core::progress::BlobKind;

use super::output::Store;
use super::pass::{Pass, Passed};
use super::root::{Base, Root};
use super::{BlobDir, Options, runtime_config};
use crate::error::{Error, Result};
use crate::meter::{self, BlobMeter};
use crate::oci::{Image, Layer};
use crate::stream;
use crate::transfer::{Context, Offer};
use pcocc_layers::squashfs::{self, LayerTree, Toc};
use pcocc_layers::{Compression, DiffId, Digest};

/// A finished root filesystem; deleted when dropped unpublished.
#[derive(Debug)]
pub struct Rootfs {
    /// The file.
    pub file: TempFile,
    /// What it holds.
    pub summary: squashfs::Summary,
    /// Its layers, for other files that begin with them.
    pub toc: Option<Toc>,
}

/// One image on its way into a [`BlobDir`].
pub struct Ingest<'a> {
    dir: &'a dyn BlobDir,
    options: Options,
    root: Option<Root>,
    taken: HashMap<DiffId, Layer>,
}

impl std::fmt::Debug for Ingest<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ingest")
            .field("options", &self.options)
            .field("root", &self.root)
            .field("taken", &self.taken)
            .finish_non_exhaustive()
    }
}

impl<'a> Ingest<'a> {
    /// Starts to receive an image into `dir`. The root filesystem is written to the empty file `rootfs`, if
    /// there is one.
    pub fn new(dir: &'a dyn BlobDir, options: Options, rootfs: Option<TempFile>) -> Result<Self> {
        if options.compression == Compression::Zstd {
            return Err(Error::invalid(
                "layer compression zstd",
                "is not written by pcocc; choose gzip or none",
            ));
        }
        Ok(Self {
            dir,
            options,
            root: rootfs.map(|file| Root::new(file, options.squashfs)),
            taken: HashMap::new(),
        })
    }

    /// Lets the root filesystem begin with those layers of `base` that the image has; `lowest` are the image's lowest
    /// layers, as far as they are known. These layers may be offered or not.
    pub fn begin_on(&mut self, base: Base, lowest: &[DiffId], context: &Context) -> Result<()> {
        match &mut self.root {
            Some(root) => root.begin_on(base, lowest, context),
            None => Ok(()),
        }
    }

    /// Whether the layer is there, so that its plain stream need not be read: the answer of
    /// [`crate::transfer::Receiver::has_layer`].
    pub fn has_layer(&self, diff_id: DiffId) -> Result<bool> {
        Ok(self.known(diff_id)?.is_some())
    }

    /// Whether every blob of `image` is there: the answer of [`crate::transfer::Receiver::holds`].
    pub fn holds(&self, image: &Image) -> Result<bool> {
        for (digest, size) in image.blobs() {
            if self.dir.size_of(digest)? != Some(size) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Takes one layer and returns it as it is stored; the folder has its blob.
    ///
    /// A layer that is there is not read. The exception is a stream that the source can only pass on (no blob
    /// and no file in the offer, and it is not far), if the squashfs needs the layer: then it is verified and not
    /// stored. After an error, the image must not be finished.
    pub fn layer(&mut self, offer: &Offer<'_>, context: &Context) -> Result<Layer> {
        context.check()?;
        self.check_offer(offer)?;
        let name = self.name_of(offer);
        if let Some(layer) = self.known_offer(offer)? {
            meter::skipped(&context.progress, BlobKind::Layer, &name);
            if !self.needs(Some(layer.diff_id)) {
                // Nothing of the stream would be used.
            } else if offer.blob.is_none() && offer.file.is_none() && !offer.is_far {
                let passed = self.pass(offer, &name, Store::Nothing, None, true, context)?;
                self.keep_tree(passed);
            } else {
                self.read_blob(&layer, context)?;
            }
            return Ok(self.take(layer));
        }
        if let Some(layer) = self.present_blob(offer, &name, context)? {
            return Ok(self.take(layer));
        }
        let (store, compression) = match offer.compression {
            // The receiver chooses how a plain stream is stored.
            Compression::None if offer.blob.is_none() => self.wanted(),
            other if self.options.recompress && other != self.options.compression => self.wanted(),
            other => (Store::AsIs, other),
        };
        let meter = BlobMeter::start(&context.progress, BlobKind::Layer, &name, offer.size);
        let to_root = self.needs(offer.diff_id);
        let mut passed = self.pass(offer, &name, store, Some(meter), to_root, context)?;
        let diff_id = passed.diff_id;
        let written = passed.written.take();
        self.keep_tree(passed);
        // A stream without a diff ID is known only after the pass.
        if let Some(layer) = self.known(diff_id)? {
            return Ok(self.take(layer));
        }
        let written = written.ok_or_else(|| Error::NotFound(format!("the stored {name}")))?;
        let layer = Layer {
            digest: written.digest,
            size: written.size,
            compression,
            diff_id,
        };
        self.dir
            .publish(written.temp, written.digest, written.size)?;
        Ok(self.take(layer))
    }

    /// Publishes config and manifest as blobs.
    pub fn documents(&mut self, image: &Image, context: &Context) -> Result<()> {
        let config = image.config();
        if self.has(image.id(), config)? {
            meter::skipped(&context.progress, BlobKind::Config, &image.id().to_string());
        } else {
            self.document(image.id(), config)?;
            meter::config_moved(&context.progress, image);
        }
        self.document(image.manifest_digest(), image.manifest())
    }

    /// Completes the root filesystem, if there is one. Layers that were not offered are read from their blobs.
    pub fn finish(mut self, image: &Image, context: &Context) -> Result<Option<Rootfs>> {
        if let Some(root) = &mut self.root {
            // What comes from another file is there from here on, or is read from the blobs.
            root.writer(&context.progress)?;
        } else {
            return Ok(None);
        }
        context.progress.stage("Generating squashfs image ...");
        let mut trees = Vec::with_capacity(image.layers().len());
        for layer in image.layers() {
            context.check()?;
            let mut tree = self.tree_of(layer.diff_id);
            if tree.is_none() {
                self.read_blob(layer, context)?;
                tree = self.tree_of(layer.diff_id);
            }
            trees.push(tree.ok_or_else(|| Error::NotFound(format!("layer {}", layer.diff_id)))?);
        }
        let Some(root) = self.root else {
            return Ok(None);
        };
        let config = runtime_config(image.config())?;
        let (file, finished) = root.finish(trees, &config, context)?;
        Ok(Some(Rootfs {
            file,
            summary: finished.summary,
            toc: Toc::new(&image.diff_ids(), finished.layers),
        }))
    }

    /// Refuses an offer that contradicts itself, before anything is read.
    fn check_offer(&self, offer: &Offer<'_>) -> Result<()> {
        if let (Compression::None, Some((digest, _)), Some(DiffId(diff_id))) =
            (offer.compression, offer.blob, offer.diff_id)
            && digest != diff_id
        {
            return Err(Error::Corrupt {
                expected: diff_id,
                found: format!("the plain blob {digest}"),
            });
        }
        Ok(())
    }

    fn name_of(&self, offer: &Offer<'_>) -> String {
        offer.digest().map_or_else(
            || format!("layer {}", self.taken.len() + 1),
            |digest| digest.to_string(),
        )
    }

    fn wanted(&self) -> (Store, Compression) {
        match self.options.compression {
            Compression::None => (Store::Plain, Compression::None),
            _ => (Store::Gzip, Compression::Gzip),
        }
    }

    fn known(&self, diff_id: DiffId) -> Result<Option<Layer>> {
        match self.taken.get(&diff_id) {
            Some(layer) => Ok(Some(layer.clone())),
            None => self.dir.known_layer(diff_id),
        }
    }

    fn known_offer(&self, offer: &Offer<'_>) -> Result<Option<Layer>> {
        if let Some(diff_id) = offer.diff_id {
            return self.known(diff_id);
        }
        let Some(blob) = offer.blob else {
            return Ok(None);
        };
        if offer.compression == Compression::None {
            return self.known(DiffId(blob.0));
        }
        let taken = self.taken.values();
        Ok(taken
            .into_iter()
            .find(|layer| (layer.digest, layer.size) == blob)
            .cloned())
    }

    /// The offered blob, if it is there although no image vouches for it: its content is verified.
    fn present_blob(
        &mut self,
        offer: &Offer<'_>,
        name: &str,
        context: &Context,
    ) -> Result<Option<Layer>> {
        let Some((digest, size)) = offer.blob else {
            return Ok(None);
        };
        let kept = !self.options.recompress || offer.compression == self.options.compression;
        if !kept || self.dir.size_of(digest)? != Some(size) {
            return Ok(None);
        }
        // A damaged blob is replaced by the offered one.
        if stream::digest(self.dir.open(digest)?, context)? != digest {
            tracing::warn!(%digest, "a blob is damaged and is replaced");
            return Ok(None);
        }
        let dir = self.dir;
        let present = Offer {
            blob: offer.blob,
            compression: offer.compression,
            diff_id: offer.diff_id,
            size: offer.size,
            file: None,
            is_far: false,
            open: &|| open(dir, digest),
        };
        meter::skipped(&context.progress, BlobKind::Layer, name);
        let to_root = self.needs(offer.diff_id);
        let passed = self.pass(&present, name, Store::Nothing, None, to_root, context)?;
        let diff_id = passed.diff_id;
        self.keep_tree(passed);
        Ok(Some(Layer {
            digest,
            size,
            compression: offer.compression,
            diff_id,
        }))
    }

    /// Feeds the squashfs from the blob of a layer that is there.
    fn read_blob(&mut self, layer: &Layer, context: &Context) -> Result<()> {
        let dir = self.dir;
        let offer = Offer {
            blob: None,
            compression: layer.compression,
            diff_id: Some(layer.diff_id),
            size: Some(layer.size),
            file: None,
            is_far: false,
            open: &|| open(dir, layer.digest),
        };
        let name = layer.digest.to_string();
        let passed = self.pass(&offer, &name, Store::Nothing, None, true, context)?;
        self.keep_tree(passed);
        Ok(())
    }

    /// Whether the squashfs has to read a layer of this diff ID.
    fn needs(&self, diff_id: Option<DiffId>) -> bool {
        let is_copied = |root: &Root| diff_id.is_some_and(|diff_id| root.is_copied(diff_id));
        self.root.as_ref().is_some_and(|root| !is_copied(root))
    }

    fn pass(
        &mut self,
        offer: &Offer<'_>,
        name: &str,
        store: Store,
        meter: Option<BlobMeter>,
        to_root: bool,
        context: &Context,
    ) -> Result<Passed> {
        let squashfs = match &mut self.root {
            Some(root) if to_root => Some(root.writer(&context.progress)?),
            _ => None,
        };
        let pass = Pass {
            dir: self.dir,
            options: &self.options,
            name,
            open: offer.open,
            compression: offer.compression,
            blob: offer.blob,
            size: offer.size,
            diff_id: offer.diff_id,
            store,
            meter,
        };
        pass.run(squashfs, context)
    }

    fn keep_tree(&mut self, passed: Passed) {
        if let (Some(root), Some(tree)) = (&mut self.root, passed.tree) {
            root.keep(passed.diff_id, tree);
        }
    }

    fn tree_of(&mut self, diff_id: DiffId) -> Option<LayerTree> {
        self.root.as_mut()?.take(diff_id)
    }

    fn take(&mut self, layer: Layer) -> Layer {
        self.taken.insert(layer.diff_id, layer.clone());
        layer
    }

    fn document(&self, digest: Digest, content: &[u8]) -> Result<()> {
        if self.has(digest, content)? {
            return Ok(());
        }
        let mut temp = self.dir.temp()?;
        if let Err(error) = temp.as_file_mut().write_all(content) {
            return Err(self.dir.write_failed(&temp.path(), error));
        }
        self.dir.publish(temp, digest, content.len() as u64)
    }

    /// Whether the blob is there with this content.
    fn has(&self, digest: Digest, content: &[u8]) -> Result<bool> {
        let size = content.len() as u64;
        if self.dir.size_of(digest)? != Some(size) {
            return Ok(false);
        }
        let stored = beneath::read(self.dir.open(digest)?, size);
        Ok(stored.is_ok_and(|stored| stored == content))
    }
}

fn open(dir: &dyn BlobDir, digest: Digest) -> Result<Box<dyn Read + Send>> {
    Ok(Box::new(dir.open(digest)?))
}
