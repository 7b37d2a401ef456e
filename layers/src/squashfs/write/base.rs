//! Starts a squashfs file with layers of another one.
//!
//! Phases: the layers that both images have are decoded from the base's table of contents → their content is copied by
//! `copy_file_range`, so that nothing is inflated, and file systems that can share blocks do → the copy is hashed: what
//! was damaged in the base or on the way is not built upon → positions of blocks move by as much as their layer did.
//!
//! The base's own tables are not read. Its other layers and its `config.json` are left out, so the new file has no blocks
//! that a file made from nothing would not have.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use super::pipeline::{HOLES, SUPERBLOCK, Written};
use super::toc::{Recorded, Toc};
use super::{FileData, LayerTree, Options, RootfsWriter};
use crate::digest::Hashing;
use crate::error::{Error, Result};
use crate::squashfs::read::{BlockCache, Squashfs};
use crate::squashfs::tree::{Meta, NodeKind, Tree};
use crate::{DiffId, Digest};
use pcocc_core::cancel::Cancel;

/// Bytes that are copied between two looks at the flag of cancellation.
const STEP: u64 = 64 << 20;
/// Bytes that are hashed, or copied by hand, at a time.
const PIECE: usize = 1 << 20;

/// The error for a base that is not what its table of contents says.
fn damaged(why: impl Into<String>) -> Error {
    Error::invalid("squashfs file of another image", why)
}

impl RootfsWriter {
    /// Starts a squashfs file in the empty `file` with the layers `wanted` of the file `base`, as far as its table of
    /// contents `toc` has them; returns their trees, too. The order of `wanted` does not matter.
    ///
    /// Fails with [`Error::Invalid`] when the base is not what the table says. Then `file` has to be emptied.
    pub fn on_base(
        file: File,
        path: &Path,
        options: Options,
        base: &File,
        toc: &Toc,
        wanted: &[DiffId],
        cancel: &Cancel,
    ) -> Result<(Self, Vec<(DiffId, LayerTree)>)> {
        let mut layers = recorded(toc, wanted)?;
        layers.sort_by_key(|(_, layer)| layer.start);
        copy(base, &file, path, &layers, cancel)?;
        begin(file, path, options, layers, &mut |file, bytes, digest| {
            verify(file, path, bytes, digest, cancel)
        })
    }
}

/// Looks at the content of one layer in the new file: its place, and the digest that it must have.
type Verify<'a> = dyn FnMut(&File, Range<u64>, Digest) -> Result<()> + 'a;

/// Starts a writer behind the content of `layers`, which lies in `file` one layer behind the other.
fn begin(
    file: File,
    path: &Path,
    options: Options,
    layers: Vec<(DiffId, Recorded)>,
    verify: &mut Verify<'_>,
) -> Result<(RootfsWriter, Vec<(DiffId, LayerTree)>)> {
    let mut written = Written::default();
    let mut placed = Vec::with_capacity(layers.len());
    for (diff_id, layer) in layers {
        let content = append(&mut written, &layer.content)?;
        verify(&file, content.start..written.end, layer.digest)?;
        written.end_region(content.start, layer.digest);
        placed.push((diff_id, layer, content));
    }
    let mut writer = RootfsWriter::append(file, path, options, written)?;
    let mut trees = Vec::with_capacity(placed.len());
    for (region, (diff_id, layer, content)) in placed.into_iter().enumerate() {
        let name = diff_id.to_string();
        writer.taken.add(&layer.taken);
        if let Err(why) = writer.taken.check(&options) {
            return Err(Error::invalid(format!("layer {name}"), why));
        }
        let tree = LayerTree {
            name,
            taken: layer.taken,
            tree: content.place(layer, &mut writer),
            region,
        };
        trees.push((diff_id, tree));
    }
    Ok((writer, trees))
}

