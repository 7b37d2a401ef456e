//! The image of a container's changes, as a source of a transfer.
//!
//! Phases: the store learns which layers the image begins with → the new layer, made of the changed files alone if
//! possible ([`changes`]) → otherwise docker commits the container, and its VM hands out the new layer, or docker is
//! asked for the image's archive. While the daemon gathers the archive, the source's own
//! layers are offered from their files; of the archive, only new layers are read → the source's config, with
//! the new members.
//!
//! The daemon's word about the source's layers does not matter: they come from their own store.

use super::config::{HistoryEntry, edited};
use super::{EditContainer, NAME, changes};
use crate::docker::client::ImageStore;
use crate::docker::container::Parents;
use crate::docker::guest::{self, Way};
use crate::docker::save::read_archive;
use crate::docker::stream::Arriving;
use pcocc_image::oci::{Image, Layer};
use pcocc_image::transfer::{Context, Layout, Offer, Receiver, Source};
use pcocc_image::{Error, Result};
use pcocc_layers::Compression;
use pcocc_layers::{DiffId, Digest};

/// The result of an edit after the end of its shell.
#[derive(Debug)]
pub struct EditedImage<'a, L> {
    container: &'a EditContainer,
    files: &'a L,
    entry: HistoryEntry,
    way: Way,
}

impl<'a, L: Layout> EditedImage<'a, L> {
    /// The image of the changes of `container` to the image `files`; `entry` is added to the history.
    pub fn new(container: &'a EditContainer, files: &'a L, entry: HistoryEntry) -> Self {
        Self {
            container,
            files,
            entry,
            way: Way::default(),
        }
    }

    /// Offers the source's own layers, from their files.
    fn offer_base(&self, receiver: &mut dyn Receiver, context: &Context) -> Result<Vec<Layer>> {
        let base = &self.container.base;
        let offer = |layer: &Layer, receiver: &mut dyn Receiver| {
            context.check()?;
            receiver.layer(
                &Offer {
                    blob: Some((layer.digest, layer.size)),
                    compression: layer.compression,
                    diff_id: Some(layer.diff_id),
                    size: Some(layer.size),
                    file: self.files.layer_file(layer),
                    is_far: false,
                    open: &|| self.files.open_layer(layer),
                },
                context,
            )
        };
        base.layers()
            .iter()
            .map(|layer| offer(layer, receiver))
            .collect()
    }

    /// The container's new layer, made of its changes alone, if possible.
    fn changed(
        &self,
        receiver: &mut dyn Receiver,
        context: &Context,
    ) -> Result<Option<Vec<Layer>>> {
        let container = self.container;
        let daemon = container.daemon.until(&context.cancel);
        context.progress.stage("Reading what was changed ...");
        let size = daemon.inspect(&container.image_name())?.size;
        let Some(tar) = changes::layer(&daemon, &container.name(), size)? else {
            return Ok(None);
        };
        if tar.is_empty() {
            return Ok(Some(Vec::new()));
        }
        let offer = Offer {
            blob: None,
            compression: Compression::None,
            diff_id: Some(DiffId(Digest::of(&tar))),
            size: Some(tar.len() as u64),
            file: None,
            is_far: false,
            open: &|| Ok(Box::new(tar.as_slice())),
        };
        Ok(Some(vec![receiver.layer(&offer, context)?]))
    }

