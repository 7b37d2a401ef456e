//! One layer of a table of contents.

use std::collections::HashMap;

use super::bytes::{Input, put_count, put_u16, put_u32, put_u64};
use super::{broken, tree};
use crate::Digest;
use crate::error::Result;
use crate::squashfs::tree::{Meta, NodeKind, Tree};
use crate::squashfs::write::pipeline::{HOLES, Region, UNCOMPRESSED, Written};
use crate::squashfs::write::tables::{XattrSet, XattrSets, is_kept};
use crate::squashfs::write::{BLOCK_SIZE, LayerTree, Taken};

/// A layer as a table of contents has it.
pub(crate) struct Recorded {
    /// Where its content starts in the squashfs file.
    pub(crate) start: u64,
    /// Its content as if the file had nothing else: positions count from its first byte.
    pub(crate) content: Written,
    /// Digest of its stored content.
    pub(crate) digest: Digest,
    pub(crate) taken: Taken,
    /// Its names. Files and fragments count from the layer's first, sets of attributes are places in `sets`.
    pub(crate) tree: Tree,
    pub(crate) sets: Vec<XattrSet>,
}

/// The layer's own sets of attributes, in the order of their first use.
struct Sets<'a> {
    all: &'a XattrSets,
    own: Vec<&'a XattrSet>,
    places: HashMap<u32, u32>,
}

impl Sets<'_> {
    /// The layer's own number of a set.
    fn place(&mut self, number: u32) -> u32 {
        if let Some(&place) = self.places.get(&number) {
            return place;
        }
        let Some(set) = self.all.get(number) else {
            return Meta::NO_XATTRS;
        };
        let place = self.own.len() as u32;
        self.own.push(set);
        self.places.insert(number, place);
        place
    }
}

pub(super) fn encode(
    layer: &LayerTree,
    region: &Region,
    written: &Written,
    xattrs: &XattrSets,
) -> Vec<u8> {
    let mut out = Vec::new();
    put_u64(&mut out, region.bytes.start);
    put_u64(&mut out, region.bytes.end - region.bytes.start);
    out.extend(region.digest.as_bytes());
    let taken = &layer.taken;
    for number in [
        taken.bytes,
        taken.entries,
        taken.names,
        taken.dropped_xattrs,
    ] {
        put_u64(&mut out, number);
    }
    let files = written.files.get(region.files.clone()).unwrap_or_default();
    put_count(&mut out, files.len());
    for &(start, first) in files {
        put_u64(&mut out, start - region.bytes.start);
        put_u32(&mut out, first - region.sizes.start as u32);
    }
    let sizes = written.sizes.get(region.sizes.clone()).unwrap_or_default();
    put_count(&mut out, sizes.len());
    for &size in sizes {
        put_u32(&mut out, size);
    }
    let fragments = written.fragments.get(region.fragments.clone());
    let fragments = fragments.unwrap_or_default();
    put_count(&mut out, fragments.len());
    for &(start, size) in fragments {
        put_u64(&mut out, start - region.bytes.start);
        put_u32(&mut out, size);
    }
    let mut sets = Sets {
        all: xattrs,
        own: Vec::new(),
        places: HashMap::new(),
    };
    let (first_file, first_fragment) = (region.files.start as u32, region.fragments.start as u32);
    let nodes = tree::encode(&layer.tree, first_file, first_fragment, &mut |number| {
        sets.place(number)
    });
    put_count(&mut out, sets.own.len());
    for set in sets.own {
        put_u16(&mut out, set.len() as u16);
        for (name, value) in set {
            put_u16(&mut out, name.len() as u16);
            out.extend(name);
            put_u32(&mut out, value.len() as u32);
            out.extend(value);
        }
    }
    out.extend(nodes);
    out
}

pub(super) fn decode(bytes: &[u8]) -> Result<Recorded> {
    let mut input = Input::new(bytes);
    let start = input.u64()?;
    let length = input.u64()?;
    if start
        .checked_add(length)
        .is_none_or(|end| end > i64::MAX as u64)
    {
        return Err(broken("has content of impossible length"));
    }
    let digest = Digest::from(input.array()?);
    let taken = Taken {
        bytes: input.u64()?,
        entries: input.u64()?,
        names: input.u64()?,
        dropped_xattrs: input.u64()?,
    };
    let mut content = Written {
        end: length,
        ..Written::default()
    };
    for _ in 0..input.count(12)? {
        content.files.push((input.u64()?, input.u32()?));
    }
    for _ in 0..input.count(4)? {
        let size = input.u32()?;
        if size & HOLES == 0 && (size & !UNCOMPRESSED) as usize > BLOCK_SIZE {
            return Err(broken("has a block of impossible size"));
        }
        content.sizes.push(size);
    }
    for _ in 0..input.count(12)? {
        let (start, size) = (input.u64()?, input.u32()?);
        let stored = u64::from(size & !UNCOMPRESSED);
        let is_inside = start.checked_add(stored).is_some_and(|end| end <= length);
        if !is_inside || stored as usize > BLOCK_SIZE {
            return Err(broken("has a fragment block that leaves it"));
        }
        content.fragments.push((start, size));
    }
    let mut sets = Vec::new();
    for _ in 0..input.count(2)? {
        sets.push(xattr_set(&mut input)?);
    }
    let tree = tree::decode(&mut input, &content, sets.len())?;
    input.end()?;
    let sizes = tree.nodes().iter().map(|node| match &node.kind {
        NodeKind::File(data) => data.size,
        _ => 0,
    });
    // Else the limit on bytes would not bound the tables.
    if sizes.fold(0, u64::saturating_add) > taken.bytes {
        return Err(broken("has more than it says"));
    }
    Ok(Recorded {
        start,
        content,
        digest,
        taken,
        tree,
        sets,
    })
}

fn xattr_set(input: &mut Input<'_>) -> Result<XattrSet> {
    let mut set = XattrSet::new();
    for _ in 0..input.u16()? {
        let length = usize::from(input.u16()?);
        let name = input.take(length)?.to_vec();
        let length = input.u32()? as usize;
        let value = input.take(length)?.to_vec();
        let is_next = set.last().is_none_or(|(last, _)| *last < name);
        if !is_next || !is_kept(&name, &value) {
            return Err(broken("has impossible extended attributes"));
        }
        set.push((name, value));
    }
    match set.is_empty() || set.len() > XattrSets::MAX {
        false => Ok(set),
        true => Err(broken("has impossible extended attributes")),
    }
}
