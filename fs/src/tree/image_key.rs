//! Identity of an image in the tree, and the parts of its layout.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use pcocc_image::store::Entry;
use pcocc_layers::Digest;

use crate::attributes::since_1970;
use crate::naming::StoreId;

/// A name, and the image that had the name at the lookup.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ImageKey {
    /// Its store.
    pub store: StoreId,
    /// Its full name there.
    pub name: Arc<str>,
    /// Its ID.
    pub id: Option<Digest>,
    /// When it was made, in seconds since 1970.
    pub created: u64,
}

impl ImageKey {
    /// The key of a listed image.
    pub fn of(store: StoreId, entry: &Entry) -> Self {
        Self {
            store,
            name: entry.name.as_str().into(),
            id: entry.id,
            created: entry
                .created
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| since.as_secs()),
        }
    }

    /// When it was made.
    pub fn date(&self) -> SystemTime {
        since_1970(self.created)
    }
}

/// A file or folder of an image's OCI layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// The folder of the image.
    Top,
    /// `oci-layout`
    Marker,
    /// `blobs`
    Blobs,
    /// `blobs/sha256`
    Sha256,
    /// `blobs/sha256/<hex>`
    Blob(Digest),
    /// `index.json`
    Index,
}

impl Part {
    /// Whether it is a folder.
    pub fn is_folder(self) -> bool {
        matches!(self, Self::Top | Self::Blobs | Self::Sha256)
    }

    /// The part with this name in this folder.
    pub fn child(self, name: &str) -> Option<Self> {
        match (self, name) {
            (Self::Top, "oci-layout") => Some(Self::Marker),
            (Self::Top, "index.json") => Some(Self::Index),
            (Self::Top, "blobs") => Some(Self::Blobs),
            (Self::Blobs, "sha256") => Some(Self::Sha256),
            (Self::Sha256, hex) => Digest::from_hex(hex).ok().map(Self::Blob),
            _ => None,
        }
    }
}
