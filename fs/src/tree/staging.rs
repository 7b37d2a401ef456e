//! The images that are being copied in, the folders made for them, and the parts removed from committed images.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pcocc_layers::Digest;

use crate::naming::{StoreId, split};
use crate::process::Process;
use crate::staged::{Item, Phase, StagedFolder};
use crate::tree::Tree;
use crate::tree::image_key::{ImageKey, Part};
use crate::tree::nodes::{NamesNode, Node, StagedDirNode};

/// How long a tool may go on with a committed image.
const AFTERWARDS: Duration = Duration::from_secs(60);

/// An empty folder of names that a tool made.
#[derive(Debug)]
struct Made {
    maker: Process,
    kept: bool,
    at: Instant,
}

/// A committed image.
#[derive(Debug)]
struct Committed {
    at: Instant,
    index: Digest,
    by: Process,
}

/// The parts that a tool removed from an image.
#[derive(Debug)]
struct Hidden {
    at: Instant,
    parts: HashSet<Part>,
}

#[derive(Debug, Default)]
struct Table {
    staged: HashMap<(StoreId, String), Arc<StagedFolder>>,
    made: HashMap<(StoreId, String), Made>,
    committed: HashMap<ImageKey, Committed>,
    hidden: HashMap<ImageKey, Hidden>,
}

/// The tables, each locked for moments only. Locks: a folder's state, then the table.
#[derive(Debug, Default)]
pub(super) struct Staging(Mutex<Table>);

impl Staging {
    pub(super) fn len(&self) -> usize {
        self.0.lock().staged.len()
    }

    pub(super) fn get(&self, store: StoreId, path: &str) -> Option<Arc<StagedFolder>> {
        let image = self.0.lock().staged.get(&(store, path.to_owned())).cloned();
        // Another thread may be removing the image: the lock waits for it.
        image.filter(|image| image.state().phase != Phase::Gone)
    }

    /// The staged image or made folder at a path.
    pub(super) fn find(&self, store: StoreId, path: &str) -> Option<Node> {
        if let Some(image) = self.get(store, path) {
            return Some(StagedDirNode::top(&image));
        }
        let table = self.0.lock();
        let key = (store, path.to_owned());
        table
            .is_folder(&key)
            .then(|| NamesNode::of_images(store, path))
    }

    /// The staged images and made folders directly in a folder.
    pub(super) fn below(&self, store: StoreId, folder: &str) -> Vec<(String, Node)> {
        let table = self.0.lock();
        let inside = |(s, path): &(StoreId, String)| {
            let (parent, name) = split(path);
            (*s == store && parent == folder).then(|| name.to_owned())
        };
        let mut found: Vec<(String, Node)> = table
            .staged
            .iter()
            .filter_map(|(key, image)| Some((inside(key)?, StagedDirNode::top(image))))
            .collect();
        found.extend(table.made.keys().filter_map(|key| {
            let node = NamesNode::of_images(store, &key.1);
            Some((inside(key)?, node))
        }));
        found
    }

    /// Adds a staged image unless its path is taken.
    pub(super) fn add(&self, path: &str, image: &Arc<StagedFolder>) -> bool {
        let key = (image.store(), path.to_owned());
        let mut table = self.0.lock();
        if table.staged.contains_key(&key) || table.is_folder(&key) {
            return false;
        }
        table.staged.insert(key, Arc::clone(image));
        true
    }

    /// Removes a staged image, if its path is still its own. Returns `false` when another thread has removed
    /// it.
    pub(super) fn remove(&self, image: &StagedFolder) -> bool {
        // The state is locked until the name is free: a process that sees the image go may use the name.
        let mut state = image.state();
        let before = std::mem::replace(&mut state.phase, Phase::Gone);
        for item in state.items.values() {
            if let Item::File(file) = item {
                file.retire();
            }
        }
        let key = (image.store(), state.path.clone());
        let mut table = self.0.lock();
        if table
            .staged
            .get(&key)
            .is_some_and(|known| **known == *image)
        {
            table.staged.remove(&key);
        }
        before != Phase::Gone
    }

    /// Moves a staged image to another path, which must be free.
    pub(super) fn shift(&self, image: &Arc<StagedFolder>, to: &str) -> bool {
        let mut state = image.state();
        let new = (image.store(), to.to_owned());
        let mut table = self.0.lock();
        if table.staged.contains_key(&new) || table.is_folder(&new) {
            return false;
        }
        table.staged.remove(&(image.store(), state.path.clone()));
        table.staged.insert(new, Arc::clone(image));
        state.path = to.to_owned();
        true
    }

    /// Makes a folder of names.
    pub(super) fn make_folder(&self, store: StoreId, path: &str, maker: Process) {
        let kept = maker.makes_for_others();
        self.0.lock().made.insert(
            (store, path.to_owned()),
            Made {
                maker,
                kept,
                at: Instant::now(),
            },
        );
    }

