//! Making and changing: folders and files of images being copied in, renames, removals.

use std::ffi::OsStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use pcocc_core::cancel::Cancel;
use pcocc_image::layout::{MARKER_NAME, check_marker};
use pcocc_layers::Digest;

use crate::errno::{Errno, errno_of};
use crate::naming::{StoreId, join};
use crate::process::Process;
use crate::staging::{Item, Role, Staged, StagedFile, role};
use crate::tree::Tree;
use crate::tree::files::Handle;
use crate::tree::look::Attributes;
use crate::tree::node::{ImageKey, Node, Part, Side};

/// What a write may do to a file besides its content.
#[derive(Clone, Copy, Debug, Default)]
pub struct Change {
    /// New length.
    pub size: Option<u64>,
}

impl Tree {
    fn told(&self, node: &Node) -> Result<(Attributes, Duration), Errno> {
        let (mut attributes, validity) = self.describe(node)?;
        attributes.number = self.tell(node);
        Ok((attributes, validity))
    }

    /// Makes a folder: an image to be, or a part of one.
    pub fn make_dir(
        &self,
        parent: u64,
        name: &OsStr,
        thread: u32,
    ) -> Result<(Attributes, Duration), Errno> {
        let name = legal(name)?;
        let process = Process::of_thread(thread);
        match self.node(parent)? {
            Node::Names(Side::Images, store, folder) => {
                self.stage(store, &join(&folder, name), process)
            }
            Node::StagedDir(image, folder) => {
                let path = join(&folder, name);
                let mut state = image.touch(Some(process))?;
                match role(&path) {
                    Some(Role::Folder | Role::Temporary) => {}
                    _ if folder.is_empty() && state.items.is_empty() => {
                        drop(state);
                        return self.stage_below(&image, name, process);
                    }
                    _ => return Err(Errno::INVAL),
                }
                if state.items.contains_key(&path) {
                    return Err(Errno::EXIST);
                }
                state.items.insert(path.clone(), Item::Dir);
                state.modified = SystemTime::now();
                drop(state);
                image.changed();
                self.told(&Node::StagedDir(image, path.as_str().into()))
            }
            Node::Part(key, Part::Blobs) if name == "sha256" => self.bring_back(key, Part::Sha256),
            Node::Image(key) if name == "blobs" => self.bring_back(key, Part::Blobs),
            node if node.is_in_rootfs() => Err(Errno::ROFS),
            Node::Fixed(_) => Err(Errno::PERM),
            Node::StagedFile(..) => Err(Errno::NOTDIR),
            // Where `cp -r IMAGE NAME` ends when NAME is there: it makes a folder in it. In docker that could be
            // the name of another image. Who is told so of a temporary name (umoci) would try the next one.
            Node::Image(key)
                if role(name) != Some(Role::Temporary)
                    && !self.view(key.store)?.notation.nests() =>
            {
                Err(Errno::EXIST)
            }
            _ => Err(Errno::ROFS),
        }
    }

    /// Starts an image at a path of a store.
    fn stage(
        &self,
        store: StoreId,
        path: &str,
        process: Process,
    ) -> Result<(Attributes, Duration), Errno> {
        let view = self.view(store)?;
        let refuse = |error: pcocc_image::Error| {
            // The text explains the rule: it is worth more than the errno.
            tracing::warn!(store = %view.label, path, %error, "refused");
            let running = self.status.begin(&view.label, path, "copy");
            let errno = errno_of(&error);
            running.end::<(), _>(&Err(error));
            errno
        };
        let image_name = view.notation.name_of(path).ok_or_else(|| {
            refuse(pcocc_image::Error::invalid(
                format!("the name '{path}'"),
                "is not one of an image: those do not begin with a dot",
            ))
        })?;
        view.store.check_name(&image_name).map_err(refuse)?;
        let (folder, last) = crate::naming::split(path);
        if self
            .named(Side::Images, store, folder, OsStr::new(last))?
            .is_some()
        {
            return Err(Errno::EXIST);
        }
        view.store.check_new(&image_name).map_err(refuse)?;
        let image = Staged::new(store, path, process);
        if !self.staging.add(path, &image) {
            return Err(Errno::EXIST);
        }
        self.told(&Node::StagedDir(image, "".into()))
    }

