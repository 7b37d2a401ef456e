//! Folders of names in a store: finding an image, starting, renaming and removing one.

use std::ffi::OsStr;
use std::sync::Arc;
use std::time::Duration;

use pcocc_image::store::Entry;

use super::{ImageNode, Named, Node, Operations, Renamed, RootfsTopNode, Stat, folder};
use crate::attributes::{Attributes, ExtendedAttribute};
use crate::errno::{Errno, Result, errno_of, to_errno};
use crate::naming::{Shown, StoreId, join};
use crate::process::Process;
use crate::tree::image_key::{ImageKey, Part};
use crate::tree::{SOON, Tree};

/// The two trees that show a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// As OCI layouts.
    Images,
    /// As root file systems.
    Rootfs,
}

/// A folder of names in a store.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NamesNode {
    /// The tree of the folder.
    pub side: Side,
    /// Its store.
    pub store: StoreId,
    /// Its path there; empty for the store's top folder.
    pub path: Arc<str>,
}

impl NamesNode {
    /// The node of a store's top folder.
    pub fn top(side: Side, store: StoreId) -> Node {
        let path = "".into();
        Node::Names(Self { side, store, path })
    }

    /// The node of a folder among the images of a store.
    pub fn of_images(store: StoreId, path: &str) -> Node {
        let (side, path) = (Side::Images, path.into());
        Node::Names(Self { side, store, path })
    }

    /// The node of a listed image.
    fn image(&self, entry: &Entry) -> Node {
        let key = ImageKey::of(self.store, entry);
        match self.side {
            Side::Images => ImageNode::top(key),
            Side::Rootfs => Node::RootfsTop(RootfsTopNode(key)),
        }
    }

    fn subfolder(&self, path: &str) -> Node {
        Node::Names(Self {
            path: path.into(),
            ..*self
        })
    }

    /// The node at a name: an image that is being copied in, a folder, or an image.
    pub(in crate::tree) fn child(&self, tree: &Tree, name: &str) -> Result<Option<Node>> {
        let path = join(&self.path, name);
        let view = tree.view(self.store)?;
        if self.side == Side::Images {
            tree.collect_abandoned(Some((self.store, &path)));
            if let Some(node) = tree.staging.find(self.store, &path) {
                return Ok(Some(node));
            }
        }
        Ok(view.names()?.resolve(&path).map(|found| match found {
            Shown::Folder => self.subfolder(&path),
            Shown::Image(entry) => self.image(&entry),
        }))
    }

    /// Renames an image of the store, or an image that is being copied in.
    fn rename_image(&self, tree: &Tree, name: &str, to: &Self, new: &str) -> Result<()> {
        let (old_path, new_path) = (join(&self.path, name), join(&to.path, new));
        let view = tree.view(self.store)?;
        let new_name = view.notation.name_of(&new_path).ok_or(Errno::INVAL)?;
        let checked = view.store.check_name(&new_name);
        checked.map_err(to_errno)?;
        if view.notation.name_of(&old_path).as_ref() == Some(&new_name) {
            return self.child(tree, name)?.map(drop).ok_or(Errno::NOENT);
        }
        if let Some(staged) = tree.staging.get(self.store, &old_path) {
            if to.child(tree, new)?.is_some() || !tree.staging.shift(&staged, &new_path) {
                return Err(Errno::EXIST);
            }
            return Ok(());
        }
        let key = match self.child(tree, name)? {
            Some(Node::Image(image)) => image.key,
            Some(_) => return Err(Errno::PERM),
            None => return Err(Errno::NOENT),
        };
        if to.child(tree, new)?.is_some() {
            return Err(Errno::EXIST);
        }
        let known = tree.images.peek(&key).map(|image| image.blobs());
        let renamed = view.store.rename(&key.name, &new_name);
        view.invalidate();
        tree.images.drop_image(&key);
        renamed.map_err(|error| {
            tracing::warn!(store = %view.label, from = %key.name, to = %new_name, %error, "cannot rename");
            errno_of(&error)
        })?;
        // The kernel has moved its inodes to the new name.
        let new = ImageKey::of(self.store, &*view.entry(&new_name)?);
        let blobs = known.unwrap_or_default().into_iter();
        let blobs = blobs.map(|(digest, _)| Part::Blob(digest));
        let parts = [
            Part::Marker,
            Part::Blobs,
            Part::Sha256,
            Part::Index,
            Part::Top,
        ];
        for part in parts.into_iter().chain(blobs) {
            tree.inodes
                .rebind(&ImageNode::part(&key, part), ImageNode::part(&new, part));
        }
        Ok(())
    }
}