    /// Removes a made folder; fails when the folder is not empty.
    pub(super) fn remove_folder(&self, store: StoreId, path: &str) -> Option<bool> {
        let mut table = self.0.lock();
        let key = (store, path.to_owned());
        table.made.get(&key)?;
        if table.has_below(&key) {
            return Some(false);
        }
        table.made.remove(&key);
        Some(true)
    }

    /// Notes an image that this mount has committed.
    pub(super) fn note_committed(&self, key: ImageKey, index: Digest, by: Process) {
        let at = Instant::now();
        self.0
            .lock()
            .committed
            .insert(key, Committed { at, index, by });
    }

    /// Whether this process has just made the image, and may be rewriting its files.
    pub(super) fn was_committed_by(&self, key: &ImageKey, process: Process) -> bool {
        let table = self.0.lock();
        table
            .committed
            .get(key)
            .is_some_and(|committed| committed.by == process)
    }

    /// The digest of the `index.json` that the image was committed with, if that was a moment ago.
    pub(super) fn committed(&self, key: &ImageKey) -> Option<Digest> {
        let table = self.0.lock();
        let committed = table.committed.get(key)?;
        (committed.at.elapsed() < AFTERWARDS).then_some(committed.index)
    }

    pub(super) fn is_hidden(&self, key: &ImageKey, part: Part) -> bool {
        let table = self.0.lock();
        let hidden = table.hidden.get(key);
        hidden.is_some_and(|hidden| hidden.parts.contains(&part))
    }

    /// Whether a part of the image has been removed.
    pub(super) fn is_going(&self, key: &ImageKey) -> bool {
        self.0.lock().hidden.contains_key(key)
    }

    pub(super) fn hide(&self, key: &ImageKey, part: Part) {
        let mut table = self.0.lock();
        let hidden = table.hidden.entry(key.clone()).or_insert_with(|| Hidden {
            at: Instant::now(),
            parts: HashSet::new(),
        });
        hidden.at = Instant::now();
        hidden.parts.insert(part);
    }

    pub(super) fn unhide(&self, key: &ImageKey, part: Part) {
        let mut table = self.0.lock();
        if let Some(hidden) = table.hidden.get_mut(key) {
            hidden.parts.remove(&part);
            if hidden.parts.is_empty() {
                table.hidden.remove(key);
            }
        }
    }

    pub(super) fn forget_image(&self, key: &ImageKey) {
        let mut table = self.0.lock();
        table.hidden.remove(key);
        table.committed.remove(key);
    }
}

impl Table {
    fn is_folder(&self, key: &(StoreId, String)) -> bool {
        self.made.contains_key(key) || self.has_below(key)
    }

    fn has_below(&self, key: &(StoreId, String)) -> bool {
        let prefix = format!("{}/", key.1);
        self.staged
            .keys()
            .chain(self.made.keys())
            .any(|(store, path)| *store == key.0 && path.starts_with(&prefix))
    }
}

impl Tree {
    /// Removes staged images and made folders that nobody will complete; only those at or below a path, if one
    /// is given.
    pub(super) fn collect_abandoned(&self, at: Option<(StoreId, &str)>) {
        let candidates: Vec<Arc<StagedFolder>> = {
            let mut table = self.staging.0.lock();
            table.committed.retain(|_, c| c.at.elapsed() < AFTERWARDS);
            table.hidden.retain(|_, h| h.at.elapsed() < AFTERWARDS);
            let wanted = |(store, path): &(StoreId, String)| match at {
                None => true,
                Some((wanted, top)) => {
                    *store == wanted
                        && path
                            .strip_prefix(top)
                            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
                }
            };
            table
                .staged
                .iter()
                .filter(|(key, _)| wanted(key))
                .map(|(_, image)| Arc::clone(image))
                .collect()
        };
        for image in candidates.iter().filter(|image| image.is_abandoned()) {
            let (path, items, missing) = {
                let state = image.state();
                (state.path.clone(), state.items.len(), state.missing.clone())
            };
            if !self.staging.remove(image) {
                continue;
            }
            let store = self.view(image.store()).map_or("", |view| &view.label);
            tracing::info!(store, path, items, "an unfinished copy is dropped");
            if let Some(missing) = missing {
                let why = format!("the copy ended before it was complete: {missing}");
                self.status
                    .begin(store, &path, "copy")
                    .end::<(), _>(&Err(why));
            }
        }
        let mut table = self.staging.0.lock();
        let empty: Vec<_> = table
            .made
            .iter()
            .filter(|(key, made)| {
                !table.has_below(key)
                    && !made.maker.is_alive()
                    && (!made.kept || made.at.elapsed() > AFTERWARDS * 10)
            })
            .map(|(key, _)| key.clone())
            .collect();
        for key in empty {
            table.made.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests;
