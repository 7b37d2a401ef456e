//! Receiving an image into a folder of blobs, with its root filesystem as squashfs.
//!
//! Every [`crate::transfer::Receiver`] that writes blobs to disk is an [`Ingest`] and a place to put
//! them, a [`BlobDir`]: the repository, the spool of a daemon's images.
//!
//! Data path of a layer: is it there already, by diff ID or by blob digest? → if not, or if it can only be
//! known by reading: one pass over its stream (`pass.rs`) that hashes it on both sides of the
//! compression, stores it in a temporary file and feeds the squashfs writer → what was found must be
//! what was offered → the file becomes a blob. Blobs without an image do no harm: names are published by
//! the receiver, later. Layers already there are not stored or compressed again; the squashfs reads them
//! from their blob.

mod blob_dir;
mod channel;
mod output;
mod pass;
mod runtime_config;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;

use pcocc_core::progress::BlobKind;
use tempfile::NamedTempFile;

pub use blob_dir::BlobDir;
pub use runtime_config::runtime_config;

use output::Store;
use pass::{Pass, Passed};

use crate::error::{Error, Result};
use crate::meter::{self, BlobMeter};
use crate::oci::{Image, Layer};
use crate::transfer::{Context, Offer};
use pcocc_layers::Compression;
use pcocc_layers::compression::Limits;
use pcocc_layers::squashfs::{self, LayerTree, RootfsWriter};
use pcocc_layers::{DiffId, Digest};

/// How layers are stored.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How plain layers are stored: [`Compression::Gzip`] or [`Compression::None`].
    pub compression: Compression,
    /// Whether layers that come compressed in another way are stored as `compression` says too.
    pub recompress: bool,
    /// Threads that compress, and as many that inflate.
    pub threads: usize,
    /// What a layer may grow to.
    pub limits: Limits,
    /// How the root filesystem is written.
    pub squashfs: squashfs::Options,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            compression: Compression::Gzip,
            recompress: false,
            threads: pcocc_layers::compression::default_threads(),
            limits: Limits::default(),
            squashfs: squashfs::Options::default(),
        }
    }
}

/// A finished root filesystem, not published yet. Dropped, it is gone.
#[derive(Debug)]
pub struct Rootfs {
    /// The file.
    pub file: NamedTempFile,
    /// What it holds.
    pub summary: squashfs::Summary,
}

/// The squashfs file being made, and what is in it so far.
#[derive(Debug)]
struct Root {
    file: NamedTempFile,
    writer: RootfsWriter,
    /// A layer that occurs twice in an image is there twice.
    trees: HashMap<DiffId, Vec<LayerTree>>,
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
    /// Starts to receive an image into `dir`; its root filesystem is written to the empty file
    /// `rootfs` when one is given.
    pub fn new(
        dir: &'a dyn BlobDir,
        options: Options,
        rootfs: Option<NamedTempFile>,
    ) -> Result<Self> {
        if options.compression == Compression::Zstd {
            return Err(Error::invalid(
                "layer compression zstd",
                "is not written by pcocc; choose gzip or none",
            ));
        }
        let root = match rootfs {
            None => None,
            Some(file) => {
                let path = file.path();
                let handle = file.reopen().map_err(Error::io("open", path))?;
                Some(Root {
                    writer: RootfsWriter::create(handle, path, options.squashfs)?,
                    file,
                    trees: HashMap::new(),
                })
            }
        };
        Ok(Self {
            dir,
            options,
            root,
            taken: HashMap::new(),
        })
    }

    /// Whether the layer is there, so that a plain stream of it can go unread: the answer of
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

    /// Takes one layer and returns it as it is stored. Its blob was handed to the folder when this returns.
    ///
    /// A layer that is there already is not read, unless it is a stream the source can only pass on
    /// (neither blob nor file in the offer): then it is verified and not stored. An image whose layers
    /// failed is not to be finished.
    pub fn layer(&mut self, offer: &Offer<'_>, context: &Context) -> Result<Layer> {
        context.check()?;
        self.check_offer(offer)?;
        let name = self.name_of(offer);
        if let Some(layer) = self.known_offer(offer)? {
            meter::skipped(&context.progress, BlobKind::Layer, &name);
            if offer.blob.is_none() && offer.file.is_none() {
                let passed = self.pass(offer, &name, Store::Nothing, None, context)?;
                self.keep_tree(passed);
            } else if self.root.is_some() {
                self.read_own(&layer, context)?;
            }
            return Ok(self.take(layer));
        }
        if let Some(layer) = self.present_blob(offer, &name, context)? {
            return Ok(self.take(layer));
        }
        let (store, compression) = match offer.compression {
            // How a plain stream is stored is for us to choose.
            Compression::None if offer.blob.is_none() => self.wanted(),
            other if self.options.recompress && other != self.options.compression => self.wanted(),
            other => (Store::AsIs, other),
        };
        let meter = BlobMeter::start(&context.progress, BlobKind::Layer, &name, offer.size);
        let mut passed = self.pass(offer, &name, store, Some(meter), context)?;
        let diff_id = passed.diff_id;
        let written = passed.written.take();
        self.keep_tree(passed);
        // Only now is it known which layer a stream without a diff ID was.
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
        if self.dir.size_of(image.id())? == Some(config.len() as u64) {
            meter::skipped(&context.progress, BlobKind::Config, &image.id().to_string());
        } else {
            self.document(image.id(), config)?;
            meter::config_moved(&context.progress, image);
        }
        self.document(image.manifest_digest(), image.manifest())
    }

