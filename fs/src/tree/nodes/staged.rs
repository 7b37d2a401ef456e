//! Folders and files of an image that is being copied in.

use std::ffi::OsStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::{Created, Named, Node, Operations, Renamed, Stat, file, folder};
use crate::attributes::{Attributes, ExtendedAttribute};
use crate::errno::{Errno, Result};
use crate::naming::{join, split};
use crate::process::Process;
use crate::staged::{Item, Role, StagedFile, StagedFolder, layout_role};
use crate::tree::Tree;
use crate::tree::open_file::{Caching, OpenFile, Opened};

/// Most bytes copied by one request.
const COPIED_AT_ONCE: u64 = 4 << 20;

/// A folder of an image that is being copied in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StagedDirNode {
    /// The folder that is to become an image.
    pub staged: Arc<StagedFolder>,
    /// Path inside; empty for the folder itself.
    pub path: Arc<str>,
}

impl StagedDirNode {
    /// The node of the folder that is to become an image.
    pub fn top(staged: &Arc<StagedFolder>) -> Node {
        Self::at(staged, "")
    }

    /// The node of a folder inside.
    pub fn at(staged: &Arc<StagedFolder>, path: &str) -> Node {
        let (staged, path) = (Arc::clone(staged), path.into());
        Node::StagedDir(Self { staged, path })
    }

    fn item(&self, path: &str, item: &Item) -> Node {
        match item {
            Item::Dir => Self::at(&self.staged, path),
            Item::File(file) => Node::StagedFile(StagedFileNode {
                staged: Arc::clone(&self.staged),
                file: Arc::clone(file),
            }),
        }
    }

    /// Removes a name, which must or must not be a folder.
    fn remove(&self, name: &str, is_folder: bool) -> Result<()> {
        let path = join(&self.path, name);
        let mut state = self.staged.touch(None)?;
        match (state.items.get(&path), is_folder) {
            (None, _) => return Err(Errno::NOENT),
            (Some(Item::Dir), false) => return Err(Errno::ISDIR),
            (Some(Item::File(_)), true) => return Err(Errno::NOTDIR),
            _ => {}
        }
        let prefix = format!("{path}/");
        if state.items.keys().any(|other| other.starts_with(&prefix)) {
            return Err(Errno::NOTEMPTY);
        }
        state.items.remove(&path);
        state.modified = SystemTime::now();
        drop(state);
        self.staged.changed();
        Ok(())
    }
}

impl Operations for StagedDirNode {
    fn known_attributes(&self, tree: &Tree) -> Result<Stat> {
        let modified = self.staged.state().modified;
        let found = Attributes::folder(tree.owner, 0o755, modified);
        Ok((found, Duration::ZERO))
    }

    fn xattrs(&self, tree: &Tree) -> Result<Vec<ExtendedAttribute>> {
        let view = tree.view(self.staged.store())?;
        let name = view.notation.name_of(&self.staged.state().path);
        tree.last_error(self.staged.store(), name.as_deref())
    }

    fn lookup(&self, _: &Tree, name: &OsStr) -> Result<Option<Node>> {
        let path = name.to_str().map(|name| join(&self.path, name));
        let state = self.staged.state();
        Ok(path.and_then(|path| Some(self.item(&path, state.items.get(&path)?))))
    }

    fn list(&self, _: &Tree) -> Result<Vec<Named>> {
        let state = self.staged.state();
        let inside = state.items.iter().filter(|(path, _)| {
            let (parent, _) = split(path);
            *parent == *self.path
        });
        let named = inside.map(|(path, item)| {
            let (name, node) = (split(path).1, self.item(path, item));
            match item {
                Item::Dir => folder(name, node),
                Item::File(_) => file(name, node),
            }
        });
        Ok(named.collect())
    }