impl Operations for NamesNode {
    fn may_wait(&self, _: &Tree) -> bool {
        true
    }

    fn known_attributes(&self, tree: &Tree) -> Result<Stat> {
        let (mode, validity) = match self.side {
            Side::Images => (0o755, SOON),
            Side::Rootfs => (0o555, Duration::ZERO),
        };
        Ok((Attributes::folder(tree.owner, mode, tree.started), validity))
    }

    fn attributes(&self, tree: &Tree) -> Result<Stat> {
        match self.side {
            Side::Images => self.known_attributes(tree),
            Side::Rootfs => {
                // The kernel keeps these listings while the time stays the same.
                let changed = tree.view(self.store)?.changed();
                Ok((Attributes::folder(tree.owner, 0o555, changed), SOON))
            }
        }
    }

    fn xattrs(&self, tree: &Tree) -> Result<Vec<ExtendedAttribute>> {
        match self.side {
            Side::Images if self.path.is_empty() => tree.last_error(self.store, None),
            _ => Ok(Vec::new()),
        }
    }

    fn lookup(&self, tree: &Tree, name: &OsStr) -> Result<Option<Node>> {
        match name.to_str() {
            Some(name) => self.child(tree, name),
            None => Ok(None),
        }
    }

    fn list(&self, tree: &Tree) -> Result<Vec<Named>> {
        let listing = tree.view(self.store)?.names()?;
        let mut staged = Vec::new();
        if self.side == Side::Images {
            tree.collect_abandoned(None);
            staged = tree.staging.below(self.store, &self.path);
        }
        let entries = staged.iter();
        let mut names: Vec<Named> = entries
            .map(|(name, node)| folder(name, node.clone()))
            .collect();
        for (name, shown) in listing.children(&self.path).into_iter().flatten() {
            if staged.iter().any(|(staged, _)| staged == name) {
                continue;
            }
            let node = match shown {
                Shown::Folder => self.subfolder(&join(&self.path, name)),
                Shown::Image(entry) => self.image(entry),
            };
            names.push(folder(name, node));
        }
        Ok(names)
    }

    fn refusal(&self) -> Errno {
        match self.side {
            Side::Images => Errno::PERM,
            Side::Rootfs => Errno::ROFS,
        }
    }

    fn make_dir(&self, tree: &Tree, name: &str, thread: u32) -> Result<Node> {
        match self.side {
            Side::Images => tree.stage(self, name, Process::of_thread(thread)),
            Side::Rootfs => Err(Errno::ROFS),
        }
    }

    fn remove_dir(&self, tree: &Tree, name: &str) -> Result<()> {
        if self.side == Side::Rootfs {
            return Err(Errno::ROFS);
        }
        let path = join(&self.path, name);
        let view = tree.view(self.store)?;
        if let Some(staged) = tree.staging.get(self.store, &path) {
            if !staged.touch(None)?.items.is_empty() {
                return Err(Errno::NOTEMPTY);
            }
            tree.staging.remove(&staged);
            return Ok(());
        }
        match tree.staging.remove_folder(self.store, &path) {
            Some(true) => return Ok(()),
            Some(false) => return Err(Errno::NOTEMPTY),
            None => {}
        }
        match self.child(tree, name)? {
            None => Err(Errno::NOENT),
            Some(Node::Image(ImageNode { key, .. })) if tree.allow_delete => {
                let removed = view.store.remove(&key.name);
                view.invalidate();
                tree.images.drop_image(&key);
                tree.staging.forget_image(&key);
                removed.map_err(|error| {
                    tracing::warn!(store = %view.label, image = %key.name, %error, "cannot remove");
                    errno_of(&error)
                })
            }
            Some(_) => Err(Errno::PERM),
        }
    }

    fn rename(&self, tree: &Tree, name: &str, to: &Node, new: &Renamed) -> Result<()> {
        match to {
            Node::Names(to)
                if (self.side, to.side) == (Side::Images, Side::Images)
                    && self.store == to.store =>
            {
                self.rename_image(tree, name, to, new.name)
            }
            _ => Err(Errno::XDEV),
        }
    }

    fn change(&self, _: &Tree, _: Option<u64>) -> Result<()> {
        match self.side {
            Side::Images => Ok(()),
            Side::Rootfs => Err(Errno::ROFS),
        }
    }

    fn accepts_xattrs(&self, _: &Tree) -> Result<()> {
        Err(Errno::ROFS)
    }
}
