//! The open files and folders by number.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::errno::{Errno, Result};
use crate::tree::listing::Listing;
use crate::tree::open_file::OpenFile;

#[derive(Clone, Debug)]
enum Handle {
    File(Arc<dyn OpenFile>),
    Folder(Arc<Listing>),
}

/// The open handles.
#[derive(Debug, Default)]
pub(super) struct Handles {
    open: Mutex<HashMap<u64, Handle>>,
    last: AtomicU64,
}

impl Handles {
    pub(super) fn len(&self) -> usize {
        self.open.lock().len()
    }

    /// A number for a new handle.
    pub(super) fn reserve(&self) -> u64 {
        self.last.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(super) fn insert_file(&self, number: u64, file: Arc<dyn OpenFile>) {
        self.open.lock().insert(number, Handle::File(file));
    }

    pub(super) fn add_folder(&self, listing: Arc<Listing>) -> u64 {
        let number = self.reserve();
        self.open.lock().insert(number, Handle::Folder(listing));
        number
    }

    pub(super) fn file(&self, number: u64) -> Result<Arc<dyn OpenFile>> {
        match self.open.lock().get(&number) {
            Some(Handle::File(file)) => Ok(Arc::clone(file)),
            Some(Handle::Folder(_)) => Err(Errno::ISDIR),
            None => Err(Errno::BADF),
        }
    }

    pub(super) fn folder(&self, number: u64) -> Result<Arc<Listing>> {
        match self.open.lock().get(&number) {
            Some(Handle::Folder(listing)) => Ok(Arc::clone(listing)),
            Some(Handle::File(_)) => Err(Errno::NOTDIR),
            None => Err(Errno::BADF),
        }
    }

    /// Removes a handle; returns its file.
    pub(super) fn remove(&self, number: u64) -> Option<Arc<dyn OpenFile>> {
        match self.open.lock().remove(&number) {
            Some(Handle::File(file)) => Some(file),
            _ => None,
        }
    }
}
