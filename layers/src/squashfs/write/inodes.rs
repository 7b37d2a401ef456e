//! Numbers and encodes inodes, children before the directories that list them.

use std::collections::HashMap;
use std::io::{self, Cursor, Write};

use backhand::v4::inode::{
    BasicDeviceSpecialFile, BasicDirectory, BasicFile, BasicSymlink, ExtendedDeviceSpecialFile,
    ExtendedDirectory, ExtendedFile, ExtendedIPCNode, IPCNode, Inode, InodeHeader, InodeId,
    InodeInner,
};
use deku::DekuWriter;
use deku::ctx::Endian;
use deku::writer::Writer;

use super::directories::{self, Listed, Listing};
use super::metadata::{MetadataRef, MetadataWriter};
use super::pipeline::Written;
use super::{BLOCK_SIZE, FileData};
use crate::error::Result;
use crate::squashfs::tree::{Directory, Meta, NodeId, NodeKind, Tree};
use pcocc_core::cancel::Cancel;

/// Writes the inode table and the directory table side by side.
pub(super) struct InodeTables<'a, W> {
    tree: &'a Tree,
    written: &'a Written,
    pub(super) inodes: MetadataWriter<W>,
    pub(super) directories: MetadataWriter<Vec<u8>>,
    pub(super) ids: Ids,
    pub(super) xattrs: UsedSets,
    /// For each node its number, from 1; 0 for none.
    numbers: Vec<u32>,
    /// For each inode number minus 1 the inode's position; `u64::MAX` for none.
    pub(super) references: Vec<u64>,
}

impl<W> std::fmt::Debug for InodeTables<'_, W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InodeTables")
            .field("inodes", &self.references.len())
            .finish_non_exhaustive()
    }
}

/// The distinct owners and groups.
#[derive(Debug, Default)]
pub(super) struct Ids {
    pub(super) list: Vec<u32>,
    places: HashMap<u32, u16>,
}

impl Ids {
    /// Most IDs of a squashfs file: their number has 16 bits.
    const MAX: usize = u16::MAX as usize;

    fn place(&mut self, id: u32) -> io::Result<u16> {
        if let Some(&place) = self.places.get(&id) {
            return Ok(place);
        }
        if self.list.len() == Self::MAX {
            return Err(io::Error::other(crate::Error::invalid(
                "image",
                format!("has more than {} distinct owners and groups", Self::MAX),
            )));
        }
        let place = self.list.len() as u16;
        self.list.push(id);
        self.places.insert(id, place);
        Ok(place)
    }
}

/// The sets of extended attributes that inodes have, in the order of their first use: layers may have had others.
#[derive(Debug, Default)]
pub(super) struct UsedSets {
    /// Numbers that the tree knows them by.
    pub(super) list: Vec<u32>,
    places: HashMap<u32, u32>,
}

impl UsedSets {
    fn place(&mut self, set: u32) -> u32 {
        if set == Meta::NO_XATTRS {
            return set;
        }
        let next = self.list.len() as u32;
        let place = *self.places.entry(set).or_insert(next);
        if place == next {
            self.list.push(set);
        }
        place
    }
}

impl<'a, W: Write> InodeTables<'a, W> {
    pub(super) fn new(tree: &'a Tree, written: &'a Written, output: W) -> io::Result<Self> {
        Ok(Self {
            tree,
            written,
            inodes: MetadataWriter::new(output)?,
            directories: MetadataWriter::new(Vec::new())?,
            ids: Ids::default(),
            xattrs: UsedSets::default(),
            numbers: vec![0; tree.len()],
            references: Vec::new(),
        })
    }

    /// Writes `root` and everything below it; returns the position of the root's inode.
    pub(super) fn write(&mut self, root: NodeId, cancel: &Cancel) -> Result<u64, Failure> {
        let order = self.number(root);
        let mut place = MetadataRef::default();
        // `order` has parents before their directories: backwards, children come first.
        for &(id, parent) in order.iter().rev() {
            cancel.check().map_err(crate::Error::from)?;
            if let NodeKind::Directory(directory) = &self.tree.node(id).kind {
                place = self.directory(id, directory, parent)?;
            }
        }
        Ok(place.reference())
    }

    /// Numbers all nodes; the nodes of one directory get consecutive numbers. Lists the directories with their
    /// parents' numbers, parents first.
    fn number(&mut self, root: NodeId) -> Vec<(NodeId, u32)> {
        let mut count = 1u32;
        self.numbers[root as usize] = count;
        let mut order = vec![(root, 0)];
        let mut next = 0;
        while let Some(&(id, _)) = order.get(next) {
            next += 1;
            let number = self.numbers[id as usize];
            let NodeKind::Directory(directory) = &self.tree.node(id).kind else {
                continue;
            };
            for &child in directory.entries.values() {
                let slot = &mut self.numbers[child as usize];
                if *slot == 0 {
                    count += 1;
                    *slot = count;
                }
                if self.tree.directory(child).is_some() {
                    order.push((child, number));
                }
            }
        }
        // The root's parent is by convention one past the last inode.
        if let Some(first) = order.first_mut() {
            first.1 = count + 1;
        }
        self.references = vec![u64::MAX; count as usize];
        order
    }