    /// The container's new layers, out of a commit.
    fn committed(
        &self,
        taken: &mut Option<Vec<Layer>>,
        receiver: &mut dyn Receiver,
        context: &Context,
    ) -> Result<Vec<Layer>> {
        let container = self.container;
        let daemon = container.daemon.until(&context.cancel);
        let tag = container.saved_tag();
        let name = format!("{NAME}:{tag}");
        context.progress.stage("Committing the changes ...");
        // An earlier attempt may have committed as well; its image would lose its only name.
        daemon.forget_image(&name, Parents::Stay)?;
        daemon.commit_container(&container.name(), NAME, &tag)?;
        let inspected = daemon.inspect(&name)?;
        let below = container.base.diff_ids();
        let Some(added) = inspected.diff_ids.strip_prefix(below.as_slice()) else {
            return Err(Error::Daemon {
                action: format!("commit container {}", container.name()),
                message: "it made an image of other layers than the container was of".to_owned(),
            });
        };
        let added = added.to_vec();
        if added.is_empty() {
            return Ok(Vec::new());
        }
        let store = container.image_store(&daemon)?;
        if let Some(service) = self.way.service(&daemon) {
            let mut new = NewLayers {
                receiver,
                known: container.base.layers(),
            };
            let image = guest::send(&daemon, &service, &inspected, store, &mut new, context)?;
            let layers = image.layers().iter().skip(below.len());
            return Ok(layers.cloned().collect());
        }
        // containerd's store gives the platform's manifest only for a named image.
        let wanted = match store {
            ImageStore::GraphDriver => inspected.id.to_string(),
            ImageStore::Containerd => name.clone(),
        };
        context
            .progress
            .stage("Waiting for docker to save the new layer ...");
        let mut stream = Some(Arriving::saved(&daemon, &wanted, &name, &context.cancel)?);
        if taken.is_none() {
            *taken = Some(self.offer_base(receiver, context)?);
        }
        let mut announce = true;
        let image = loop {
            let archive = match stream.take() {
                Some(stream) => stream,
                None => Arriving::saved(&daemon, &wanted, &name, &context.cancel)?,
            };
            let mut new = NewLayers {
                receiver: &mut *receiver,
                known: container.base.layers(),
            };
            match read_archive(archive, &inspected, store, announce, &mut new, context) {
                // As in `save.rs`: the announced diff ID may have been our own mistake.
                Err(Error::Corrupt { expected, .. })
                    if announce && inspected.diff_ids.contains(&DiffId(expected)) =>
                {
                    announce = false;
                }
                outcome => break outcome?,
            }
        };
        let layers = image.layers().iter().skip(below.len());
        Ok(layers.cloned().collect())
    }
}

impl<L: Layout> Source for EditedImage<'_, L> {
    fn send(&self, receiver: &mut dyn Receiver, context: &Context) -> Result<Image> {
        receiver.expect_layers(&self.container.base.diff_ids(), context)?;
        let mut taken = None;
        let added = match self.changed(receiver, context)? {
            Some(added) => added,
            None => self.committed(&mut taken, receiver, context)?,
        };
        let mut layers = match taken {
            Some(taken) => taken,
            None => self.offer_base(receiver, context)?,
        };
        let diff_ids: Vec<_> = added.iter().map(|layer| layer.diff_id).collect();
        layers.extend(added);
        let config = edited(self.container.base.config(), &diff_ids, &self.entry)?;
        Image::assemble(config, layers)
    }

    fn again(&self, error: &Error) -> bool {
        self.way.again(error)
    }
}

/// Passes only layers that the source's image does not have.
struct NewLayers<'a> {
    receiver: &'a mut dyn Receiver,
    known: &'a [Layer],
}

impl Receiver for NewLayers<'_> {
    fn recall(&mut self, _id: Digest) -> Result<Option<Image>> {
        Ok(None)
    }

    fn has_layer(&mut self, diff_id: DiffId) -> Result<bool> {
        Ok(self.known.iter().any(|layer| layer.diff_id == diff_id))
    }

    fn layer(&mut self, offer: &Offer<'_>, context: &Context) -> Result<Layer> {
        // A daemon with containerd's store keeps our blobs, under our digests.
        let known = self.known.iter().find(|layer| {
            Some(layer.diff_id) == offer.diff_id || Some((layer.digest, layer.size)) == offer.blob
        });
        if let Some(layer) = known {
            return Ok(layer.clone());
        }
        self.receiver.layer(offer, context)
    }

    fn commit(self: Box<Self>, _image: &Image, _context: &Context) -> Result<()> {
        Err(Error::invalid(
            "a part of an image",
            "is never published by itself",
        ))
    }
}