/// Whether `plain` is the inside of a table of contents whose layers are sound, too. What is accepted survives encoding,
/// and a file made of it is a squashfs, whatever its content.
pub(crate) fn accepts(plain: &[u8]) -> bool {
    let decoded = |toc: &Toc| {
        let layers = toc.layers().iter();
        let layers = layers.map(|(diff_id, layer)| Ok((*diff_id, layer.decode()?)));
        layers.collect::<Result<Vec<_>>>()
    };
    let Ok(toc) = Toc::split(plain) else {
        return false;
    };
    let Ok(layers) = decoded(&toc) else {
        return false;
    };
    if let Some(encoded) = toc.encode() {
        assert!(Toc::decode(&encoded).is_ok_and(|again| again == toc));
    }
    let options = Options {
        max_bytes: 16 << 20,
        ..Options::default()
    };
    let path = Path::new("fuzz");
    let made = || {
        let file = tempfile::tempfile().map_err(Error::io("make", path))?;
        let handle = file.try_clone().map_err(Error::io("open", path))?;
        let (writer, trees) = begin(handle, path, options, layers, &mut |_, _, _| Ok(()))?;
        let trees = trees.into_iter().map(|(_, tree)| tree).collect();
        let finished = writer.finish(trees, b"{}", &Cancel::new())?;
        Ok::<_, Error>((file, finished.layers))
    };
    if let Ok((file, again)) = made() {
        assert!(Squashfs::open(Arc::new(file), BlockCache::new(1 << 20)).is_ok());
        assert!(again.iter().all(|layer| layer.decode().is_ok()));
    }
    true
}

/// The layers of the table that are wanted, each as often as it is.
fn recorded(toc: &Toc, wanted: &[DiffId]) -> Result<Vec<(DiffId, Recorded)>> {
    let mut left: HashMap<DiffId, usize> = HashMap::new();
    for diff_id in wanted {
        *left.entry(*diff_id).or_default() += 1;
    }
    let mut layers = Vec::new();
    for (diff_id, layer) in toc.layers() {
        if let Some(left) = left.get_mut(diff_id).filter(|left| **left > 0) {
            *left -= 1;
            layers.push((*diff_id, layer.decode()?));
        }
    }
    Ok(layers)
}

/// What a layer's numbers count from in the new file.
struct Placed {
    /// Position of its content.
    start: u64,
    files: u32,
    fragments: u32,
}

impl Placed {
    /// Turns the layer's own numbers into those of the file.
    fn place(&self, layer: Recorded, writer: &mut RootfsWriter) -> Tree {
        let sets: Vec<u32> = layer
            .sets
            .into_iter()
            .map(|set| writer.xattrs.intern(set))
            .collect();
        let mut tree = layer.tree;
        for node in tree.nodes_mut() {
            let set = sets.get(node.meta.xattrs as usize);
            node.meta.xattrs = set.copied().unwrap_or(Meta::NO_XATTRS);
            if let NodeKind::File(data) = &mut node.kind {
                if data.blocks != FileData::NONE {
                    data.blocks += self.files;
                }
                if data.fragment != FileData::NONE {
                    data.fragment += self.fragments;
                }
            }
        }
        tree
    }
}

/// Adds a layer's content behind what is there.
fn append(written: &mut Written, content: &Written) -> Result<Placed> {
    let fits = |there: usize, more: usize| there + more < HOLES as usize;
    if !fits(written.files.len(), content.files.len())
        || !fits(written.sizes.len(), content.sizes.len())
        || !fits(written.fragments.len(), content.fragments.len())
    {
        return Err(damaged("has too many blocks"));
    }
    let placed = Placed {
        start: written.end,
        files: written.files.len() as u32,
        fragments: written.fragments.len() as u32,
    };
    let first = written.sizes.len() as u32;
    for &(start, size) in &content.files {
        // Only a file without blocks, which no node has, starts anywhere.
        let start = placed.start.saturating_add(start);
        written.files.push((start, first.saturating_add(size)));
    }
    written.sizes.extend(&content.sizes);
    for &(start, size) in &content.fragments {
        written.fragments.push((placed.start + start, size));
    }
    written.end += content.end;
    Ok(placed)
}

