//! What an inode number stands for, and how long: the inode table.
//!
//! Numbers are a hash of what they stand for, so a name keeps its number after the kernel forgot it.
//! An image's `index.json` gets the highest numbers: GNU cp copies in that order, and the file that
//! completes a copy should come last. Files of root file systems need no table: their number holds
//! the file system and the place in it.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use parking_lot::Mutex;
use pcocc_layers::squashfs::InodeNo;

use crate::tree::image_key::Part;
use crate::tree::nodes::{Fixed, ImageNode, Node, RootfsFileNode};

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
const PLACE_MASK: u64 = (1 << PLACE_BITS) - 1;

#[derive(Debug)]
struct Slot {
    node: Node,
    lookups: u64,
}

#[derive(Debug, Default)]
struct Table {
    slots: HashMap<u64, Slot>,
    numbers: HashMap<Node, u64>,
}

/// The inodes the kernel knows, with how often it was told of each.
#[derive(Debug, Default)]
pub struct Inodes(Mutex<Table>);

impl Inodes {
    /// The number of a node, without telling the kernel.
    pub fn number(&self, node: &Node) -> u64 {
        fixed_number(node).unwrap_or_else(|| self.0.lock().number(node))
    }

    /// The number of a node that the kernel is told of once more.
    pub fn remember(&self, node: &Node) -> u64 {
        if let Node::RootfsFile(file) = node {
            return rootfs_number(*file);
        }
        let mut table = self.0.lock();
        let number = fixed_number(node).unwrap_or_else(|| table.number(node));
        let slot = table.slots.entry(number).or_insert_with(|| Slot {
            node: node.clone(),
            lookups: 0,
        });
        slot.lookups = slot.lookups.saturating_add(1);
        table.numbers.insert(node.clone(), number);
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
            && table.numbers.get(&slot.node) == Some(&number)
        {
            table.numbers.remove(&slot.node);
        }
    }

    /// The node of a number the kernel knows.
    pub fn get(&self, number: u64) -> Option<Node> {
        match number {
            ROOT => Some(Node::Fixed(Fixed::Root)),
            ROOTFS => Some(Node::Fixed(Fixed::Rootfs)),
            _ if number & ROOTFS_BIT != 0 => {
                let system = u16::try_from((number & !ROOTFS_BIT) >> PLACE_BITS).ok()?;
                let inode = InodeNo(number & PLACE_MASK);
                Some(Node::RootfsFile(RootfsFileNode { system, inode }))
            }
            _ => self
                .0
                .lock()
                .slots
                .get(&number)
                .map(|slot| slot.node.clone()),
        }
    }

    /// Lets the kernel's number for `old`, if it has one, stand for `new` from now on.
    pub fn rebind(&self, old: &Node, new: Node) {
        let mut table = self.0.lock();
        let Some(number) = table.numbers.remove(old) else {
            return;
        };
        if let Some(slot) = table.slots.get_mut(&number) {
            slot.node = new.clone();
            table.numbers.entry(new).or_insert(number);
        }
    }

    /// How many inodes the kernel knows, but for those that something is mounted on, which it never forgets.
    pub fn count(&self) -> usize {
        let slots = &self.0.lock().slots;
        slots.len() - usize::from(slots.contains_key(&ROOTFS))
    }
}

impl Table {
    fn number(&self, node: &Node) -> u64 {
        if let Some(number) = self.numbers.get(node) {
            return *number;
        }
        let mut hasher = DefaultHasher::new();
        node.hash(&mut hasher);
        let mut number = (hasher.finish() & HASH_MASK).max(FIRST);
        if let Node::Image(ImageNode {
            part: Part::Index, ..
        }) = node
        {
            number |= INDEX_BIT;
        }
        while self.slots.contains_key(&number) {
            number += 1;
        }
        number
    }
}

/// The number of a node that needs no table for it.
fn fixed_number(node: &Node) -> Option<u64> {
    match node {
        Node::Fixed(Fixed::Root) => Some(ROOT),
        Node::Fixed(Fixed::Rootfs) => Some(ROOTFS),
        Node::RootfsFile(file) => Some(rootfs_number(*file)),
        _ => None,
    }
}

fn rootfs_number(file: RootfsFileNode) -> u64 {
    ROOTFS_BIT | u64::from(file.system) << PLACE_BITS | (file.inode.0 & PLACE_MASK)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::image_key::ImageKey;

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
        let node = ImageNode::top(image("a"));
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
        let number = |part| inodes.number(&ImageNode::part(&image("a"), part));
        for part in [Part::Marker, Part::Blobs, Part::Sha256] {
            assert!(number(part) < number(Part::Index));
        }
    }

    #[test]
    fn a_rebound_number_stands_for_the_new_node() {
        let inodes = Inodes::default();
        let (old, new) = (ImageNode::top(image("a")), ImageNode::top(image("b")));
        let number = inodes.remember(&old);
        inodes.rebind(&old, new.clone());
        assert_eq!(inodes.remember(&new), number);
        assert!(matches!(inodes.get(number), Some(Node::Image(node)) if &*node.key.name == "b"));
        inodes.forget(number, 2);
        assert_eq!(inodes.count(), 0);
    }

    #[test]
    fn rootfs_numbers_hold_their_place() {
        let inodes = Inodes::default();
        let (system, inode) = (7, InodeNo(0xabc_def0));
        let node = Node::RootfsFile(RootfsFileNode { system, inode });
        let number = inodes.remember(&node);
        assert_eq!(inodes.get(number), Some(node));
        assert_eq!(inodes.count(), 0);
    }
}
