//! Root file systems of images: their top folders, and the files below.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::time::Duration;

use pcocc_layers::Error;
use pcocc_layers::squashfs::{InodeNo, Squashfs};

use super::{Named, Node, Operations, Stat};
use crate::attributes::{ALWAYS, Attributes, ExtendedAttribute};
use crate::errno::{Result, to_errno};
use crate::tree::image_key::ImageKey;
use crate::tree::open_file::{Caching, OpenFile, Opened};
use crate::tree::rootfs::OpenRootfs;
use crate::tree::{SOON, Tree};

/// The top of an image's root file system.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RootfsTopNode(pub ImageKey);

impl RootfsTopNode {
    fn open(&self, tree: &Tree) -> Result<Arc<OpenRootfs>> {
        let store = tree.view(self.0.store)?;
        // One export gives both the layout and the root file system, whichever is needed first.
        if Some(self.0.store) == tree.docker && tree.rootfs.peek(&self.0).is_none() {
            tree.images.open(&self.0, store, &tree.status)?;
        }
        tree.rootfs.open(&self.0, store, &tree.status)
    }
}

impl Operations for RootfsTopNode {
    fn may_wait(&self, tree: &Tree) -> bool {
        tree.rootfs.peek(&self.0).is_none()
    }

    fn known_attributes(&self, tree: &Tree) -> Result<Stat> {
        let open = tree.rootfs.peek(&self.0);
        let found = open.and_then(|open| open.squashfs.attributes(open.top).ok());
        let date = self.0.date();
        let (mut attributes, validity) = match &found {
            Some(found) => (Attributes::in_image(found), SOON),
            // This guess is nearly always right, and is not cached: listing names must not make root file
            // systems.
            None => (Attributes::folder((0, 0), 0o755, date), Duration::ZERO),
        };
        // A tool that compares the attributes before and after (tar) sees no change.
        (attributes.size, attributes.changed) = (0, date);
        Ok((attributes, validity))
    }

    fn lookup(&self, tree: &Tree, name: &OsStr) -> Result<Option<Node>> {
        let open = self.open(tree)?;
        lookup(&open, open.top, name)
    }

    fn missing_validity(&self) -> Duration {
        ALWAYS
    }

    fn list(&self, tree: &Tree) -> Result<Vec<Named>> {
        let open = self.open(tree)?;
        list(&open, open.top)
    }
}

/// A file or folder in a root file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RootfsFileNode {
    /// Number of the file system.
    pub system: u16,
    /// Position in the file system.
    pub inode: InodeNo,
}

impl RootfsFileNode {
    fn system(&self, tree: &Tree) -> Result<Arc<OpenRootfs>> {
        tree.rootfs.get(self.system)
    }

    /// Calls the file system for this file.
    fn ask<T>(
        &self,
        tree: &Tree,
        question: impl FnOnce(&Squashfs, InodeNo) -> Result<T, Error>,
    ) -> Result<T> {
        question(&self.system(tree)?.squashfs, self.inode).map_err(to_errno)
    }
}

impl Operations for RootfsFileNode {
    fn known_attributes(&self, tree: &Tree) -> Result<Stat> {
        let found = self.ask(tree, Squashfs::attributes)?;
        Ok((Attributes::in_image(&found), ALWAYS))
    }

    fn xattrs(&self, tree: &Tree) -> Result<Vec<ExtendedAttribute>> {
        self.ask(tree, Squashfs::xattrs)
    }

    fn read_link(&self, tree: &Tree) -> Result<Vec<u8>> {
        self.ask(tree, Squashfs::read_link)
    }

    fn lookup(&self, tree: &Tree, name: &OsStr) -> Result<Option<Node>> {
        lookup(&*self.system(tree)?, self.inode, name)
    }

    fn missing_validity(&self) -> Duration {
        ALWAYS
    }

    fn list(&self, tree: &Tree) -> Result<Vec<Named>> {
        list(&*self.system(tree)?, self.inode)
    }

    fn lists_when_read(&self) -> bool {
        // The kernel still knows the names.
        true
    }

    fn is_immutable(&self) -> bool {
        true
    }

    fn open(&self, tree: &Tree) -> Result<Opened> {
        let file = RootfsFile {
            system: self.system(tree)?,
            inode: self.inode,
        };
        Ok((Arc::new(file), Caching::Keep))
    }
}

fn lookup(open: &OpenRootfs, inode: InodeNo, name: &OsStr) -> Result<Option<Node>> {
    let found = open.squashfs.lookup(inode, name.as_bytes());
    let found = found.map_err(to_errno)?;
    Ok(found.map(|entry| node(open, entry.inode)))
}

fn list(open: &OpenRootfs, inode: InodeNo) -> Result<Vec<Named>> {
    let entries = open.squashfs.read_dir(inode);
    let entries = entries.map_err(to_errno)?.into_iter();
    let named = entries.map(|entry| (entry.name, entry.file_type, node(open, entry.inode)));
    Ok(named.collect())
}

fn node(open: &OpenRootfs, inode: InodeNo) -> Node {
    let system = open.number;
    Node::RootfsFile(RootfsFileNode { system, inode })
}

/// An open file of a root file system, which stays open with it.
#[derive(Debug)]
struct RootfsFile {
    system: Arc<OpenRootfs>,
    inode: InodeNo,
}

impl OpenFile for RootfsFile {
    fn read(&self, _: &Tree, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let read = self.system.squashfs.read_at(self.inode, offset, buffer);
        read.map_err(to_errno)
    }
}