    /// An empty folder gets a folder that is no part of a layout: where names have slashes it turns
    /// out to be one of names.
    fn stage_below(
        &self,
        image: &Arc<Staged>,
        name: &str,
        process: Process,
    ) -> Result<(Attributes, Duration), Errno> {
        let view = self.view(image.store())?;
        let folder = image.state().path.clone();
        let path = join(&folder, name);
        let image_name = view.notation.name_of(&path).ok_or(Errno::INVAL)?;
        if !view.notation.nests() || view.store.check_name(&image_name).is_err() {
            return Err(Errno::INVAL);
        }
        let maker = image.state().users.0;
        self.staging.remove(image);
        self.staging.make_folder(image.store(), &folder, maker);
        self.inodes.rebind(
            &Node::StagedDir(Arc::clone(image), "".into()),
            Node::Names(Side::Images, image.store(), folder.as_str().into()),
        );
        self.stage(image.store(), &path, process)
    }

    /// Makes and opens a file.
    pub fn create(
        &self,
        parent: u64,
        name: &OsStr,
        thread: u32,
    ) -> Result<(Attributes, Duration, u64), Errno> {
        let name = legal(name)?;
        match self.node(parent)? {
            Node::StagedDir(image, folder) => {
                let path = join(&folder, name);
                if !matches!(role(&path), Some(Role::Layout | Role::Temporary)) {
                    return Err(Errno::INVAL);
                }
                let process = Process::of_thread(thread);
                let handle = self.handles.reserve();
                let mut state = image.touch(Some(process))?;
                let file = match state.items.get(&path) {
                    Some(Item::Dir) => return Err(Errno::ISDIR),
                    Some(Item::File(file)) => Arc::clone(file),
                    None => {
                        let file = StagedFile::new(Arc::clone(&self.staging_dir));
                        state.items.insert(path, Item::File(Arc::clone(&file)));
                        state.modified = SystemTime::now();
                        file
                    }
                };
                file.attach()?;
                file.opened(handle);
                drop(state);
                image.changed();
                let node = Node::StagedFile(Arc::clone(&image), Arc::clone(&file));
                self.handles.insert(
                    handle,
                    Handle::Staged {
                        image,
                        file,
                        writable: true,
                    },
                );
                let (attributes, validity) = self.told(&node)?;
                Ok((attributes, validity, handle))
            }
            Node::Image(_) | Node::Part(..) => {
                let (key, part) = self.part_at(parent, name)?;
                let node = Node::Part(key.clone(), part);
                // A blob the image does not have is not added to it.
                let (mut attributes, validity) = self.describe(&node).map_err(|_| Errno::ROFS)?;
                let handle = self.rewrite(&key, part).ok_or(Errno::ROFS)?;
                self.staging.unhide(&key, part);
                attributes.number = self.tell(&node);
                Ok((attributes, validity, handle))
            }
            Node::StagedFile(..) => Err(Errno::NOTDIR),
            node if node.is_in_rootfs() => Err(Errno::ROFS),
            _ => Err(Errno::PERM),
        }
    }

    /// A tool that goes on with an image it has just completed may write a part once more, as long
    /// as that changes nothing.
    pub(super) fn rewrite(&self, key: &ImageKey, part: Part) -> Option<u64> {
        self.staging.committed(key)?;
        let file = StagedFile::new(Arc::clone(&self.staging_dir));
        Some(self.handles.add(Handle::Rewrite {
            image: key.clone(),
            part,
            file,
        }))
    }

    fn part_at(&self, parent: u64, name: &str) -> Result<(ImageKey, Part), Errno> {
        match (self.node(parent)?, name) {
            (Node::Image(key), "oci-layout") => Ok((key, Part::Marker)),
            (Node::Image(key), "index.json") => Ok((key, Part::Index)),
            (Node::Image(key), "blobs") => Ok((key, Part::Blobs)),
            (Node::Part(key, Part::Blobs), "sha256") => Ok((key, Part::Sha256)),
            (Node::Part(key, Part::Sha256), hex) => {
                let digest = Digest::from_hex(hex).map_err(|_| Errno::ROFS)?;
                Ok((key, Part::Blob(digest)))
            }
            _ => Err(Errno::ROFS),
        }
    }

    fn bring_back(&self, key: ImageKey, part: Part) -> Result<(Attributes, Duration), Errno> {
        if !self.staging.is_hidden(&key, part) {
            return Err(Errno::EXIST);
        }
        self.staging.unhide(&key, part);
        self.told(&Node::Part(key, part))
    }

    /// Whether a write through this handle first copies a referenced blob.
    pub fn write_may_wait(&self, handle: u64) -> bool {
        matches!(self.handles.get(handle), Ok(Handle::Staged { file, .. }) if file.is_reference())
    }

