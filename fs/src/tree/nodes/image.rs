//! The folder of an image and the parts of its layout.
//!
//! The folder never changes, with two exceptions: a tool that has just copied the image in may write a part
//! once more, with the same content; and `rm -r` hides part after part before it removes the image.

use std::ffi::OsStr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use pcocc_core::cancel::Cancel;
use pcocc_image::layout::{MARKER, MARKER_NAME, check_marker};
use pcocc_image::oci::MAX_DOCUMENT;

use super::{Created, Named, Node, Operations, Stat, file, folder};
use crate::attributes::Attributes;
use crate::blob::BlobFile;
use crate::errno::{Errno, Result, errno_of_io};
use crate::process::Process;
use crate::staged::{Role, StagedFile, layout_role};
use crate::tree::image_key::{ImageKey, Part};
use crate::tree::images::{Content, ImageView};
use crate::tree::open_file::{Caching, OpenFile, Opened};
use crate::tree::{SOON, Tree};

/// The folder of an image, or a part of its layout.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ImageNode {
    /// The image.
    pub key: ImageKey,
    /// Which part.
    pub part: Part,
}

impl ImageNode {
    /// The node of an image's folder.
    pub fn top(key: ImageKey) -> Node {
        let part = Part::Top;
        Node::Image(Self { key, part })
    }

    /// The node of a part of an image.
    pub fn part(key: &ImageKey, part: Part) -> Node {
        let key = key.clone();
        Node::Image(Self { key, part })
    }

    /// The image as far as it is known without waiting; an unknown image is opened.
    fn glance(&self, tree: &Tree) -> Result<Arc<ImageView>> {
        match tree.images.peek(&self.key) {
            Some(view) => Ok(view),
            None => self.export(tree),
        }
    }

    /// The image as its store gives it.
    fn export(&self, tree: &Tree) -> Result<Arc<ImageView>> {
        let store = tree.view(self.key.store)?;
        tree.images.open(&self.key, store, &tree.status)
    }

    fn is_hidden(&self, tree: &Tree, part: Part) -> bool {
        tree.staging.is_hidden(&self.key, part)
    }

    /// Attributes of a part of this size.
    fn stat(&self, tree: &Tree, size: u64, validity: Duration) -> Stat {
        let date = self.key.date();
        let found = match self.part.is_folder() {
            true => Attributes::folder(tree.owner, 0o755, date),
            false => Attributes::file(tree.owner, 0o444, size, date),
        };
        (found, validity)
    }

    /// Opens a part for the tool that has just completed the image and goes on writing.
    fn rewrite(&self, tree: &Tree, part: Part) -> Result<Arc<dyn OpenFile>> {
        tree.staging.committed(&self.key).ok_or(Errno::ROFS)?;
        Ok(Arc::new(Rewrite {
            key: self.key.clone(),
            part,
            file: StagedFile::new(Arc::clone(&tree.staging_dir)),
        }))
    }

    /// Hides a part.
    fn hide(&self, tree: &Tree, name: &str) -> Result<()> {
        let part = self.part.child(name).ok_or(Errno::ROFS)?;
        tree.staging.hide(&self.key, part);
        Ok(())
    }
}

/// How long the size of a part is valid: the store may change what was committed.
fn validity(view: &ImageView) -> Duration {
    match view.is_final() {
        true => SOON,
        false => Duration::ZERO,
    }
}

impl Operations for ImageNode {
    fn may_wait(&self, tree: &Tree) -> bool {
        let view = tree.images.peek(&self.key);
        view.is_none_or(|view| !view.is_final())
    }

    fn known_attributes(&self, tree: &Tree) -> Result<Stat> {
        Ok(match self.part {
            Part::Top | Part::Blobs | Part::Sha256 => self.stat(tree, 0, SOON),
            Part::Marker => self.stat(tree, MARKER.len() as u64, SOON),
            part @ (Part::Index | Part::Blob(_)) => match tree.images.peek(&self.key) {
                Some(view) => self.stat(tree, view.size(part).unwrap_or(0), validity(&view)),
                None => self.stat(tree, 0, Duration::ZERO),
            },
        })
    }

