//! The names of one layer in a table of contents: the nodes of its tree, in their order.
//!
//! A node is a byte for its kind; unless it is free, u16 mode, u32 owner, group, time and set of attributes; then
//! by kind: a directory's flags (1: opaque, 2: implied) and u32 entries of u8 name and u32 node; a file's u64 size,
//! u32 place among the files with blocks, u32 fragment block, u32 offset in it, u64 bytes in holes; the u16 target
//! of a link; a device's u32 number.

use std::collections::BTreeMap;

use super::broken;
use super::bytes::{Input, put_count, put_u16, put_u32, put_u64};
use crate::error::Result;
use crate::squashfs::tree::{Directory, MAX_NAME, MAX_PATH, Meta, Node, NodeId, NodeKind, Tree};
use crate::squashfs::write::pipeline::Written;
use crate::squashfs::write::{BLOCK_SIZE, FileData};

const FREE: u8 = 0;
const DIRECTORY: u8 = 1;
const FILE: u8 = 2;
const SYMLINK: u8 = 3;
const BLOCK: u8 = 4;
const CHAR: u8 = 5;
const FIFO: u8 = 6;
const LOWER_LINK: u8 = 7;
const WHITEOUT: u8 = 8;

const OPAQUE: u8 = 1;
const IMPLIED: u8 = 2;

/// Least bytes of a node.
const LEAST: usize = 1;
/// Least bytes of a directory's entry: a name of one byte.
const LEAST_ENTRY: usize = 6;

/// Encodes a tree; `xattrs` gives the layer's own number of a set of attributes.
pub(super) fn encode(
    tree: &Tree,
    first_file: u32,
    first_fragment: u32,
    xattrs: &mut dyn FnMut(u32) -> u32,
) -> Vec<u8> {
    let mut out = Vec::new();
    put_count(&mut out, tree.len());
    for node in tree.nodes() {
        let kind = match &node.kind {
            NodeKind::Free => FREE,
            NodeKind::Directory(_) => DIRECTORY,
            NodeKind::File(_) => FILE,
            NodeKind::Symlink(_) => SYMLINK,
            NodeKind::Block(_) => BLOCK,
            NodeKind::Char(_) => CHAR,
            NodeKind::Fifo => FIFO,
            NodeKind::LowerLink(_) => LOWER_LINK,
            NodeKind::Whiteout => WHITEOUT,
        };
        out.push(kind);
        if kind == FREE {
            continue;
        }
        let meta = &node.meta;
        put_u16(&mut out, meta.mode);
        for number in [meta.uid, meta.gid, meta.mtime, xattrs(meta.xattrs)] {
            put_u32(&mut out, number);
        }
        match &node.kind {
            NodeKind::Directory(directory) => {
                let opaque = if directory.opaque { OPAQUE } else { 0 };
                let implied = if directory.implied { IMPLIED } else { 0 };
                out.push(opaque | implied);
                put_count(&mut out, directory.entries.len());
                for (name, child) in &directory.entries {
                    out.push(name.len() as u8);
                    out.extend(name);
                    put_u32(&mut out, *child);
                }
            }
            NodeKind::File(data) => {
                put_u64(&mut out, data.size);
                put_u32(&mut out, within(data.blocks, first_file));
                put_u32(&mut out, within(data.fragment, first_fragment));
                put_u32(&mut out, data.offset);
                put_u64(&mut out, data.sparse);
            }
            NodeKind::Symlink(target) | NodeKind::LowerLink(target) => {
                put_u16(&mut out, target.len() as u16);
                out.extend(target);
            }
            NodeKind::Block(device) | NodeKind::Char(device) => put_u32(&mut out, *device),
            NodeKind::Fifo | NodeKind::Whiteout | NodeKind::Free => {}
        }
    }
    out
}

/// A number of the squashfs file as a number of the layer.
fn within(number: u32, first: u32) -> u32 {
    match number {
        FileData::NONE => FileData::NONE,
        number => number - first,
    }
}

/// Decodes a tree whose files have the content `content`; it has `sets` sets of attributes.
pub(super) fn decode(input: &mut Input<'_>, content: &Written, sets: usize) -> Result<Tree> {
    let mut nodes = Vec::new();
    for _ in 0..input.count(LEAST)? {
        nodes.push(node(input, content, sets)?);
    }
    count_links(&mut nodes)?;
    Ok(Tree::from_nodes(nodes))
}

