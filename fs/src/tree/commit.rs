//! Turning a complete copy into an image of its store.
//!
//! Phases: the folder is examined → unless it changes meanwhile, it is closed to writers → the transfer runs →
//! the folder's inodes become those of the new image. A failure opens the folder again. The failure is reported
//! once for each change, so that a second close does not run the transfer again.

use std::sync::Arc;

use parking_lot::Mutex;
use pcocc_core::cancel::Cancel;
use pcocc_image::Error;
use pcocc_image::oci::Image;
use pcocc_image::transfer::{self, Context};
use pcocc_layers::Digest;

use crate::errno::{Errno, Result, errno_of};
use crate::process::Process;
use crate::staged::{Item, Phase, StagedFolder, StagedImage, Verdict, examine};
use crate::tree::Tree;
use crate::tree::image_key::{ImageKey, Part};
use crate::tree::nodes::{ImageNode, StagedDirNode};

/// The running commits, and the processes that wait for them.
#[derive(Debug, Default)]
pub(super) struct Committing(Mutex<Vec<(Process, Cancel)>>);

impl Committing {
    /// Number of running commits.
    pub(super) fn len(&self) -> usize {
        self.0.lock().len()
    }

    /// Stops commits whose tool is being ended.
    pub(super) fn stop_interrupted(&self) {
        let running = self.0.lock().clone();
        for (process, cancel) in running {
            if process.is_interrupted() {
                cancel.cancel();
            }
        }
    }

    /// Stops all commits.
    pub(super) fn stop_all(&self) {
        for (_, cancel) in self.0.lock().iter() {
            cancel.cancel();
        }
    }

    fn begin(&self, process: Process, cancel: &Cancel) {
        self.0.lock().push((process, cancel.clone()));
    }

    fn end(&self, cancel: &Cancel) {
        let flag = cancel.flag();
        self.0
            .lock()
            .retain(|(_, other)| !Arc::ptr_eq(&other.flag(), &flag));
    }
}

impl Tree {
    /// Commits the folder if it is complete. Returns the answer for the tool.
    pub(super) fn commit_if_complete(
        &self,
        staged: &Arc<StagedFolder>,
        caller: Process,
    ) -> Result<()> {
        let changes = staged.changes();
        let (path, items) = {
            let state = staged.state();
            if state.phase != Phase::Filling {
                return Ok(());
            }
            if let Some((failed, errno)) = state.failed
                && failed == changes
            {
                return Err(errno);
            }
            let flushed = state.items.values().all(|item| match item {
                Item::File(file) => file.is_flushed(),
                Item::Dir => true,
            });
            if !flushed {
                return Ok(());
            }
            (state.path.clone(), state.items.clone())
        };
        let view = self.view(staged.store())?;
        let name = view.notation.name_of(&path).ok_or(Errno::INVAL)?;
        let cancel = Cancel::new();
        self.committing.begin(caller, &cancel);
        let result = match examine(&items, &cancel) {
            Ok(Verdict::Incomplete(what)) => {
                staged.state().missing = Some(what);
                self.committing.end(&cancel);
                return Ok(());
            }
            Ok(Verdict::Complete(image)) => {
                let mut state = staged.state();
                if staged.changes() != changes || state.phase != Phase::Filling {
                    // The process that changed the folder will close it once more.
                    self.committing.end(&cancel);
                    return Ok(());
                }
                state.phase = Phase::Committing;
                drop(state);
                self.transfer(staged, &name, &image, &cancel)
            }
            Err(error) => {
                let running = self.status.begin(&view.label, &name, "copy");
                let result = Err(error);
                running.end::<Image, _>(&result);
                result
            }
        };
        self.committing.end(&cancel);
        match result {
            Ok(image) => {
                self.become_image(staged, &name, image, &items, caller);
                Ok(())
            }
            Err(error) => {
                let errno = errno_of(&error);
                tracing::warn!(store = %view.label, image = %name, %error, "the copy failed");
                let mut state = staged.state();
                if state.phase == Phase::Committing {
                    state.phase = Phase::Filling;
                }
                state.failed = Some((staged.changes(), errno));
                state.missing = None;
                Err(errno)
            }
        }
    }

    fn transfer(
        &self,
        staged: &StagedFolder,
        name: &str,
        image: &StagedImage,
        cancel: &Cancel,
    ) -> Result<Image, Error> {
        let Ok(view) = self.view(staged.store()) else {
            return Err(Error::NotFound(name.to_owned()));
        };
        let running = self.status.begin(&view.label, name, "copy");
        let context = Context {
            progress: running.reporter(),
            cancel: cancel.clone(),
        };
        let result = view
            .store
            .sink(name, image.origin().cloned())
            .and_then(|sink| transfer::copy(image, &*sink, &context));
        running.end(&result);
        result
    }

    /// The staged folder's inodes become those of the image.
    fn become_image(
        &self,
        staged: &Arc<StagedFolder>,
        name: &str,
        image: Image,
        items: &std::collections::BTreeMap<String, Item>,
        by: Process,
    ) {
        let entry = self.view(staged.store()).and_then(|view| {
            view.invalidate();
            view.entry(name)
        });
        let key = match entry {
            Ok(entry) => ImageKey::of(staged.store(), &entry),
            Err(errno) => {
                tracing::warn!(%errno, image = name, "an image just written is not listed");
                self.staging.remove(staged);
                return;
            }
        };
        let index = match items.get("index.json") {
            Some(Item::File(file)) => file.digest(&self.cancel).ok(),
            _ => None,
        };
        self.staging
            .note_committed(key.clone(), index.unwrap_or_else(|| Digest::of(b"")), by);
        let view = self.view(staged.store()).ok();
        let origin = view.and_then(|view| view.store.origin(&key.name));
        self.images.note(&key, image, origin.as_ref());
        // The blobs are noted first: a process that found the image before would have it exported.
        self.staging.remove(staged);
        let parts = [
            ("", Part::Top),
            ("blobs", Part::Blobs),
            ("blobs/sha256", Part::Sha256),
        ];
        for (path, part) in parts {
            self.inodes.rebind(
                &StagedDirNode::at(staged, path),
                ImageNode::part(&key, part),
            );
        }
    }
}