/// Copies the content of all layers, one behind the other.
fn copy(
    base: &File,
    file: &File,
    path: &Path,
    layers: &[(DiffId, Recorded)],
    cancel: &Cancel,
) -> Result<()> {
    let mut layers = layers.iter().map(|(_, layer)| layer).peekable();
    let mut to = SUPERBLOCK;
    while let Some(first) = layers.next() {
        let start = first.start;
        let mut end = start.saturating_add(first.content.end);
        // Layers that lie side by side are one piece.
        while let Some(next) = layers.next_if(|next| next.start == end) {
            end = end.saturating_add(next.content.end);
        }
        if start < SUPERBLOCK || layers.peek().is_some_and(|next| next.start < end) {
            return Err(damaged("has layers in impossible places"));
        }
        // Blocks can be shared only from a multiple of their length on. The superblock is overwritten.
        let aligned = if to == start && to == SUPERBLOCK {
            to
        } else {
            0
        };
        copy_range(
            base,
            start - aligned,
            file,
            to - aligned,
            end - start + aligned,
            cancel,
        )
        .map_err(|error| match error {
            Stop::Failed(error) => Error::io("write", path)(error),
            Stop::Typed(error) => error,
        })?;
        to += end - start;
    }
    Ok(())
}

/// Why copying ended.
enum Stop {
    Failed(io::Error),
    Typed(Error),
}

fn copy_range(
    base: &File,
    mut from: u64,
    file: &File,
    mut to: u64,
    length: u64,
    cancel: &Cancel,
) -> Result<(), Stop> {
    let mut left = length;
    let mut by_hand = None;
    while left > 0 {
        cancel
            .check()
            .map_err(|cancelled| Stop::Typed(cancelled.into()))?;
        let step = left.min(STEP);
        let copied = match &mut by_hand {
            None => {
                let (mut from, mut to) = (from, to);
                let step = usize::try_from(step).unwrap_or(usize::MAX);
                match rustix::fs::copy_file_range(base, Some(&mut from), file, Some(&mut to), step)
                {
                    Ok(copied) => copied as u64,
                    Err(rustix::io::Errno::INTR) => continue,
                    Err(error) if is_unable(error) => {
                        by_hand = Some(vec![0; PIECE]);
                        continue;
                    }
                    Err(error) => return Err(Stop::Failed(error.into())),
                }
            }
            Some(piece) => {
                let wanted = piece.len().min(usize::try_from(step).unwrap_or(usize::MAX));
                let piece = piece.get_mut(..wanted).unwrap_or_default();
                let count = base.read_at(piece, from).map_err(|error| {
                    Stop::Typed(Error::io("read", "squashfs file of another image")(error))
                })?;
                let read = piece.get(..count).unwrap_or_default();
                file.write_all_at(read, to).map_err(Stop::Failed)?;
                count as u64
            }
        };
        if copied == 0 {
            return Err(Stop::Typed(damaged("is truncated")));
        }
        from += copied;
        to += copied;
        left -= copied;
    }
    Ok(())
}

/// Whether the kernel or a file system cannot copy between these files (copy_file_range(2)).
fn is_unable(error: rustix::io::Errno) -> bool {
    use rustix::io::Errno;
    [
        Errno::XDEV,
        Errno::NOSYS,
        Errno::OPNOTSUPP,
        Errno::INVAL,
        Errno::PERM,
    ]
    .contains(&error)
}

/// Compares the content at `bytes` with the digest of the table.
fn verify(
    file: &File,
    path: &Path,
    bytes: Range<u64>,
    expected: Digest,
    cancel: &Cancel,
) -> Result<()> {
    let mut position = bytes.start;
    let mut hash = Hashing::new(io::sink());
    let mut piece = vec![0; PIECE];
    while position < bytes.end {
        cancel.check()?;
        let wanted = usize::try_from(bytes.end - position).map_or(PIECE, |left| left.min(PIECE));
        let piece = piece.get_mut(..wanted).unwrap_or_default();
        file.read_exact_at(piece, position)
            .and_then(|()| io::Write::write_all(&mut hash, piece))
            .map_err(Error::io("read", path))?;
        position += wanted as u64;
    }
    match hash.finish() {
        (found, ..) if found == expected => Ok(()),
        (found, ..) => Err(damaged(format!(
            "is damaged: its content is {found} instead of {expected}"
        ))),
    }
}
