//! The kinds of nodes, each in a file of its own.
//!
//! A kind is a type with [`Operations`]. [`Node`] is a node of any kind; two nodes are equal if they are the
//! same file or folder of the tree.

mod fixed;
mod image;
mod names;
mod rootfs;
mod staged;

use std::ffi::OsStr;
use std::sync::Arc;
use std::time::Duration;

use pcocc_layers::squashfs::FileType;

use crate::attributes::{Attributes, ExtendedAttribute};
use crate::errno::{Errno, Result};
use crate::tree::Tree;
use crate::tree::open_file::{OpenFile, Opened};

pub use fixed::Fixed;
pub use image::ImageNode;
pub use names::{NamesNode, Side};
pub use rootfs::{RootfsFileNode, RootfsTopNode};
pub use staged::{StagedDirNode, StagedFileNode};

/// A file or folder of the tree, by its kind.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Node {
    /// A file or folder that is always there.
    Fixed(Fixed),
    /// A folder of names in a store.
    Names(NamesNode),
    /// The folder of an image, or a part of its layout.
    Image(ImageNode),
    /// The top of an image's root file system.
    RootfsTop(RootfsTopNode),
    /// A file or folder below the top.
    RootfsFile(RootfsFileNode),
    /// A folder of an image that is being copied in.
    StagedDir(StagedDirNode),
    /// A file of an image that is being copied in.
    StagedFile(StagedFileNode),
}

impl Node {
    pub(super) fn operations(&self) -> &dyn Operations {
        match self {
            Self::Fixed(node) => node,
            Self::Names(node) => node,
            Self::Image(node) => node,
            Self::RootfsTop(node) => node,
            Self::RootfsFile(node) => node,
            Self::StagedDir(node) => node,
            Self::StagedFile(node) => node,
        }
    }
}

/// Attributes and their validity.
pub type Stat = (Attributes, Duration);

/// A new file, and its open handle.
pub(super) type Created = (Node, Arc<dyn OpenFile>);

/// A name in a folder, its type, and its node.
pub type Named = (Box<[u8]>, FileType, Node);

/// The entry of a folder in a folder.
fn folder(name: &str, node: Node) -> Named {
    (name.as_bytes().into(), FileType::Directory, node)
}

/// The entry of a regular file in a folder.
fn file(name: &str, node: Node) -> Named {
    (name.as_bytes().into(), FileType::Regular, node)
}

/// The requests to a kind of node. The defaults refuse: they are those of a node that never changes and is
/// neither a folder, a file nor a link. A `thread` is the requesting thread.
pub(super) trait Operations {
    /// Whether requests on this node may wait for a store, and so need a worker.
    fn may_wait(&self, _tree: &Tree) -> bool {
        false
    }

    /// Attributes as far as they are known without waiting, without the inode number. A validity of zero means
    /// that the size is not known yet.
    fn known_attributes(&self, tree: &Tree) -> Result<Stat>;

    /// Attributes, without the inode number.
    fn attributes(&self, tree: &Tree) -> Result<Stat> {
        self.known_attributes(tree)
    }

    /// Extended attributes.
    fn xattrs(&self, _tree: &Tree) -> Result<Vec<ExtendedAttribute>> {
        Ok(Vec::new())
    }

    /// Target of a symbolic link.
    fn read_link(&self, _tree: &Tree) -> Result<Vec<u8>> {
        Err(Errno::INVAL)
    }

    /// The node with this name in this folder.
    fn lookup(&self, _tree: &Tree, _name: &OsStr) -> Result<Option<Node>> {
        Err(Errno::NOTDIR)
    }

    /// Validity of the answer that a name is missing here.
    fn missing_validity(&self) -> Duration {
        Duration::ZERO
    }

    /// All names in this folder.
    fn list(&self, _tree: &Tree) -> Result<Vec<Named>> {
        Err(Errno::NOTDIR)
    }

    /// Whether the folder is listed at the first read and not at its opening: tools also open folders to change
    /// their content.
    fn lists_when_read(&self) -> bool {
        false
    }

    /// Whether the node and the names in it never change.
    fn is_immutable(&self) -> bool {
        false
    }

    /// Opens the file for reading.
    fn open(&self, _tree: &Tree) -> Result<Opened> {
        Err(Errno::ISDIR)
    }

    /// Opens the file for writing as `handle`.
    fn open_write(
        &self,
        _tree: &Tree,
        _handle: u64,
        _truncate: bool,
        _thread: u32,
    ) -> Result<Opened> {
        Err(Errno::ROFS)
    }

    /// The errno for making or removing names in this folder.
    fn refusal(&self) -> Errno {
        Errno::ROFS
    }

    /// Makes a folder in this folder.
    fn make_dir(&self, _tree: &Tree, _name: &str, _thread: u32) -> Result<Node> {
        Err(self.refusal())
    }

    /// Makes a file in this folder and opens it for writing as `handle`.
    fn create(&self, _tree: &Tree, _name: &str, _handle: u64, _thread: u32) -> Result<Created> {
        Err(self.refusal())
    }

    /// Removes a file of this folder.
    fn unlink(&self, _tree: &Tree, _name: &str, _thread: u32) -> Result<()> {
        Err(self.refusal())
    }

    /// Removes a folder of this folder.
    fn remove_dir(&self, _tree: &Tree, _name: &str) -> Result<()> {
        Err(self.refusal())
    }

    /// Gives a name in this folder another name, in the folder `to`.
    fn rename(&self, _tree: &Tree, _name: &str, _to: &Node, _new: &Renamed) -> Result<()> {
        Err(Errno::ROFS)
    }

    /// Changes the length, if one is given. Modes, owners and times are accepted and not kept where this
    /// succeeds, as tools set them after the copy is complete.
    fn change(&self, _tree: &Tree, _size: Option<u64>) -> Result<()> {
        Err(Errno::ROFS)
    }

    /// Fails unless extended attributes can be set here; they are accepted and not kept.
    fn accepts_xattrs(&self, tree: &Tree) -> Result<()> {
        self.change(tree, None)
    }
}

/// The new name of a rename.
#[derive(Debug)]
pub(super) struct Renamed<'a> {
    pub(super) name: &'a str,
    /// Whether an existing file of that name is replaced.
    pub(super) replace: bool,
    /// The requesting thread.
    pub(super) thread: u32,
}