    /// Writes through an open handle.
    pub fn write(&self, handle: u64, offset: u64, bytes: &[u8]) -> Result<(), Errno> {
        match self.handles.get(handle)? {
            Handle::Staged {
                image,
                file,
                writable: true,
            } => {
                image.changed();
                let _open = image.touch(None)?;
                file.write_at(bytes, offset, handle)
            }
            Handle::Rewrite { file, .. } => file.write_at(bytes, offset, handle),
            _ => Err(Errno::BADF),
        }
    }

    /// Changes what can be changed of a file: its length while it is staged. Modes, owners and times
    /// are accepted and not kept, as tools set them after the copy is complete.
    pub fn change(&self, number: u64, change: Change) -> Result<(Attributes, Duration), Errno> {
        match self.node(number)? {
            Node::StagedFile(image, file) => {
                if let Some(size) = change.size {
                    image.changed();
                    let _open = image.touch(None)?;
                    file.truncate(size)?;
                }
            }
            Node::StagedDir(..) | Node::Names(Side::Images, ..) => {}
            Node::Part(key, _) if change.size.is_some() => {
                // Only to be written again with what it is; see `rewrite`.
                self.staging.committed(&key).ok_or(Errno::ROFS)?;
            }
            Node::Image(key) | Node::Part(key, _) => {
                self.staging.committed(&key).ok_or(Errno::ROFS)?;
            }
            _ => return Err(Errno::ROFS),
        }
        self.attributes(number)
    }

    /// Whether extended attributes set on this inode are accepted and not kept.
    pub fn accepts_attributes(&self, number: u64) -> Result<(), Errno> {
        match self.node(number)? {
            Node::StagedFile(..) | Node::StagedDir(..) => Ok(()),
            Node::Image(key) | Node::Part(key, _) if self.staging.committed(&key).is_some() => {
                Ok(())
            }
            _ => Err(Errno::ROFS),
        }
    }

    /// Whether closing through this handle may complete a copy.
    pub fn flush_may_wait(&self, handle: u64) -> bool {
        matches!(
            self.handles.get(handle),
            Ok(Handle::Staged { writable: true, .. } | Handle::Rewrite { .. })
        )
    }

    /// A descriptor of the handle was closed; the copy is complete, perhaps.
    pub fn flush(&self, handle: u64, thread: u32) -> Result<(), Errno> {
        match self.handles.get(handle)? {
            Handle::Staged {
                image,
                file,
                writable: true,
            } => {
                file.settled(handle);
                self.settle(&image, Process::of_thread(thread))
            }
            Handle::Rewrite { image, part, file } => self.check_rewrite(&image, part, &file),
            _ => Ok(()),
        }
    }

    fn check_rewrite(&self, key: &ImageKey, part: Part, file: &StagedFile) -> Result<(), Errno> {
        if file.size() == 0 {
            return Ok(());
        }
        if part == Part::Marker {
            let marker = file.document(pcocc_image::oci::MAX_DOCUMENT);
            let marker = marker.map_err(|error| crate::errno::errno_of_io(&error))?;
            // Spelled otherwise than ours, perhaps.
            return match marker.map(|marker| check_marker(&marker, MARKER_NAME)) {
                Some(Ok(())) => Ok(()),
                _ => Err(Errno::ROFS),
            };
        }
        let found = file
            .digest(&Cancel::new())
            .map_err(|error| crate::errno::errno_of_io(&error))?;
        let same = match part {
            Part::Blob(digest) => found == digest,
            Part::Index => self.staging.committed(key) == Some(found),
            Part::Marker | Part::Blobs | Part::Sha256 => false,
        };
        if same { Ok(()) } else { Err(Errno::ROFS) }
    }

    /// Copies between two open files; a whole blob into an empty file is only referred to. Returns
    /// how much was copied.
    pub fn copy_range(
        &self,
        from: u64,
        from_offset: u64,
        to: u64,
        to_offset: u64,
        length: u64,
    ) -> Result<u32, Errno> {
        // What fits in the reply, in whole pages.
        const MOST: u64 = 0xffff_f000;
        let Handle::Staged {
            image,
            file,
            writable: true,
        } = self.handles.get(to)?
        else {
            return Err(Errno::BADF);
        };
        let length = length.min(MOST);
        if let Handle::Blob(blob) = self.ready(from)?
            && from_offset == to_offset
        {
            let end = from_offset.saturating_add(length).min(blob.size);
            image.changed();
            let _open = image.touch(None)?;
            if file.refer(&blob, from_offset, end) {
                return u32::try_from(end.saturating_sub(from_offset)).map_err(|_| Errno::OVERFLOW);
            }
        }
        // A short answer is continued by the caller.
        let mut chunk = vec![0; usize::try_from(length.min(4 << 20)).unwrap_or(0)];
        let n = self.read(from, from_offset, &mut chunk)?;
        self.write(to, to_offset, chunk.get(..n).unwrap_or_default())?;
        u32::try_from(n).map_err(|_| Errno::OVERFLOW)
    }