    fn directory(
        &mut self,
        id: NodeId,
        directory: &'a Directory,
        parent: u32,
    ) -> Result<MetadataRef, Failure> {
        let mut listed = Vec::with_capacity(directory.entries.len());
        let mut folders = 0;
        for (name, &child) in &directory.entries {
            let node = self.tree.node(child);
            let number = self.numbers[child as usize];
            folders += u32::from(matches!(node.kind, NodeKind::Directory(_)));
            let known = self.references[number as usize - 1];
            let place = if known == u64::MAX {
                self.leaf(child, number)?
            } else {
                MetadataRef {
                    block: known >> 16,
                    offset: known as u16,
                }
            };
            listed.push(Listed {
                name,
                number,
                place,
                kind: basic_type(&node.kind) as u16,
            });
        }
        let listing = directories::write(&mut self.directories, &listed)?;
        let meta = self.meta(id);
        let number = self.numbers[id as usize];
        self.directory_inode(meta, number, folders + 2, parent, &listing)
    }

    /// A node's attributes as the file has them.
    fn meta(&mut self, id: NodeId) -> Meta {
        let meta = self.tree.node(id).meta;
        Meta {
            xattrs: self.xattrs.place(meta.xattrs),
            ..meta
        }
    }

    fn directory_inode(
        &mut self,
        meta: Meta,
        number: u32,
        link_count: u32,
        parent_inode: u32,
        listing: &Listing,
    ) -> Result<MetadataRef, Failure> {
        let block_index = directories::narrow(listing.place.block)?;
        let block_offset = listing.place.offset;
        // The size counts three bytes for `.` and `..`, which are not stored.
        let size = listing.size + 3;
        let plain = meta.xattrs == Meta::NO_XATTRS && listing.index_count == 0;
        let (id, inner) = match u16::try_from(size) {
            Ok(file_size) if plain => (
                InodeId::BasicDirectory,
                InodeInner::BasicDirectory(BasicDirectory {
                    block_index,
                    link_count,
                    file_size,
                    block_offset,
                    parent_inode,
                }),
            ),
            _ => (
                InodeId::ExtendedDirectory,
                InodeInner::ExtendedDirectory(ExtendedDirectory {
                    link_count,
                    file_size: size,
                    block_index,
                    parent_inode,
                    index_count: listing.index_count,
                    block_offset,
                    xattr_index: meta.xattrs,
                    dir_index: Vec::new(),
                }),
            ),
        };
        self.put(meta, number, id, inner, &listing.index)
    }

    /// Writes the inode of a file that is not a directory.
    fn leaf(&mut self, node: NodeId, number: u32) -> Result<MetadataRef, Failure> {
        let meta = self.meta(node);
        let node = self.tree.node(node);
        let link_count = node.links;
        let extended = meta.xattrs != Meta::NO_XATTRS;
        let xattr_index = meta.xattrs;
        let ipc = IPCNode { link_count };
        let extended_ipc = ExtendedIPCNode {
            link_count,
            xattr_index,
        };
        let (id, inner) = match &node.kind {
            NodeKind::File(data) => return self.file(meta, number, link_count, data),
            NodeKind::Symlink(target) => return self.symlink(meta, number, link_count, target),
            NodeKind::Block(device) | NodeKind::Char(device) => {
                let block = matches!(node.kind, NodeKind::Block(_));
                let basic = BasicDeviceSpecialFile {
                    link_count,
                    device_number: *device,
                };
                let long = ExtendedDeviceSpecialFile {
                    link_count,
                    device_number: *device,
                    xattr_index,
                };
                use InodeId as Id;
                use InodeInner as Inner;
                match (block, extended) {
                    (true, false) => (Id::BasicBlockDevice, Inner::BasicBlockDevice(basic)),
                    (true, true) => (Id::ExtendedBlockDevice, Inner::ExtendedBlockDevice(long)),
                    (false, false) => {
                        (Id::BasicCharacterDevice, Inner::BasicCharacterDevice(basic))
                    }
                    (false, true) => (
                        Id::ExtendedCharacterDevice,
                        Inner::ExtendedCharacterDevice(long),
                    ),
                }
            }
            NodeKind::Fifo if extended => (
                InodeId::ExtendedNamedPipe,
                InodeInner::ExtendedNamedPipe(extended_ipc),
            ),
            NodeKind::Fifo => (InodeId::BasicNamedPipe, InodeInner::BasicNamedPipe(ipc)),
            NodeKind::Directory(_)
            | NodeKind::LowerLink(_)
            | NodeKind::Whiteout
            | NodeKind::Free => {
                return Err(io::Error::other("the tree of names is inconsistent").into());
            }
        };
        self.put(meta, number, id, inner, &[])
    }

