//! The layers of a repository's images by diff ID.

use std::collections::{HashMap, HashSet};

use crate::oci::{Image, Layer};
use pcocc_layers::{DiffId, Digest};

/// The layers of all images that have been read.
#[derive(Debug, Default)]
pub(crate) struct LayerIndex {
    /// Images that were read, by their blobs.
    seen: HashSet<Vec<Digest>>,
    layers: HashMap<DiffId, Layer>,
}

impl LayerIndex {
    /// Notes that the image with these blobs is read; `false` when it was read before.
    pub(crate) fn begin(&mut self, blobs: &[Digest]) -> bool {
        !self.seen.contains(blobs) && self.seen.insert(blobs.to_vec())
    }

    /// Adds the layers of an image; a known layer stays as it is.
    pub(crate) fn add(&mut self, image: &Image) {
        for layer in image.layers() {
            let known = self.layers.entry(layer.diff_id);
            known.or_insert_with(|| layer.clone());
        }
    }

    /// All layers that were added.
    pub(crate) fn layers(&self) -> &HashMap<DiffId, Layer> {
        &self.layers
    }
}