    /// Gives a file or an image another name.
    pub fn rename(
        &self,
        from: (u64, &OsStr),
        to: (u64, &OsStr),
        replace: bool,
        thread: u32,
    ) -> Result<(), Errno> {
        let (old_name, new_name) = (legal(from.1)?, legal(to.1)?);
        match (self.node(from.0)?, self.node(to.0)?) {
            (Node::StagedDir(image, old), Node::StagedDir(other, new))
                if image.id() == other.id() =>
            {
                let (old, new) = (join(&old, old_name), join(&new, new_name));
                self.rename_staged(&image, &old, &new, replace, Process::of_thread(thread))
            }
            (Node::Names(Side::Images, store, old), Node::Names(Side::Images, other, new))
                if store == other =>
            {
                self.rename_image(store, &join(&old, old_name), &join(&new, new_name))
            }
            (Node::Image(_) | Node::Part(..), _) => Err(Errno::ROFS),
            (Node::Fixed(_) | Node::RootfsImage(_) | Node::RootfsFile(..), _) => Err(Errno::ROFS),
            _ => Err(Errno::XDEV),
        }
    }

    fn rename_staged(
        &self,
        image: &Arc<Staged>,
        old: &str,
        new: &str,
        replace: bool,
        process: Process,
    ) -> Result<(), Errno> {
        let mut state = image.touch(Some(process))?;
        let item = match state.items.get(old) {
            None => return Err(Errno::NOENT),
            // A tool told so copies the folder instead.
            Some(Item::Dir) => return Err(Errno::XDEV),
            Some(item) => item.clone(),
        };
        let role = role(new);
        if !matches!(role, Some(Role::Layout | Role::Temporary)) {
            return Err(Errno::INVAL);
        }
        if old == new {
            return Ok(());
        }
        match state.items.get(new) {
            Some(_) if !replace => return Err(Errno::EXIST),
            Some(Item::Dir) => return Err(Errno::ISDIR),
            _ => {}
        }
        state.items.remove(old);
        let replaced = state.items.insert(new.to_owned(), item.clone());
        state.modified = SystemTime::now();
        drop(state);
        image.changed();
        if role != Some(Role::Layout) {
            return Ok(());
        }
        let result = self.settle(image, process);
        if result.is_err() {
            let mut state = image.state();
            match replaced {
                Some(replaced) => state.items.insert(new.to_owned(), replaced),
                None => state.items.remove(new),
            };
            state.items.insert(old.to_owned(), item);
            drop(state);
            image.changed();
        }
        result
    }

    fn rename_image(&self, store: StoreId, old: &str, new: &str) -> Result<(), Errno> {
        let view = self.view(store)?;
        let new_name = view.notation.name_of(new).ok_or(Errno::INVAL)?;
        view.store
            .check_name(&new_name)
            .map_err(|error| errno_of(&error))?;
        if view.notation.name_of(old).as_ref() == Some(&new_name) {
            return self.exists(store, old)?.then_some(()).ok_or(Errno::NOENT);
        }
        if let Some(image) = self.staging.get(store, old) {
            if self.exists(store, new)? || !self.staging.shift(&image, new) {
                return Err(Errno::EXIST);
            }
            return Ok(());
        }
        let (folder, name) = crate::naming::split(old);
        match self.named(Side::Images, store, folder, OsStr::new(name))? {
            Some(Node::Image(key)) => {
                if self.exists(store, new)? {
                    return Err(Errno::EXIST);
                }
                let blobs = self.images.peek(&key).map(|image| image.blobs());
                let renamed = view.store.rename(&key.name, &new_name);
                view.invalidate();
                self.images.drop_image(&key);
                if let Err(error) = renamed {
                    tracing::warn!(store = %view.label, from = %key.name, to = %new_name, %error, "cannot rename");
                    return Err(errno_of(&error));
                }
                // The kernel moved the inodes it has along with the name.
                let entry = view.entry(&new_name)?;
                let new = crate::tree::look::image_key(store, &entry);
                let parts = [Part::Marker, Part::Blobs, Part::Sha256, Part::Index];
                let blobs = blobs.unwrap_or_default();
                let blobs = blobs.into_iter().map(|(digest, _)| Part::Blob(digest));
                for part in parts.into_iter().chain(blobs) {
                    let (old, new) = (key.clone(), new.clone());
                    self.inodes
                        .rebind(&Node::Part(old, part), Node::Part(new, part));
                }
                self.inodes.rebind(&Node::Image(key), Node::Image(new));
                Ok(())
            }
            Some(_) => Err(Errno::PERM),
            None => Err(Errno::NOENT),
        }
    }