    fn attributes(&self, tree: &Tree) -> Result<Stat> {
        match self.part {
            // An image that is being removed is not exported for the size of its next part.
            part @ (Part::Index | Part::Blob(_)) if !tree.staging.is_going(&self.key) => {
                let view = self.glance(tree)?;
                let size = view.size(part).ok_or(Errno::NOENT)?;
                Ok(self.stat(tree, size, validity(&view)))
            }
            _ => self.known_attributes(tree),
        }
    }

    fn lookup(&self, tree: &Tree, name: &OsStr) -> Result<Option<Node>> {
        if !self.part.is_folder() {
            return Err(Errno::NOTDIR);
        }
        let part = name.to_str().and_then(|name| self.part.child(name));
        let Some(part) = part.filter(|part| !self.is_hidden(tree, *part)) else {
            return Ok(None);
        };
        let exists = match part {
            Part::Blob(_) => self.glance(tree)?.size(part).is_some(),
            _ => true,
        };
        Ok(exists.then(|| Self::part(&self.key, part)))
    }

    fn list(&self, tree: &Tree) -> Result<Vec<Named>> {
        let part = |part| Self::part(&self.key, part);
        let mut names = match self.part {
            // The index comes last: tools that copy in this order finish with it.
            Part::Top => vec![
                file("oci-layout", part(Part::Marker)),
                folder("blobs", part(Part::Blobs)),
                file("index.json", part(Part::Index)),
            ],
            Part::Blobs => vec![folder("sha256", part(Part::Sha256))],
            // An image that is being removed is not exported for its names.
            Part::Sha256 if tree.staging.is_going(&self.key) => Vec::new(),
            // The store may compress blobs differently from the committed ones.
            Part::Sha256 => {
                let blobs = self.export(tree)?.blobs().into_iter();
                let blobs = blobs.map(|(digest, _)| file(&digest.hex(), part(Part::Blob(digest))));
                blobs.collect()
            }
            Part::Marker | Part::Index | Part::Blob(_) => return Err(Errno::NOTDIR),
        };
        names.retain(|(_, _, node)| match node {
            Node::Image(node) => !self.is_hidden(tree, node.part),
            _ => true,
        });
        Ok(names)
    }

    fn lists_when_read(&self) -> bool {
        // The names of the blobs may need an export.
        self.part == Part::Sha256
    }

    fn open(&self, tree: &Tree) -> Result<Opened> {
        let is_unsure = tree.images.peek(&self.key).is_some_and(|view| {
            !view.is_final() && view.size(self.part).is_some() && matches!(self.part, Part::Blob(_))
        });
        if is_unsure {
            let later = Later {
                node: self.clone(),
                content: OnceLock::new(),
            };
            return Ok((Arc::new(later), Caching::Direct));
        }
        let content = self.export(tree)?.open(self.part)?;
        let caching = match content {
            // The store may make another size of a part that was just committed.
            Content::Bytes(_) => Caching::Direct,
            Content::Blob(_) => Caching::Keep,
        };
        Ok((Arc::new(content), caching))
    }

    fn open_write(
        &self,
        tree: &Tree,
        _handle: u64,
        _truncate: bool,
        _thread: u32,
    ) -> Result<Opened> {
        Ok((self.rewrite(tree, self.part)?, Caching::Direct))
    }

    fn make_dir(&self, tree: &Tree, name: &str, _: u32) -> Result<Node> {
        match self.part.child(name) {
            Some(part) if part.is_folder() => {
                if !self.is_hidden(tree, part) {
                    return Err(Errno::EXIST);
                }
                tree.staging.unhide(&self.key, part);
                Ok(Self::part(&self.key, part))
            }
            // `cp -r IMAGE NAME` makes a folder in NAME if NAME exists. In docker the folder could be another
            // image's name. For a temporary name, a tool (umoci) would try the next name after this errno.
            _ if self.part == Part::Top
                && layout_role(name) != Some(Role::Temporary)
                && !tree.view(self.key.store)?.notation.nests() =>
            {
                Err(Errno::EXIST)
            }
            _ => Err(Errno::ROFS),
        }
    }