    fn file(
        &mut self,
        meta: Meta,
        number: u32,
        link_count: u32,
        data: &FileData,
    ) -> Result<MetadataRef, Failure> {
        let (start, first) = match self.written.files.get(data.blocks as usize) {
            Some(&place) => place,
            None => (0, 0),
        };
        let basic = link_count == 1 && meta.xattrs == Meta::NO_XATTRS && data.sparse == 0;
        let (id, inner) = match (u32::try_from(start), u32::try_from(data.size)) {
            (Ok(blocks_start), Ok(file_size)) if basic => (
                InodeId::BasicFile,
                InodeInner::BasicFile(BasicFile {
                    blocks_start,
                    frag_index: data.fragment,
                    block_offset: data.offset,
                    file_size,
                    block_sizes: Vec::new(),
                }),
            ),
            _ => (
                InodeId::ExtendedFile,
                InodeInner::ExtendedFile(ExtendedFile {
                    blocks_start: start,
                    file_size: data.size,
                    sparse: data.sparse,
                    link_count,
                    frag_index: data.fragment,
                    block_offset: data.offset,
                    xattr_index: meta.xattrs,
                    block_sizes: Vec::new(),
                }),
            ),
        };
        let place = self.put(meta, number, id, inner, &[])?;
        // The sizes are written here: the list of a sparse file may be too long for memory.
        if data.blocks != FileData::NONE {
            let count = data.size.div_ceil(BLOCK_SIZE as u64);
            for size in self.written.block_sizes(first, count) {
                self.inodes.write(&size.to_le_bytes())?;
            }
        }
        Ok(place)
    }

    fn symlink(
        &mut self,
        meta: Meta,
        number: u32,
        link_count: u32,
        target: &[u8],
    ) -> Result<MetadataRef, Failure> {
        // backhand refuses targets over 255 bytes. It encodes an empty one, whose length is the last field.
        let inner = InodeInner::BasicSymlink(BasicSymlink {
            link_count,
            target_size: 0,
            target_path: Vec::new(),
        });
        let extended = meta.xattrs != Meta::NO_XATTRS;
        let mut bytes = self.encode(meta, number, InodeId::BasicSymlink, inner)?;
        if extended {
            bytes.splice(..2, (InodeId::ExtendedSymlink as u16).to_le_bytes());
        }
        bytes.truncate(bytes.len() - 4);
        bytes.extend((target.len() as u32).to_le_bytes());
        bytes.extend(target);
        if extended {
            bytes.extend(meta.xattrs.to_le_bytes());
        }
        self.append(number, &bytes)
    }

    fn put(
        &mut self,
        meta: Meta,
        number: u32,
        id: InodeId,
        inner: InodeInner,
        tail: &[u8],
    ) -> Result<MetadataRef, Failure> {
        let mut bytes = self.encode(meta, number, id, inner)?;
        bytes.extend(tail);
        self.append(number, &bytes)
    }

    fn encode(
        &mut self,
        meta: Meta,
        inode_number: u32,
        id: InodeId,
        inner: InodeInner,
    ) -> Result<Vec<u8>, Failure> {
        let header = InodeHeader {
            permissions: meta.mode,
            uid: self.ids.place(meta.uid)?,
            gid: self.ids.place(meta.gid)?,
            mtime: meta.mtime,
            inode_number,
        };
        let mut bytes = Cursor::new(Vec::new());
        Inode::new(id, header, inner)
            .to_writer(
                &mut Writer::new(&mut bytes),
                (
                    u64::MAX,
                    BLOCK_SIZE as u32,
                    BLOCK_SIZE.ilog2() as u16,
                    Endian::Little,
                ),
            )
            .map_err(io::Error::other)?;
        Ok(bytes.into_inner())
    }

    fn append(&mut self, number: u32, bytes: &[u8]) -> Result<MetadataRef, Failure> {
        let place = self.inodes.place();
        self.inodes.write(bytes)?;
        if let Some(slot) = self.references.get_mut(number as usize - 1) {
            *slot = place.reference();
        }
        Ok(place)
    }
}

fn basic_type(kind: &NodeKind) -> InodeId {
    match kind {
        NodeKind::Directory(_) => InodeId::BasicDirectory,
        NodeKind::Symlink(_) => InodeId::BasicSymlink,
        NodeKind::Block(_) => InodeId::BasicBlockDevice,
        NodeKind::Char(_) => InodeId::BasicCharacterDevice,
        NodeKind::Fifo => InodeId::BasicNamedPipe,
        _ => InodeId::BasicFile,
    }
}

/// A failed write, or a typed error of the layers above.
#[derive(Debug)]
pub(super) enum Failure {
    Write(io::Error),
    Typed(crate::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Write(error)
    }
}

impl From<crate::Error> for Failure {
    fn from(error: crate::Error) -> Self {
        Self::Typed(error)
    }
}