    fn exists(&self, store: StoreId, path: &str) -> Result<bool, Errno> {
        let (folder, name) = crate::naming::split(path);
        let found = self.named(Side::Images, store, folder, OsStr::new(name))?;
        Ok(found.is_some())
    }

    /// Removes a file.
    pub fn unlink(&self, parent: u64, name: &OsStr, thread: u32) -> Result<(), Errno> {
        let name = legal(name)?;
        match self.node(parent)? {
            Node::StagedDir(image, folder) => {
                let path = join(&folder, name);
                let mut state = image.touch(None)?;
                match state.items.get(&path) {
                    None => return Err(Errno::NOENT),
                    Some(Item::Dir) => return Err(Errno::ISDIR),
                    Some(Item::File(_)) => {}
                }
                state.items.remove(&path);
                state.modified = SystemTime::now();
                drop(state);
                image.changed();
                Ok(())
            }
            Node::Image(key) | Node::Part(key, _) => {
                let maker = || {
                    self.staging
                        .was_committed_by(&key, Process::of_thread(thread))
                };
                if !self.allow_delete && !maker() {
                    return Err(Errno::PERM);
                }
                let (_, part) = self.part_at(parent, name)?;
                self.staging.hide(&key, part);
                Ok(())
            }
            node if node.is_in_rootfs() => Err(Errno::ROFS),
            _ => Err(Errno::PERM),
        }
    }

    /// Removes a folder; that of an image removes the image.
    pub fn remove_dir(&self, parent: u64, name: &OsStr) -> Result<(), Errno> {
        let name = legal(name)?;
        match self.node(parent)? {
            Node::StagedDir(image, folder) => {
                let path = join(&folder, name);
                let mut state = image.touch(None)?;
                match state.items.get(&path) {
                    None => return Err(Errno::NOENT),
                    Some(Item::File(_)) => return Err(Errno::NOTDIR),
                    Some(Item::Dir) => {}
                }
                let prefix = format!("{path}/");
                if state.items.keys().any(|other| other.starts_with(&prefix)) {
                    return Err(Errno::NOTEMPTY);
                }
                state.items.remove(&path);
                drop(state);
                image.changed();
                Ok(())
            }
            Node::Image(key) | Node::Part(key, Part::Blobs) => {
                if !self.allow_delete {
                    return Err(Errno::PERM);
                }
                let (_, part) = self.part_at(parent, name)?;
                self.staging.hide(&key, part);
                Ok(())
            }
            Node::Names(Side::Images, store, folder) => {
                self.remove_named(store, &join(&folder, name))
            }
            node if node.is_in_rootfs() => Err(Errno::ROFS),
            _ => Err(Errno::PERM),
        }
    }

    fn remove_named(&self, store: StoreId, path: &str) -> Result<(), Errno> {
        let view = self.view(store)?;
        if let Some(image) = self.staging.get(store, path) {
            if !image.touch(None)?.items.is_empty() {
                return Err(Errno::NOTEMPTY);
            }
            self.staging.remove(&image);
            return Ok(());
        }
        match self.staging.remove_folder(store, path) {
            Some(true) => return Ok(()),
            Some(false) => return Err(Errno::NOTEMPTY),
            None => {}
        }
        let (folder, name) = crate::naming::split(path);
        match self.named(Side::Images, store, folder, OsStr::new(name))? {
            None => Err(Errno::NOENT),
            Some(Node::Image(key)) if self.allow_delete => {
                let removed = view.store.remove(&key.name);
                view.invalidate();
                self.images.drop_image(&key);
                self.staging.forget_image(&key);
                removed.map_err(|error| {
                    tracing::warn!(store = %view.label, image = %key.name, %error, "cannot remove");
                    errno_of(&error)
                })
            }
            Some(_) => Err(Errno::PERM),
        }
    }
}

/// A name as text; image layouts and image names are ASCII.
fn legal(name: &OsStr) -> Result<&str, Errno> {
    name.to_str().ok_or(Errno::INVAL)
}