    fn make_dir(&self, tree: &Tree, name: &str, thread: u32) -> Result<Node> {
        let path = join(&self.path, name);
        let mut state = self.staged.touch(Some(Process::of_thread(thread)))?;
        match layout_role(&path) {
            Some(Role::Folder | Role::Temporary) => {}
            _ if self.path.is_empty() && state.items.is_empty() => {
                drop(state);
                return tree.stage_below(&self.staged, name, Process::of_thread(thread));
            }
            _ => return Err(Errno::INVAL),
        }
        if state.items.contains_key(&path) {
            return Err(Errno::EXIST);
        }
        state.items.insert(path.clone(), Item::Dir);
        state.modified = SystemTime::now();
        drop(state);
        self.staged.changed();
        Ok(Self::at(&self.staged, &path))
    }

    fn create(&self, tree: &Tree, name: &str, handle: u64, thread: u32) -> Result<Created> {
        let path = join(&self.path, name);
        if !is_file(&path) {
            return Err(Errno::INVAL);
        }
        let mut state = self.staged.touch(Some(Process::of_thread(thread)))?;
        let file = match state.items.get(&path) {
            Some(Item::Dir) => return Err(Errno::ISDIR),
            Some(Item::File(file)) => Arc::clone(file),
            None => {
                let file = StagedFile::new(Arc::clone(&tree.staging_dir));
                state.items.insert(path, Item::File(Arc::clone(&file)));
                state.modified = SystemTime::now();
                file
            }
        };
        let staged = Arc::clone(&self.staged);
        let node = StagedFileNode { staged, file };
        let writer = node.writer(handle)?;
        drop(state);
        self.staged.changed();
        Ok((Node::StagedFile(node), writer))
    }

    fn unlink(&self, _: &Tree, name: &str, _: u32) -> Result<()> {
        self.remove(name, false)
    }

    fn remove_dir(&self, _: &Tree, name: &str) -> Result<()> {
        self.remove(name, true)
    }

    fn rename(&self, tree: &Tree, name: &str, to: &Node, new: &Renamed) -> Result<()> {
        let to = match to {
            Node::StagedDir(to) if to.staged == self.staged => to,
            _ => return Err(Errno::XDEV),
        };
        let by = Process::of_thread(new.thread);
        let (old, new_path) = (join(&self.path, name), join(&to.path, new.name));
        let mut state = self.staged.touch(Some(by))?;
        let item = match state.items.get(&old) {
            None => return Err(Errno::NOENT),
            // After this errno a tool copies the folder.
            Some(Item::Dir) => return Err(Errno::XDEV),
            Some(item) => item.clone(),
        };
        if !is_file(&new_path) {
            return Err(Errno::INVAL);
        }
        if old == new_path {
            return Ok(());
        }
        match state.items.get(&new_path) {
            Some(_) if !new.replace => return Err(Errno::EXIST),
            Some(Item::Dir) => return Err(Errno::ISDIR),
            _ => {}
        }
        state.items.remove(&old);
        let replaced = state.items.insert(new_path.clone(), item.clone());
        state.modified = SystemTime::now();
        drop(state);
        self.staged.changed();
        if layout_role(&new_path) != Some(Role::Layout) {
            return Ok(());
        }
        let result = tree.commit_if_complete(&self.staged, by);
        if result.is_err() {
            let mut state = self.staged.state();
            match replaced {
                Some(replaced) => state.items.insert(new_path, replaced),
                None => state.items.remove(&new_path),
            };
            state.items.insert(old, item);
            drop(state);
            self.staged.changed();
        }
        result
    }

    fn change(&self, _: &Tree, _: Option<u64>) -> Result<()> {
        Ok(())
    }
}

/// Whether a file may stand at a path.
fn is_file(path: &str) -> bool {
    matches!(layout_role(path), Some(Role::Layout | Role::Temporary))
}

/// A file of an image that is being copied in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StagedFileNode {
    /// The folder that is to become an image.
    pub staged: Arc<StagedFolder>,
    /// The file.
    pub file: Arc<StagedFile>,
}

