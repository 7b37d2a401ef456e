//! Stacks one layer's tree on the layers below, as the kernel's overlay file system shows them.
//!
//! A directory over a directory keeps the children and takes the upper one's attributes; anything
//! else replaces what was there. A directory the layer's archive never named, but needed for a name
//! below it, keeps the lower layer's attributes: containerd does so, and the image's author meant it.

use super::tree::{Directory, Node, NodeId, NodeKind, Path, Refused, Tree, shown};

/// A directory of the upper tree and the one it lands on.
struct Pair {
    upper: Directory,
    lower: NodeId,
}

/// Merges `upper` into `lower`.
pub(super) fn overlay(lower: &mut Tree, mut upper: Tree) -> Result<(), Refused> {
    let links = lower_links(lower, &mut upper)?;
    // Hard links of the upper tree: where its nodes went.
    let mut moved: Vec<Option<NodeId>> = vec![None; upper.len()];
    for (id, target) in &links {
        if let Some(slot) = moved.get_mut(*id as usize) {
            *slot = Some(*target);
        }
    }
    let root = take(&mut upper, Tree::ROOT);
    let NodeKind::Directory(directory) = root.kind else {
        return Ok(());
    };
    if !directory.implied {
        lower.set_root(root.meta);
    }
    if directory.opaque {
        lower.clear(Tree::ROOT);
    }
    let mut pending = vec![Pair {
        upper: *directory,
        lower: Tree::ROOT,
    }];
    while let Some(pair) = pending.pop() {
        for (name, id) in pair.upper.entries {
            if let Some(target) = moved.get(id as usize).copied().flatten() {
                lower.link(pair.lower, &name, target);
                continue;
            }
            let node = take(&mut upper, id);
            match node.kind {
                NodeKind::Whiteout => lower.unlink(pair.lower, &name),
                NodeKind::Directory(directory) => {
                    let target = merge_directory(lower, pair.lower, &name, node.meta, &directory);
                    pending.push(Pair {
                        upper: *directory,
                        lower: target,
                    });
                }
                kind => {
                    let target = lower.add(node.meta, kind);
                    if let Some(slot) = moved.get_mut(id as usize) {
                        *slot = Some(target);
                    }
                    lower.link(pair.lower, &name, target);
                }
            }
        }
    }
    // The names the links were held by while lower layers' own names were being replaced.
    for (_, target) in links {
        lower.release(target);
    }
    Ok(())
}

fn take(tree: &mut Tree, id: NodeId) -> Node {
    let node = tree.node_mut(id);
    Node {
        meta: node.meta,
        links: 0,
        kind: std::mem::replace(&mut node.kind, NodeKind::Free),
    }
}

/// The directory of the lower tree that `directory` becomes or merges into.
fn merge_directory(
    lower: &mut Tree,
    parent: NodeId,
    name: &[u8],
    meta: super::tree::Meta,
    directory: &Directory,
) -> NodeId {
    let existing = lower
        .child(parent, name)
        .filter(|&id| lower.directory(id).is_some());
    match existing {
        Some(id) => {
            if !directory.implied {
                lower.node_mut(id).meta = meta;
            }
            if directory.opaque {
                lower.clear(id);
            }
            id
        }
        None => {
            let id = lower.add(meta, NodeKind::Directory(Box::default()));
            lower.link(parent, name, id);
            id
        }
    }
}

/// Finds what hard links to lower layers' files point to, and holds it.
fn lower_links(lower: &mut Tree, upper: &mut Tree) -> Result<Vec<(NodeId, NodeId)>, Refused> {
    let mut links = Vec::new();
    for id in 0..upper.len() as NodeId {
        let NodeKind::LowerLink(target) = &upper.node(id).kind else {
            continue;
        };
        let found = lower.find(&Path::parse(target)?)?;
        match found.filter(|&found| lower.directory(found).is_none()) {
            Some(found) => {
                lower.node_mut(found).links += 1;
                links.push((id, found));
            }
            None => {
                return Err(format!(
                    "has a hard link to {}, which is not a file of this layer or one below",
                    shown(target)
                ));
            }
        }
    }
    Ok(links)
}
