//! The table of contents of a squashfs file of ours: its layers, each with its names and its content's place.
//!
//! A squashfs file alone has the layers merged. With the table, another file takes over the layers that both
//! images have ([`super::base`]).
//!
//! Format, integers little-endian; a number before a list is its length:
//!
//! ```text
//! "pcocc squashfs toc 1\n", SHA-256 of what follows, one zstd frame of:
//! u32 layers, lowest first: 32 bytes diff ID, u32 length, layer
//! layer:  u64 start, u64 length, 32 bytes SHA-256 of the stored content in the squashfs file
//!         u64 bytes, u64 entries, u64 bytes of names, u64 dropped attributes: what counts against limits
//!         u32 files with blocks: u64 start within the content, u32 place of the first size
//!         u32 sizes: u32; u32 fragment blocks: u64 start within the content, u32 stored size
//!         u32 sets of attributes: u16 attributes: u16 name, u32 value
//!         u32 nodes (`tree.rs`)
//! ```
//!
//! Nothing in a table is believed unchecked: a hostile one gives errors, never a panic or an unbounded
//! allocation. Versions are told apart by the first line alone; an unknown one is no table.

mod bytes;
mod layer;
mod tree;

use self::bytes::{Input, put_u32};
use super::LayerTree;
use super::pipeline::Written;
use super::tables::XattrSets;
use crate::error::{Error, Result};
use crate::{DiffId, Digest};

pub(super) use self::layer::Recorded;

/// First bytes of a table.
const MAGIC: &[u8] = b"pcocc squashfs toc 1\n";
/// Length of a SHA-256 digest.
const DIGEST: usize = 32;
/// Longest table before compression: enough for two million files.
const MAX_PLAIN: u64 = 256 << 20;
/// As in squashfs metadata: small, and written once.
const LEVEL: i32 = 1;

/// The error for a table that breaks the format.
fn broken(why: impl Into<String>) -> Error {
    Error::invalid("table of contents", why)
}

/// One layer in a table of contents, encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerToc(Vec<u8>);

impl LayerToc {
    /// Encodes a layer whose content is in the file; `None` when no region has its content.
    pub(super) fn encode(layer: &LayerTree, written: &Written, xattrs: &XattrSets) -> Option<Self> {
        let region = written.regions.get(layer.region)?;
        Some(Self(layer::encode(layer, region, written, xattrs)))
    }

    /// Decodes and checks the layer.
    pub(super) fn decode(&self) -> Result<Recorded> {
        layer::decode(&self.0)
    }
}

/// The table of contents of one squashfs file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Toc {
    layers: Vec<(DiffId, LayerToc)>,
}

impl Toc {
    /// Longest encoded table that is worth reading.
    pub const MAX_BYTES: u64 = 64 << 20;

    /// Makes the table of a file that was made of layers with these diff IDs; `None` when they are not as many.
    pub fn new(diff_ids: &[DiffId], layers: Vec<LayerToc>) -> Option<Self> {
        let is_whole = diff_ids.len() == layers.len();
        is_whole.then(|| Self {
            layers: diff_ids.iter().copied().zip(layers).collect(),
        })
    }

    /// The diff IDs of the layers, lowest first.
    pub fn diff_ids(&self) -> impl Iterator<Item = DiffId> + '_ {
        self.layers.iter().map(|(diff_id, _)| *diff_id)
    }

    /// The layers, lowest first.
    pub(super) fn layers(&self) -> &[(DiffId, LayerToc)] {
        &self.layers
    }

    /// Encodes the table; `None` when it is too long to be read again.
    pub fn encode(&self) -> Option<Vec<u8>> {
        let mut plain = Vec::new();
        put_u32(&mut plain, u32::try_from(self.layers.len()).ok()?);
        for (diff_id, LayerToc(layer)) in &self.layers {
            plain.extend(diff_id.0.as_bytes());
            put_u32(&mut plain, u32::try_from(layer.len()).ok()?);
            plain.extend(layer);
        }
        if plain.len() as u64 > MAX_PLAIN {
            return None;
        }
        let frame = zstd::bulk::compress(&plain, LEVEL).ok()?;
        let encoded = [MAGIC, Digest::of(&frame).as_bytes(), &frame].concat();
        (encoded.len() as u64 <= Self::MAX_BYTES).then_some(encoded)
    }

    /// Decodes a table, but not yet its layers.
    pub fn decode(encoded: &[u8]) -> Result<Self> {
        let Some(rest) = encoded.strip_prefix(MAGIC) else {
            return Err(broken("is of another version"));
        };
        let (digest, frame) = rest
            .split_at_checked(DIGEST)
            .ok_or_else(|| broken("is cut off"))?;
        if Digest::of(frame).as_bytes() != digest {
            return Err(broken("is damaged"));
        }
        let length = zstd::zstd_safe::get_frame_content_size(frame)
            .ok()
            .flatten();
        let Some(length) = length.filter(|length| *length <= MAX_PLAIN) else {
            return Err(broken("is too long"));
        };
        let plain = zstd::bulk::decompress(frame, length as usize)
            .map_err(|_| broken("cannot be decompressed"))?;
        Self::split(&plain)
    }

    /// Decodes the inside of a table.
    pub(super) fn split(plain: &[u8]) -> Result<Self> {
        let mut input = Input::new(plain);
        let count = input.u32()?;
        let mut layers = Vec::new();
        for _ in 0..count {
            let diff_id = DiffId(Digest::from(input.array()?));
            let length = input.u32()?;
            let layer = input.take(length as usize)?;
            layers.push((diff_id, LayerToc(layer.to_vec())));
        }
        input.end()?;
        Ok(Self { layers })
    }
}