fn node(input: &mut Input<'_>, content: &Written, sets: usize) -> Result<Node> {
    let kind = input.u8()?;
    if kind == FREE {
        return Ok(Node {
            meta: Meta::DIRECTORY,
            links: 0,
            kind: NodeKind::Free,
        });
    }
    let meta = Meta {
        mode: input.u16()?,
        uid: input.u32()?,
        gid: input.u32()?,
        mtime: input.u32()?,
        xattrs: input.u32()?,
    };
    if meta.mode > 0o7777 || meta.xattrs != Meta::NO_XATTRS && meta.xattrs as usize >= sets {
        return Err(broken("has a file with impossible attributes"));
    }
    let kind = match kind {
        DIRECTORY => NodeKind::Directory(Box::new(directory(input)?)),
        FILE => NodeKind::File(Box::new(file(input, content)?)),
        SYMLINK => NodeKind::Symlink(target(input)?),
        BLOCK => NodeKind::Block(input.u32()?),
        CHAR => NodeKind::Char(input.u32()?),
        FIFO => NodeKind::Fifo,
        LOWER_LINK => NodeKind::LowerLink(target(input)?),
        WHITEOUT => NodeKind::Whiteout,
        _ => return Err(broken("has a file of an unknown kind")),
    };
    Ok(Node {
        meta,
        links: 0,
        kind,
    })
}

fn directory(input: &mut Input<'_>) -> Result<Directory> {
    let flags = input.u8()?;
    if flags & !(OPAQUE | IMPLIED) != 0 {
        return Err(broken("has a folder with unknown marks"));
    }
    let mut entries = Vec::new();
    for _ in 0..input.count(LEAST_ENTRY)? {
        let length = usize::from(input.u8()?);
        let name = input.take(length)?;
        let is_next = entries
            .last()
            .is_none_or(|(last, _): &(Box<[u8]>, NodeId)| **last < *name);
        let is_name = !matches!(name, b"" | b"." | b"..")
            && name.len() <= MAX_NAME
            && !name.contains(&b'/')
            && !name.contains(&0);
        if !is_next || !is_name {
            return Err(broken("has a folder with an impossible name"));
        }
        entries.push((name.into(), input.u32()?));
    }
    Ok(Directory {
        entries: BTreeMap::from_iter(entries),
        opaque: flags & OPAQUE != 0,
        implied: flags & IMPLIED != 0,
    })
}

fn target(input: &mut Input<'_>) -> Result<Box<[u8]>> {
    let length = usize::from(input.u16()?);
    let target = input.take(length)?;
    match target.is_empty() || length > MAX_PATH || target.contains(&0) {
        false => Ok(target.into()),
        true => Err(broken("has a link with an impossible target")),
    }
}

fn file(input: &mut Input<'_>, content: &Written) -> Result<FileData> {
    let data = FileData {
        size: input.u64()?,
        blocks: input.u32()?,
        fragment: input.u32()?,
        offset: input.u32()?,
        sparse: input.u64()?,
    };
    let is_sound = match (data.blocks, data.fragment) {
        (FileData::NONE, FileData::NONE) => data.size == 0,
        (FileData::NONE, fragment) => {
            (fragment as usize) < content.fragments.len()
                && u64::from(data.offset)
                    .checked_add(data.size)
                    .is_some_and(|end| end <= BLOCK_SIZE as u64)
        }
        (blocks, FileData::NONE) => has_blocks(content, blocks as usize, data.size),
        _ => false,
    };
    match is_sound && data.sparse <= data.size && data.size <= i64::MAX as u64 {
        true => Ok(data),
        false => Err(broken("has a file whose content leaves it")),
    }
}

fn has_blocks(content: &Written, number: usize, size: u64) -> bool {
    let Some(&(start, first)) = content.files.get(number) else {
        return false;
    };
    let count = size.div_ceil(BLOCK_SIZE as u64);
    let blocks = content.blocks(first as usize, count);
    blocks.count == count
        && start
            .checked_add(blocks.stored)
            .is_some_and(|end| end <= content.end)
}

/// Counts the names of each node; fails unless the nodes that are not free are one tree, whose folders have one name
/// each.
fn count_links(nodes: &mut [Node]) -> Result<()> {
    let mut links = vec![0u32; nodes.len()];
    let mut pending: Vec<NodeId> = Vec::new();
    let mut reach = |id: NodeId, pending: &mut Vec<NodeId>| {
        let slot = links.get_mut(id as usize);
        let (Some(slot), Some(node)) = (slot, nodes.get(id as usize)) else {
            return Err(broken("has a name without a file"));
        };
        *slot += 1;
        match (&node.kind, *slot) {
            (NodeKind::Free, _) => Err(broken("has a name without a file")),
            (NodeKind::Directory(_), 1) => {
                pending.push(id);
                Ok(())
            }
            (NodeKind::Directory(_), _) => Err(broken("has a folder with two names")),
            _ => Ok(()),
        }
    };
    reach(Tree::ROOT, &mut pending)?;
    if pending.is_empty() {
        return Err(broken("has a root that is not a directory"));
    }
    while let Some(id) = pending.pop() {
        if let Some(NodeKind::Directory(directory)) = nodes.get(id as usize).map(|node| &node.kind)
        {
            for &child in directory.entries.values() {
                reach(child, &mut pending)?;
            }
        }
    }
    for (node, links) in nodes.iter_mut().zip(links) {
        if links == 0 && !matches!(node.kind, NodeKind::Free) {
            return Err(broken("has a file without a name"));
        }
        node.links = links;
    }
    Ok(())
}