    fn create(&self, tree: &Tree, name: &str, _handle: u64, _thread: u32) -> Result<Created> {
        let part = self.part.child(name).ok_or(Errno::ROFS)?;
        let node = Self::part(&self.key, part);
        // Blobs cannot be added to an image.
        let known = node.operations().attributes(tree);
        known.map_err(|_| Errno::ROFS)?;
        let file = self.rewrite(tree, part)?;
        tree.staging.unhide(&self.key, part);
        Ok((node, file))
    }

    fn unlink(&self, tree: &Tree, name: &str, thread: u32) -> Result<()> {
        if !tree.allow_delete
            && !tree
                .staging
                .was_committed_by(&self.key, Process::of_thread(thread))
        {
            return Err(Errno::PERM);
        }
        self.hide(tree, name)
    }

    fn remove_dir(&self, tree: &Tree, name: &str) -> Result<()> {
        match self.part {
            Part::Top | Part::Blobs if tree.allow_delete => self.hide(tree, name),
            _ => Err(Errno::PERM),
        }
    }

    fn change(&self, tree: &Tree, _: Option<u64>) -> Result<()> {
        // A part is cut only to be written again with the same content: see `Rewrite`.
        tree.staging
            .committed(&self.key)
            .map(drop)
            .ok_or(Errno::ROFS)
    }
}

/// A blob of an image that was just committed: the store's blob is found at the first read. A tool may open the
/// blob only to change its mode, and that must not export the image.
#[derive(Debug)]
struct Later {
    node: ImageNode,
    content: OnceLock<Content>,
}

impl Later {
    fn content(&self, tree: &Tree) -> Result<&Content> {
        if let Some(content) = self.content.get() {
            return Ok(content);
        }
        let found = self.node.export(tree)?.open(self.node.part);
        // The store may have made other blobs.
        let found = found.map_err(|_| Errno::STALE)?;
        Ok(self.content.get_or_init(|| found))
    }
}

impl OpenFile for Later {
    fn read(&self, tree: &Tree, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        self.content(tree)?.read(tree, offset, buffer)
    }

    fn read_may_wait(&self) -> bool {
        self.content.get().is_none()
    }

    fn blob(&self, tree: &Tree) -> Result<Option<Arc<BlobFile>>> {
        self.content(tree)?.blob(tree)
    }
}

/// A part of an image that is written once more; the bytes are kept to check that it stays the same.
#[derive(Debug)]
struct Rewrite {
    key: ImageKey,
    part: Part,
    file: Arc<StagedFile>,
}

impl OpenFile for Rewrite {
    fn read(&self, _: &Tree, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        self.file.read_at(buffer, offset)
    }

    fn write(&self, handle: u64, offset: u64, bytes: &[u8]) -> Result<()> {
        self.file.write_at(bytes, offset, handle)
    }

    fn flush(&self, tree: &Tree, _: u64, _: u32) -> Result<()> {
        if self.file.size() == 0 {
            return Ok(());
        }
        let io = |error| errno_of_io(&error);
        let same = match self.part {
            // The tool's marker may be spelled differently from ours.
            Part::Marker => {
                let marker = self.file.document(MAX_DOCUMENT).map_err(io)?;
                marker.is_some_and(|marker| check_marker(&marker, MARKER_NAME).is_ok())
            }
            part => {
                let found = self.file.digest(&Cancel::new()).map_err(io)?;
                match part {
                    Part::Blob(digest) => found == digest,
                    Part::Index => tree.staging.committed(&self.key) == Some(found),
                    Part::Marker | Part::Top | Part::Blobs | Part::Sha256 => false,
                }
            }
        };
        same.then_some(()).ok_or(Errno::ROFS)
    }

    fn flush_may_wait(&self) -> bool {
        true
    }
}
