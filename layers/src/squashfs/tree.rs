//! The names of one layer, or of layers merged, as a tree in memory.
//!
//! A layer's tree is what the daemon would unpack into the layer's own folder, before the overlay file system
//! stacks the folders. Whiteouts are nodes, opaque directories carry a mark. The path of an entry is looked up
//! in this layer alone, as after a `chroot`; the machine's own file system is never touched. Nodes live in one
//! vector and are freed with their last name. Walks keep a stack of their own, because an archive chooses the
//! depth of the tree.

use std::collections::BTreeMap;

use super::write::FileData;

/// Longest name of a directory entry.
pub(super) const MAX_NAME: usize = 255;
/// Longest path and longest target of a symbolic link, as in the kernel.
pub(super) const MAX_PATH: usize = 4095;
/// Most symbolic links a path may go through, as in the kernel.
const MAX_LINKS: usize = 40;

pub(super) type NodeId = u32;

/// Owner, permissions, time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Meta {
    pub(super) mode: u16,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: u32,
    /// Number of the set of extended attributes, or [`Meta::NO_XATTRS`].
    pub(super) xattrs: u32,
}

impl Meta {
    pub(super) const NO_XATTRS: u32 = u32::MAX;

    /// The attributes of a directory that is needed and that no entry names.
    pub(super) const DIRECTORY: Self = Self {
        mode: 0o755,
        uid: 0,
        gid: 0,
        mtime: 0,
        xattrs: Self::NO_XATTRS,
    };

    /// The attributes of a file that is in no layer.
    pub(super) const FILE: Self = Self {
        mode: 0o644,
        ..Self::DIRECTORY
    };
}

/// A directory's content.
#[derive(Debug, Default)]
pub(super) struct Directory {
    pub(super) entries: BTreeMap<Box<[u8]>, NodeId>,
    /// Hides the content of this directory in lower layers.
    pub(super) opaque: bool,
    /// Made because an entry below needs it: a lower layer's attributes win.
    pub(super) implied: bool,
}

/// Kind of a node, with its content.
#[derive(Debug)]
pub(super) enum NodeKind {
    Directory(Box<Directory>),
    File(Box<FileData>),
    Symlink(Box<[u8]>),
    Block(u32),
    Char(u32),
    Fifo,
    /// A hard link to a file that only a lower layer has.
    LowerLink(Box<[u8]>),
    /// Removes the name from the layers below.
    Whiteout,
    /// Free for reuse.
    Free,
}

/// A file with any number of names.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) meta: Meta,
    /// Number of its names.
    pub(super) links: u32,
    pub(super) kind: NodeKind,
}

/// Why an entry does not fit in the tree.
pub(super) type Refused = String;

/// Nodes, the first of which is the root directory.
#[derive(Debug)]
pub(super) struct Tree {
    nodes: Vec<Node>,
    free: Vec<NodeId>,
}

impl Tree {
    pub(super) const ROOT: NodeId = 0;

    pub(super) fn new() -> Self {
        let root = Directory {
            implied: true,
            ..Directory::default()
        };
        Self {
            nodes: vec![Node {
                meta: Meta::DIRECTORY,
                links: 1,
                kind: NodeKind::Directory(Box::new(root)),
            }],
            free: Vec::new(),
        }
    }

    /// Puts a tree together. The first node must be a directory, and each node know the number of its names.
    pub(super) fn from_nodes(nodes: Vec<Node>) -> Self {
        let ids = (0..).zip(&nodes);
        let free = ids.filter(|(_, node)| matches!(node.kind, NodeKind::Free));
        Self {
            free: free.map(|(id, _)| id).collect(),
            nodes,
        }
    }

    /// All nodes, freed ones included.
    pub(super) fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// All nodes, freed ones included.
    pub(super) fn nodes_mut(&mut self) -> &mut [Node] {
        &mut self.nodes
    }

