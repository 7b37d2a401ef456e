//! Reading folders: by handle, or by number where the kernel opens folders by itself.

use std::sync::Arc;
use std::time::Duration;

use pcocc_layers::squashfs::FileType;

use crate::attributes::Attributes;
use crate::dir_item::{DirItem, TakeItem};
use crate::errno::Result;
use crate::tree::Tree;
use crate::tree::listing::Listing;
use crate::tree::open_file::Caching;

/// Bits of an offset that are the place in a listing; the others tell which listing.
const INDEX_BITS: u32 = 32;

impl Tree {
    /// Opens a folder: its names as they are now.
    pub fn open_dir(&self, number: u64) -> Result<(u64, Caching)> {
        let listing = Listing::new(number, self.node(number)?);
        let node = listing.node.operations();
        let caching = match node.is_immutable() {
            true => Caching::Keep,
            false => Caching::Refresh,
        };
        if !node.lists_when_read() {
            listing.names(self)?;
        }
        Ok((self.handles.add_folder(listing), caching))
    }

    /// Whether reading through this handle first lists a folder that may wait for a store.
    pub fn read_dir_may_wait(&self, handle: u64) -> bool {
        let listing = self.handles.folder(handle);
        listing.is_ok_and(|listing| listing.known().is_none())
    }

    /// Hands names from `offset` on to `take` until it says that it is full. With `attributes`, the
    /// kernel takes a reference to each inode that was taken.
    pub fn read_dir(
        &self,
        handle: u64,
        offset: u64,
        attributes: bool,
        take: &mut TakeItem<'_>,
    ) -> Result<()> {
        let listing = self.handles.folder(handle)?;
        self.hand_on(&listing, 0, offset, attributes, take)
    }

    /// The same for a folder that the kernel opened by itself: below `rootfs`. An offset tells the listing
    /// it belongs to, which stays as it is until it was read to its end.
    pub fn read_open_dir(
        &self,
        number: u64,
        offset: u64,
        attributes: bool,
        take: &mut TakeItem<'_>,
    ) -> Result<()> {
        let node = self.node(number)?;
        let (generation, start) = (offset >> INDEX_BITS, offset & ((1 << INDEX_BITS) - 1));
        let generation = match node.operations().is_immutable() {
            true => 0,
            false if start == 0 => self.listings.next(),
            false => generation,
        };
        let key = (number, generation);
        let listing = match self.listings.get(key) {
            Some(listing) => listing,
            None => {
                let listing = Listing::new(number, node);
                listing.names(self)?;
                self.listings.put(key, &listing);
                listing
            }
        };
        if start >= listing.len() as u64 {
            self.listings.drop_listing(key);
            return Ok(());
        }
        self.hand_on(&listing, generation << INDEX_BITS, start, attributes, take)
    }

    fn hand_on(
        &self,
        listing: &Arc<Listing>,
        base: u64,
        offset: u64,
        attributes: bool,
        take: &mut TakeItem<'_>,
    ) -> Result<()> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let named = listing.names(self)?.iter();
        // The kernel takes no reference to the first two.
        let dots = [
            (&b"."[..], FileType::Directory, None),
            (b"..", FileType::Directory, None),
        ];
        let names = named.map(|(name, kind, node)| (&**name, *kind, Some(node)));
        for (place, (name, kind, node)) in dots.into_iter().chain(names).enumerate().skip(start) {
            let mut item = DirItem {
                number: listing.number,
                next: base + place as u64 + 1,
                kind,
                name,
                attributes: None,
            };
            let told = match node {
                None if attributes => {
                    let found = Attributes::folder(self.owner, 0o555, self.started);
                    item.attributes = Some((found.numbered(item.number), Duration::ZERO));
                    None
                }
                None => None,
                Some(node) if attributes => {
                    let (found, validity) = node.operations().known_attributes(self)?;
                    item.number = self.remember(node);
                    item.attributes = Some((found.numbered(item.number), validity));
                    Some(item.number)
                }
                Some(node) => {
                    item.number = self.inodes.number(node);
                    None
                }
            };
            if take(item) {
                if let Some(number) = told {
                    self.forget(number, 1);
                }
                return Ok(());
            }
        }
        Ok(())
    }
}
