//! Encodes directory listings and the indexes of long ones.

use std::io;

use super::metadata::{METADATA_SIZE, MetadataRef, MetadataWriter};

/// Most entries under one header.
const MAX_RUN: usize = 256;

/// A name to list; names come sorted.
#[derive(Debug)]
pub(super) struct Listed<'a> {
    pub(super) name: &'a [u8],
    pub(super) number: u32,
    pub(super) place: MetadataRef,
    /// The basic inode type.
    pub(super) kind: u16,
}

/// Position of a listing.
#[derive(Debug)]
pub(super) struct Listing {
    pub(super) place: MetadataRef,
    pub(super) size: u32,
    /// Encoded index records: one for each metadata block after the first.
    pub(super) index: Vec<u8>,
    pub(super) index_count: u16,
}

/// Appends a directory's listing to the directory table.
pub(super) fn write(
    table: &mut MetadataWriter<Vec<u8>>,
    entries: &[Listed<'_>],
) -> io::Result<Listing> {
    let place = table.place();
    let mut listing = Listing {
        place,
        size: 0,
        index: Vec::new(),
        index_count: 0,
    };
    let mut indexed = place.block;
    let mut rest = entries;
    let mut run = Vec::new();
    while let Some(first) = rest.first() {
        let here = table.place();
        if here.block != indexed && listing.index_count < u16::MAX {
            listing.index.extend(listing.size.to_le_bytes());
            listing.index.extend(narrow(here.block)?.to_le_bytes());
            listing
                .index
                .extend((first.name.len() as u32 - 1).to_le_bytes());
            listing.index.extend(first.name);
            listing.index_count += 1;
            indexed = here.block;
        }
        run.clear();
        let mut count = 0;
        // A run ends when it reaches into the next block, so that each block has a header for the index.
        while let Some(entry) = rest.get(count) {
            let delta = i64::from(entry.number) - i64::from(first.number);
            let fits = count < MAX_RUN
                && entry.place.block == first.place.block
                && usize::from(here.offset) + 12 + run.len() < METADATA_SIZE;
            let Some(delta) = i16::try_from(delta).ok().filter(|_| fits || count == 0) else {
                break;
            };
            run.extend(entry.place.offset.to_le_bytes());
            run.extend(delta.to_le_bytes());
            run.extend(entry.kind.to_le_bytes());
            run.extend((entry.name.len() as u16 - 1).to_le_bytes());
            run.extend(entry.name);
            count += 1;
        }
        table.write(&(count as u32 - 1).to_le_bytes())?;
        table.write(&narrow(first.place.block)?.to_le_bytes())?;
        table.write(&first.number.to_le_bytes())?;
        table.write(&run)?;
        listing.size = u32::try_from(run.len() + 12)
            .ok()
            .and_then(|more| listing.size.checked_add(more))
            .filter(|size| *size < u32::MAX - 3)
            .ok_or_else(too_large)?;
        rest = rest.get(count..).unwrap_or_default();
    }
    Ok(listing)
}

/// A block's offset in the form of directory records.
pub(super) fn narrow(block: u64) -> io::Result<u32> {
    u32::try_from(block).map_err(|_| too_large())
}

fn too_large() -> io::Error {
    io::Error::other("the directory or inode table exceeds what squashfs can hold")
}