    /// Number of nodes, freed ones included.
    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    pub(super) fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id as usize]
    }

    pub(super) fn node_mut(&mut self, id: NodeId) -> &mut Node {
        &mut self.nodes[id as usize]
    }

    pub(super) fn directory(&self, id: NodeId) -> Option<&Directory> {
        match &self.node(id).kind {
            NodeKind::Directory(directory) => Some(directory),
            _ => None,
        }
    }

    pub(super) fn directory_mut(&mut self, id: NodeId) -> Option<&mut Directory> {
        match &mut self.node_mut(id).kind {
            NodeKind::Directory(directory) => Some(directory),
            _ => None,
        }
    }

    pub(super) fn child(&self, directory: NodeId, name: &[u8]) -> Option<NodeId> {
        self.directory(directory)?.entries.get(name).copied()
    }

    /// Adds a node without a name.
    pub(super) fn add(&mut self, meta: Meta, kind: NodeKind) -> NodeId {
        let node = Node {
            meta,
            links: 0,
            kind,
        };
        match self.free.pop() {
            Some(id) => {
                self.nodes[id as usize] = node;
                id
            }
            None => {
                self.nodes.push(node);
                // The limit on entries is far below this.
                u32::try_from(self.nodes.len() - 1).unwrap_or(u32::MAX)
            }
        }
    }

    /// Gives a node a name; the previous node of that name is released.
    pub(super) fn link(&mut self, directory: NodeId, name: &[u8], node: NodeId) {
        self.node_mut(node).links += 1;
        let previous = self
            .directory_mut(directory)
            .and_then(|directory| directory.entries.insert(name.into(), node));
        if let Some(previous) = previous {
            self.release(previous);
        }
    }

    /// Removes a name, and everything below it.
    pub(super) fn unlink(&mut self, directory: NodeId, name: &[u8]) {
        let previous = self
            .directory_mut(directory)
            .and_then(|directory| directory.entries.remove(name));
        if let Some(previous) = previous {
            self.release(previous);
        }
    }

    /// Removes one name of a node; a node without names is freed.
    pub(super) fn release(&mut self, node: NodeId) {
        let mut pending = vec![node];
        while let Some(id) = pending.pop() {
            let node = self.node_mut(id);
            node.links = node.links.saturating_sub(1);
            if node.links == 0 {
                let kind = std::mem::replace(&mut node.kind, NodeKind::Free);
                if let NodeKind::Directory(directory) = kind {
                    pending.extend(directory.entries.into_values());
                }
                self.free.push(id);
            }
        }
    }

    /// Releases everything in a directory.
    pub(super) fn clear(&mut self, directory: NodeId) {
        let entries = self
            .directory_mut(directory)
            .map(|directory| std::mem::take(&mut directory.entries));
        for node in entries.into_iter().flat_map(BTreeMap::into_values) {
            self.release(node);
        }
    }

    /// Sets the root directory's attributes.
    pub(super) fn set_root(&mut self, meta: Meta) {
        self.node_mut(Self::ROOT).meta = meta;
        if let Some(root) = self.directory_mut(Self::ROOT) {
            root.implied = false;
        }
    }

    /// Puts an entry at the cleaned path `path`, in place of an earlier entry.
    pub(super) fn insert(
        &mut self,
        path: &Path,
        meta: Meta,
        kind: NodeKind,
    ) -> Result<(), Refused> {
        let (parent, name) = self.place(path)?;
        let existing = self.child(parent, name);
        let mut kind = kind;
        if let (Some(id), NodeKind::Directory(new)) = (existing, &mut kind) {
            match &mut self.node_mut(id).kind {
                NodeKind::Directory(directory) => {
                    directory.implied = false;
                    self.node_mut(id).meta = meta;
                    return Ok(());
                }
                // The name was removed from the layers below: the directory starts empty.
                NodeKind::Whiteout => new.opaque = true,
                _ => {}
            }
        }
        let node = self.add(meta, kind);
        self.link(parent, name, node);
        Ok(())
    }

    /// Makes `path` another name of the file at `target`.
    pub(super) fn hard_link(
        &mut self,
        path: &Path,
        target: &Path,
        meta: Meta,
    ) -> Result<(), Refused> {
        let (parent, name) = self.place(path)?;
        // The daemon removes the previous file of the name first. So a link to itself is a link to nothing.
        self.unlink(parent, name);
        let found = match target.split() {
            Some((folders, last)) => self
                .walk(folders, false)?
                .and_then(|folder| self.child(folder, last)),
            None => Some(Self::ROOT),
        };
        let Some(found) = found else {
            if path == target {
                return Err("is a hard link to itself".into());
            }
            let node = self.add(meta, NodeKind::LowerLink(target.join().into()));
            self.link(parent, name, node);
            return Ok(());
        };
        match self.node(found).kind {
            NodeKind::Directory(_) => return Err("is a hard link to a directory".into()),
            NodeKind::Whiteout => return Err("is a hard link to a file this layer removes".into()),
            NodeKind::LowerLink(_) => {}
            // Attributes belong to the file, whichever of its names brings them. The daemon leaves the time of
            // a symbolic link alone here.
            NodeKind::Symlink(_) => {
                let mtime = self.node(found).meta.mtime;
                self.node_mut(found).meta = Meta {
                    mode: 0o777,
                    mtime,
                    ..meta
                };
            }
            _ => self.node_mut(found).meta = meta,
        }
        self.link(parent, name, found);
        Ok(())
    }

    /// Hides the name `hidden` beside `path` in the layers below.
    pub(super) fn whiteout(&mut self, folder: &Path, hidden: &[u8]) -> Result<(), Refused> {
        let Some(parent) = self.walk(&folder.0, true)? else {
            return Err("has no folder".into());
        };
        // A whiteout concerns lower layers only: an entry of this layer stays.
        match self.child(parent, hidden) {
            None => {
                let node = self.add(Meta::DIRECTORY, NodeKind::Whiteout);
                self.link(parent, hidden, node);
            }
            Some(id) => {
                if let Some(directory) = self.directory_mut(id) {
                    directory.opaque = true;
                }
            }
        }
        Ok(())
    }

    /// Hides the content of a directory in all layers below.
    pub(super) fn opaque(&mut self, folder: &Path) -> Result<(), Refused> {
        let directory = self.walk(&folder.0, true)?;
        match directory.and_then(|id| self.directory_mut(id)) {
            Some(directory) => {
                directory.opaque = true;
                Ok(())
            }
            None => Err("has no folder".into()),
        }
    }

    /// The directory of an entry, made if missing, and the entry's name in it.
    fn place<'p>(&mut self, path: &'p Path) -> Result<(NodeId, &'p [u8]), Refused> {
        let Some((folders, name)) = path.split() else {
            return Err("would replace the root directory".into());
        };
        match self.walk(folders, true)? {
            Some(parent) => Ok((parent, name)),
            None => Err("has no folder".into()),
        }
    }

    /// Follows `folders` from the root, through symbolic links of this tree; makes missing directories if
    /// `create` is set.
    fn walk(&mut self, folders: &[Vec<u8>], create: bool) -> Result<Option<NodeId>, Refused> {
        let mut stack = vec![Self::ROOT];
        // The components still to follow, the next one last; the flag marks components of a link's target.
        let mut pending: Vec<(Vec<u8>, bool)> = folders
            .iter()
            .rev()
            .map(|name| (name.clone(), false))
            .collect();
        let mut links = 0;
        while let Some((name, from_link)) = pending.pop() {
            let here = stack.last().copied().unwrap_or(Self::ROOT);
            match name.as_slice() {
                b"" | b"." => continue,
                b".." => {
                    stack.truncate(stack.len().saturating_sub(1).max(1));
                    continue;
                }
                _ => {}
            }
            let child = self.child(here, &name);
            match child.map(|id| (id, &self.node(id).kind)) {
                Some((id, NodeKind::Directory(_))) => stack.push(id),
                Some((_, NodeKind::Symlink(target))) => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err("goes through too many symbolic links".into());
                    }
                    if target.starts_with(b"/") {
                        stack.truncate(1);
                    }
                    let parts = target.split(|&byte| byte == b'/').rev();
                    pending.extend(parts.map(|part| (part.to_vec(), true)));
                }
                None | Some((_, NodeKind::Whiteout)) => {
                    if !create {
                        return Ok(None);
                    }
                    if from_link {
                        return Err(format!(
                            "goes through a symbolic link to {}, which this layer does not have",
                            shown(&name)
                        ));
                    }
                    let directory = Directory {
                        implied: true,
                        opaque: child.is_some(),
                        ..Directory::default()
                    };
                    let id = self.add(Meta::DIRECTORY, NodeKind::Directory(Box::new(directory)));
                    self.link(here, &name, id);
                    stack.push(id);
                }
                Some(_) if !create => return Ok(None),
                Some(_) => {
                    return Err(format!(
                        "goes through {}, which is not a directory",
                        shown(&name)
                    ));
                }
            }
        }
        Ok(stack.last().copied())
    }

    /// The file at `target`; nothing is made.
    pub(super) fn find(&mut self, target: &Path) -> Result<Option<NodeId>, Refused> {
        Ok(match target.split() {
            Some((folders, name)) => self
                .walk(folders, false)?
                .and_then(|folder| self.child(folder, name)),
            None => Some(Self::ROOT),
        })
    }
}

