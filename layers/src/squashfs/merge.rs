//! Stacks one layer's tree on the layers below, as the kernel's overlay file system shows them.
//!
//! A directory over a directory keeps the children and takes the upper directory's attributes; any other node
//! replaces the lower node. A directory that the layer's archive needs but does not name keeps the lower
//! layer's attributes, as in containerd and as the image's author meant.

use super::tree::{Directory, Node, NodeId, NodeKind, Path, Refused, Tree, shown};

/// A directory of the upper tree, and the directory of the lower tree that it is merged into.
struct Pair {
    upper: Directory,
    lower: NodeId,
}

/// Merges `upper` into `lower`.
pub(super) fn overlay(lower: &mut Tree, mut upper: Tree) -> Result<(), Refused> {
    let links = lower_links(lower, &mut upper)?;
    // For hard links of the upper tree: the new node of each old one.
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
    // The targets were held while the names of the lower layers were replaced.
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

/// The directory of the lower tree that `directory` becomes or is merged into.
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

/// Finds the targets of hard links to files of lower layers, and holds the targets.
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
