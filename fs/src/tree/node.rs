//! What an inode number stands for, and how long: the inode table.
//!
//! Numbers are a hash of what they stand for, so a name keeps its number after the kernel forgot it.
//! An image's `index.json` gets the highest numbers: GNU cp copies in that order, and the file that
//! completes a copy should come last. Files of root file systems need no table: their number holds
//! the file system and the place in it.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use parking_lot::Mutex;
use pcocc_layers::Digest;
use pcocc_layers::squashfs::InodeNo;

use crate::naming::StoreId;
use crate::staging::{Staged, StagedFile};

/// An image as the tree knows it: a name, and what stood behind it when it was looked up.
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

/// A file or folder of an image's OCI layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
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

/// The two trees a store is shown in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// As OCI layouts.
    Images,
    /// As root file systems.
    Rootfs,
}

/// Folders and files that are always there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fixed {
    /// The mount point.
    Root,
    /// `README`
    Readme,
    /// `.pcocc`
    Pcocc,
    /// `.pcocc/status.json`
    Status,
    /// `repo`
    Repo,
    /// `rootfs`
    Rootfs,
    /// `rootfs/repo`
    RootfsRepo,
}

/// What an inode is.
#[derive(Clone, Debug)]
pub enum Node {
    /// One of the fixed ones.
    Fixed(Fixed),
    /// A folder of names in a store; its top folder has the empty path.
    Names(Side, StoreId, Arc<str>),
    /// The folder of an image.
    Image(ImageKey),
    /// A part of an image.
    Part(ImageKey, Part),
    /// The top of an image's root file system.
    RootfsImage(ImageKey),
    /// Below it: file system number and place.
    RootfsFile(u16, InodeNo),
    /// A folder of an image that is being copied in; its top folder has the empty path.
    StagedDir(Arc<Staged>, Arc<str>),
    /// A file of an image that is being copied in.
    StagedFile(Arc<Staged>, Arc<StagedFile>),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Identity {
    Fixed(Fixed),
    Names(Side, StoreId, Arc<str>),
    Image(ImageKey),
    Part(ImageKey, Part),
    RootfsImage(ImageKey),
    StagedDir(u64, Arc<str>),
    StagedFile(u64),
}

/// Number of the mount point's inode, fixed by the kernel.
pub const ROOT: u64 = 1;

/// Number of `rootfs`, the mount point of the connection that serves root file systems.
pub const ROOTFS: u64 = 2;

/// The first number of the others.
const FIRST: u64 = 3;

const ROOTFS_BIT: u64 = 1 << 62;
const INDEX_BIT: u64 = 1 << 52;
const HASH_MASK: u64 = (1 << 51) - 1;
const PLACE_BITS: u32 = 48;

impl Node {
    /// Whether it is in the tree of root file systems, where nothing can be changed.
    pub fn is_in_rootfs(&self) -> bool {
        matches!(
            self,
            Self::Fixed(Fixed::Rootfs | Fixed::RootfsRepo)
                | Self::Names(Side::Rootfs, ..)
                | Self::RootfsImage(_)
                | Self::RootfsFile(..)
        )
    }

    fn identity(&self) -> Option<Identity> {
        Some(match self {
            Self::Fixed(fixed) => Identity::Fixed(*fixed),
            Self::Names(side, store, path) => Identity::Names(*side, *store, Arc::clone(path)),
            Self::Image(image) => Identity::Image(image.clone()),
            Self::Part(image, part) => Identity::Part(image.clone(), *part),
            Self::RootfsImage(image) => Identity::RootfsImage(image.clone()),
            Self::RootfsFile(..) => return None,
            Self::StagedDir(image, path) => Identity::StagedDir(image.id(), Arc::clone(path)),
            Self::StagedFile(_, file) => Identity::StagedFile(file.id()),
        })
    }
}

#[derive(Debug)]
struct Slot {
    node: Node,
    lookups: u64,
}

#[derive(Debug, Default)]
struct Table {
    slots: HashMap<u64, Slot>,
    numbers: HashMap<Identity, u64>,
}

/// The inodes the kernel knows, with how often it was told of each.
#[derive(Debug, Default)]
pub struct Inodes(Mutex<Table>);

impl Inodes {
    /// The number of a node, without telling the kernel.
    pub fn number(&self, node: &Node) -> u64 {
        match node.identity() {
            None => rootfs_number(node),
            Some(identity) => self.0.lock().number(node, &identity),
        }
    }

    /// The number of a node that the kernel is told of once more.
    pub fn remember(&self, node: &Node) -> u64 {
        let Some(identity) = node.identity() else {
            return rootfs_number(node);
        };
        let mut table = self.0.lock();
        let number = table.number(node, &identity);
        let slot = table.slots.entry(number).or_insert_with(|| Slot {
            node: node.clone(),
            lookups: 0,
        });
        slot.lookups = slot.lookups.saturating_add(1);
        table.numbers.insert(identity, number);
        number
    }