/// A name for a message: of limited length, and printable whatever its bytes.
pub(super) fn shown(name: &[u8]) -> String {
    const MOST: usize = 200;
    let start = name.get(..MOST).unwrap_or(name);
    let mut shown = String::from_utf8_lossy(start).escape_debug().to_string();
    if name.len() > MOST {
        shown.push('…');
    }
    shown
}

/// A path of an archive, cleaned: its components, none of them `.`, `..` or empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Path(Vec<Vec<u8>>);

impl Path {
    /// Cleans a path as the daemon does: it is relative to the root with or without a slash in front, `a/../b`
    /// is `b`, and a path that leaves the root is refused.
    pub(super) fn parse(path: &[u8]) -> Result<Self, Refused> {
        if path.len() > MAX_PATH {
            return Err(format!("has a path longer than {MAX_PATH} bytes"));
        }
        if path.contains(&0) {
            return Err("has a zero byte in its path".into());
        }
        let mut components: Vec<Vec<u8>> = Vec::new();
        for component in path.split(|&byte| byte == b'/') {
            match component {
                b"" | b"." => {}
                b".." => {
                    if components.pop().is_none() {
                        return Err("leaves the image's root directory".into());
                    }
                }
                _ if component.len() > MAX_NAME => {
                    return Err(format!("has a name longer than {MAX_NAME} bytes"));
                }
                _ => components.push(component.to_vec()),
            }
        }
        Ok(Self(components))
    }

    pub(super) fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The components of the folder, and the last component.
    fn split(&self) -> Option<(&[Vec<u8>], &[u8])> {
        self.0
            .split_last()
            .map(|(last, folders)| (folders, last.as_slice()))
    }

    pub(super) fn components(&self) -> &[Vec<u8>] {
        &self.0
    }

    /// The folder of this path, and the last component.
    pub(super) fn into_parts(mut self) -> Option<(Self, Vec<u8>)> {
        let last = self.0.pop()?;
        Some((self, last))
    }

    fn join(&self) -> Vec<u8> {
        self.0.join(&b'/')
    }
}
