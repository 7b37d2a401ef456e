//! The stores of the tree, each with its listing as folders, which is read again after a change.

use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;
use pcocc_core::cancel::Cancel;
use pcocc_image::Error;
use pcocc_image::store::{Entry, Store};
use pcocc_image::transfer::Context;

use crate::errno::{Errno, Result, errno_of};
use crate::naming::{Names, Notation};
use crate::status::Status;

/// A store and its listing.
pub struct StoreView {
    /// `docker`, or the repository's name.
    pub label: String,
    /// How the store's names are written.
    pub notation: Notation,
    /// The store.
    pub store: Arc<dyn Store>,
    listing: Mutex<Option<(u64, Arc<Names>)>>,
    changed: Mutex<SystemTime>,
}

impl std::fmt::Debug for StoreView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoreView")
            .field("label", &self.label)
            .finish_non_exhaustive()
    }
}

impl StoreView {
    /// Shows `store` as `label`.
    pub fn new(label: impl Into<String>, notation: Notation, store: Arc<dyn Store>) -> Self {
        Self {
            label: label.into(),
            notation,
            store,
            listing: Mutex::default(),
            changed: Mutex::new(SystemTime::now()),
        }
    }

    /// The present names. Lists the store only if its version has changed.
    pub fn names(&self) -> Result<Arc<Names>> {
        let failed = |error| {
            tracing::warn!(store = %self.label, %error, "cannot list images");
            *self.changed.lock() = SystemTime::now();
            errno_of(&error)
        };
        // The version is read before the listing: a change in between is noticed the next time.
        let version = self.store.version().map_err(failed)?;
        if let Some((known, names)) = &*self.listing.lock()
            && *known == version
        {
            return Ok(Arc::clone(names));
        }
        let names = Arc::new(Names::new(
            self.notation,
            self.store.list().map_err(failed)?,
        ));
        *self.listing.lock() = Some((version, Arc::clone(&names)));
        *self.changed.lock() = SystemTime::now();
        Ok(names)
    }

    /// When the listing was last read, or could not be read: a new time means that it may have changed.
    pub fn changed(&self) -> SystemTime {
        // Listing the folder reports the error.
        let _ = self.names();
        *self.changed.lock()
    }

    /// Drops the listing; the next request lists the store again.
    pub fn invalidate(&self) {
        *self.listing.lock() = None;
    }

    /// The image with this full name.
    pub fn entry(&self, name: &str) -> Result<Arc<Entry>> {
        self.names()?.image(name).ok_or(Errno::NOENT)
    }

    /// Runs `work` on an image as the transfer `action`; the status shows the transfer when it moves bytes.
    pub fn transfer<T>(
        &self,
        name: &str,
        action: &'static str,
        status: &Status,
        cancel: &Cancel,
        work: impl FnOnce(&Context) -> Result<T, Error>,
    ) -> Result<T> {
        let transfer = status.begin_when_moving(&self.label, name, action);
        let context = Context {
            progress: transfer.reporter(),
            cancel: cancel.clone(),
        };
        let result = work(&context);
        transfer.end(&result);
        result.map_err(|error| {
            tracing::warn!(store = %self.label, image = %name, %error, action, "cannot read an image");
            errno_of(&error)
        })
    }
}