    /// Completes the root filesystem, when one is being made. Layers that were not offered are read
    /// from the blobs already there.
    pub fn finish(mut self, image: &Image, context: &Context) -> Result<Option<Rootfs>> {
        if self.root.is_none() {
            return Ok(None);
        }
        context.progress.stage("Generating squashfs image ...");
        let mut trees = Vec::with_capacity(image.layers().len());
        for layer in image.layers() {
            context.check()?;
            let mut tree = self.tree_of(layer.diff_id);
            if tree.is_none() {
                self.read_own(layer, context)?;
                tree = self.tree_of(layer.diff_id);
            }
            trees.push(tree.ok_or_else(|| Error::NotFound(format!("layer {}", layer.diff_id)))?);
        }
        let Some(Root { file, writer, .. }) = self.root else {
            return Ok(None);
        };
        let config = runtime_config(image.config())?;
        let summary = writer.finish(trees, &config, &context.cancel)?;
        Ok(Some(Rootfs { file, summary }))
    }

    /// Refuses what contradicts itself before anything is read.
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

    /// The offered blob when it is there although no image vouches for it: what it holds is verified.
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
        let path = self.dir.path_of(digest);
        let own = Offer {
            blob: offer.blob,
            compression: offer.compression,
            diff_id: offer.diff_id,
            size: offer.size,
            file: None,
            open: &|| {
                Ok(Box::new(
                    File::open(&path).map_err(Error::io("open", &path))?,
                ))
            },
        };
        meter::skipped(&context.progress, BlobKind::Layer, name);
        let passed = self.pass(&own, name, Store::Nothing, None, context)?;
        let diff_id = passed.diff_id;
        self.keep_tree(passed);
        Ok(Some(Layer {
            digest,
            size,
            compression: offer.compression,
            diff_id,
        }))
    }

    /// Feeds the squashfs from a layer's own blob.
    fn read_own(&mut self, layer: &Layer, context: &Context) -> Result<()> {
        let path = self.dir.path_of(layer.digest);
        let offer = Offer {
            blob: None,
            compression: layer.compression,
            diff_id: Some(layer.diff_id),
            size: Some(layer.size),
            file: None,
            open: &|| {
                Ok(Box::new(
                    File::open(&path).map_err(Error::io("open", &path))?,
                ))
            },
        };
        let name = layer.digest.to_string();
        let passed = self.pass(&offer, &name, Store::Nothing, None, context)?;
        self.keep_tree(passed);
        Ok(())
    }

    fn pass(
        &mut self,
        offer: &Offer<'_>,
        name: &str,
        store: Store,
        meter: Option<BlobMeter>,
        context: &Context,
    ) -> Result<Passed> {
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
        pass.run(self.root.as_mut().map(|root| &mut root.writer), context)
    }

    fn keep_tree(&mut self, passed: Passed) {
        if let (Some(root), Some(tree)) = (&mut self.root, passed.tree) {
            root.trees.entry(passed.diff_id).or_default().push(tree);
        }
    }

    fn tree_of(&mut self, diff_id: DiffId) -> Option<LayerTree> {
        self.root.as_mut()?.trees.get_mut(&diff_id)?.pop()
    }

    fn take(&mut self, layer: Layer) -> Layer {
        self.taken.insert(layer.diff_id, layer.clone());
        layer
    }

    fn document(&self, digest: Digest, content: &[u8]) -> Result<()> {
        let size = content.len() as u64;
        if self.dir.size_of(digest)? == Some(size) {
            return Ok(());
        }
        let mut temp = self.dir.temp()?;
        if let Err(error) = temp.as_file_mut().write_all(content) {
            return Err(self.dir.write_failed(temp.path(), error));
        }
        self.dir.publish(temp, digest, size)
    }
}