    /// The kernel dropped `count` of its references.
    pub fn forget(&self, number: u64, count: u64) {
        let mut table = self.0.lock();
        let Some(slot) = table.slots.get_mut(&number) else {
            return;
        };
        slot.lookups = slot.lookups.saturating_sub(count);
        if slot.lookups == 0
            && let Some(slot) = table.slots.remove(&number)
            && let Some(identity) = slot.node.identity()
            && table.numbers.get(&identity) == Some(&number)
        {
            table.numbers.remove(&identity);
        }
    }

    /// The node of a number the kernel knows.
    pub fn get(&self, number: u64) -> Option<Node> {
        if number == ROOT {
            return Some(Node::Fixed(Fixed::Root));
        }
        if number == ROOTFS {
            return Some(Node::Fixed(Fixed::Rootfs));
        }
        if number & ROOTFS_BIT != 0 {
            let place = number & ((1 << PLACE_BITS) - 1);
            let system = (number & !ROOTFS_BIT) >> PLACE_BITS;
            return Some(Node::RootfsFile(
                u16::try_from(system).ok()?,
                InodeNo(place),
            ));
        }
        self.0
            .lock()
            .slots
            .get(&number)
            .map(|slot| slot.node.clone())
    }

    /// Lets the kernel's number for `old`, if it has one, stand for `new` from now on.
    pub fn rebind(&self, old: &Node, new: Node) {
        let (Some(from), Some(to)) = (old.identity(), new.identity()) else {
            return;
        };
        let mut table = self.0.lock();
        let Some(number) = table.numbers.remove(&from) else {
            return;
        };
        if let Some(slot) = table.slots.get_mut(&number) {
            slot.node = new;
            table.numbers.entry(to).or_insert(number);
        }
    }

    /// How many inodes the kernel knows, but for those that something is mounted on, which it never forgets.
    pub fn count(&self) -> usize {
        let slots = &self.0.lock().slots;
        slots.len() - usize::from(slots.contains_key(&ROOTFS))
    }
}

impl Table {
    fn number(&self, node: &Node, identity: &Identity) -> u64 {
        match node {
            Node::Fixed(Fixed::Root) => return ROOT,
            Node::Fixed(Fixed::Rootfs) => return ROOTFS,
            _ => {}
        }
        if let Some(number) = self.numbers.get(identity) {
            return *number;
        }
        let mut hasher = DefaultHasher::new();
        identity.hash(&mut hasher);
        let mut number = (hasher.finish() & HASH_MASK).max(FIRST);
        if let Node::Part(_, Part::Index) = node {
            number |= INDEX_BIT;
        }
        while self.slots.contains_key(&number) {
            number += 1;
        }
        number
    }
}

fn rootfs_number(node: &Node) -> u64 {
    match node {
        Node::RootfsFile(system, place) => {
            ROOTFS_BIT | u64::from(*system) << PLACE_BITS | (place.0 & ((1 << PLACE_BITS) - 1))
        }
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(name: &str) -> ImageKey {
        ImageKey {
            store: 0,
            name: name.into(),
            id: None,
            created: 0,
        }
    }

    #[test]
    fn numbers_live_as_long_as_the_kernel_knows_them() {
        let inodes = Inodes::default();
        let node = Node::Image(image("a"));
        let number = inodes.remember(&node);
        assert_eq!(inodes.remember(&node), number);
        inodes.forget(number, 1);
        assert!(inodes.get(number).is_some());
        inodes.forget(number, 1);
        assert!(inodes.get(number).is_none());
        assert_eq!(inodes.count(), 0);
        assert_eq!(inodes.number(&node), number);
    }

    #[test]
    fn the_index_has_the_highest_number() {
        let inodes = Inodes::default();
        let number = |part| inodes.number(&Node::Part(image("a"), part));
        for part in [Part::Marker, Part::Blobs, Part::Sha256] {
            assert!(number(part) < number(Part::Index));
        }
    }

    #[test]
    fn a_rebound_number_stands_for_the_new_node() {
        let inodes = Inodes::default();
        let (old, new) = (Node::Image(image("a")), Node::Image(image("b")));
        let number = inodes.remember(&old);
        inodes.rebind(&old, new.clone());
        assert_eq!(inodes.remember(&new), number);
        assert!(matches!(inodes.get(number), Some(Node::Image(key)) if &*key.name == "b"));
        inodes.forget(number, 2);
        assert_eq!(inodes.count(), 0);
    }

    #[test]
    fn rootfs_numbers_hold_their_place() {
        let inodes = Inodes::default();
        let number = inodes.remember(&Node::RootfsFile(7, InodeNo(0xabc_def0)));
        assert!(matches!(
            inodes.get(number),
            Some(Node::RootfsFile(7, InodeNo(0xabc_def0)))
        ));
        assert_eq!(inodes.count(), 0);
    }
}