impl StagedFileNode {
    fn writer(&self, handle: u64) -> Result<Arc<dyn OpenFile>> {
        self.file.attach()?;
        self.file.open_for_writing(handle);
        Ok(Arc::new(Writer(self.clone())))
    }
}

impl Operations for StagedFileNode {
    fn known_attributes(&self, tree: &Tree) -> Result<Stat> {
        let (size, modified) = (self.file.size(), self.file.modified());
        let found = Attributes::file(tree.owner, 0o644, size, modified);
        Ok((found, Duration::ZERO))
    }

    fn open(&self, _: &Tree) -> Result<Opened> {
        self.file.attach()?;
        let reader = Reader(Arc::clone(&self.file));
        Ok((Arc::new(reader), Caching::Refresh))
    }

    fn open_write(&self, _: &Tree, handle: u64, truncate: bool, thread: u32) -> Result<Opened> {
        let _state = self.staged.touch(Some(Process::of_thread(thread)))?;
        let writer = self.writer(handle)?;
        if truncate {
            self.file.truncate(0)?;
        }
        self.staged.changed();
        Ok((writer, Caching::Refresh))
    }

    fn refusal(&self) -> Errno {
        Errno::NOTDIR
    }

    fn change(&self, _: &Tree, size: Option<u64>) -> Result<()> {
        if let Some(size) = size {
            self.staged.changed();
            let _open = self.staged.touch(None)?;
            self.file.truncate(size)?;
        }
        Ok(())
    }
}

/// A staged file that is being read.
#[derive(Debug)]
struct Reader(Arc<StagedFile>);

impl OpenFile for Reader {
    fn read(&self, _: &Tree, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        self.0.read_at(buffer, offset)
    }

    fn release(&self, _: u64) {
        self.0.detach();
    }
}

/// A staged file that is being written.
#[derive(Debug)]
struct Writer(StagedFileNode);

impl OpenFile for Writer {
    fn read(&self, _: &Tree, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        self.0.file.read_at(buffer, offset)
    }

    fn write(&self, handle: u64, offset: u64, bytes: &[u8]) -> Result<()> {
        self.0.staged.changed();
        let _open = self.0.staged.touch(None)?;
        self.0.file.write_at(bytes, offset, handle)
    }

    fn write_may_wait(&self) -> bool {
        self.0.file.is_reference()
    }

    /// A whole blob in an empty file becomes a reference.
    fn copy_from(
        &self,
        tree: &Tree,
        (source, from): (&dyn OpenFile, u64),
        (handle, to): (u64, u64),
        length: u64,
    ) -> Result<u32> {
        if let Some(blob) = source.blob(tree)?
            && from == to
        {
            let end = from.saturating_add(length).min(blob.size);
            self.0.staged.changed();
            let _open = self.0.staged.touch(None)?;
            if self.0.file.refer(&blob, from, end) {
                return u32::try_from(end.saturating_sub(from)).map_err(|_| Errno::OVERFLOW);
            }
        }
        // The caller continues after a short answer.
        let mut chunk = vec![0; usize::try_from(length.min(COPIED_AT_ONCE)).unwrap_or(0)];
        let n = source.read(tree, from, &mut chunk)?;
        self.write(handle, to, chunk.get(..n).unwrap_or_default())?;
        u32::try_from(n).map_err(|_| Errno::OVERFLOW)
    }

    fn flush(&self, tree: &Tree, handle: u64, thread: u32) -> Result<()> {
        self.0.file.flushed(handle);
        tree.commit_if_complete(&self.0.staged, Process::of_thread(thread))
    }

    fn flush_may_wait(&self) -> bool {
        true
    }

    fn release(&self, handle: u64) {
        if !self.0.file.is_flushed() {
            self.0.file.flushed(handle);
            self.0.staged.changed();
        }
        self.0.file.detach();
    }
}
