//! A folder that is to become an image: its names, its state, and its writers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use parking_lot::{Mutex, MutexGuard};

use super::file::StagedFile;
use super::id::{StagedId, compare_by_id};
use crate::errno::{Errno, Result};
use crate::naming::StoreId;
use crate::process::Process;

/// State of an image folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Tools write into it.
    Filling,
    /// The transfer into its store runs.
    Committing,
    /// The folder is an image, or was removed: its files cannot be written any more.
    Gone,
}

/// A name inside a staged image.
#[derive(Clone, Debug)]
pub enum Item {
    /// A folder.
    Dir,
    /// A file.
    File(Arc<StagedFile>),
}

/// The part of a staged image that changes.
#[derive(Debug)]
pub struct State {
    /// Its path in the store's tree.
    pub path: String,
    /// Files and folders by path inside.
    pub items: BTreeMap<String, Item>,
    /// Its state.
    pub phase: Phase,
    /// The number of the change that failed to commit, and the errno.
    pub failed: Option<(u64, Errno)>,
    /// Why the folder is not complete, from the last examination.
    pub missing: Option<String>,
    /// The process that made the folder, and the process that last used it.
    pub users: (Process, Process),
    /// When the folder was last used.
    pub touched: Instant,
    /// When its names last changed.
    pub modified: SystemTime,
}

/// An image folder that is being written.
#[derive(Debug)]
pub struct StagedFolder {
    pub(super) id: StagedId,
    store: StoreId,
    /// Made by a program whose end means nothing (`mkdir`), so kept for a while.
    kept: bool,
    changes: AtomicU64,
    state: Mutex<State>,
}

compare_by_id!(StagedFolder);

impl StagedFolder {
    /// Starts an empty folder at `path` of a store.
    pub fn new(store: StoreId, path: &str, maker: Process) -> Arc<Self> {
        Arc::new(Self {
            id: StagedId::next(),
            store,
            kept: maker.makes_for_others(),
            changes: AtomicU64::new(0),
            state: Mutex::new(State {
                path: path.to_owned(),
                items: BTreeMap::new(),
                phase: Phase::Filling,
                failed: None,
                missing: None,
                users: (maker, maker),
                touched: Instant::now(),
                modified: SystemTime::now(),
            }),
        })
    }

    /// The store that the image goes to.
    pub fn store(&self) -> StoreId {
        self.store
    }

    /// The locked state.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Counts a change of names or content.
    pub fn changed(&self) {
        self.changes.fetch_add(1, Ordering::Relaxed);
    }

    /// The number of changes so far.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Relaxed)
    }

    /// Fails unless the folder can be written; notes the writer.
    pub fn touch(&self, by: Option<Process>) -> Result<MutexGuard<'_, State>> {
        let mut state = self.state();
        match state.phase {
            Phase::Filling => {
                if let Some(by) = by {
                    state.users.1 = by;
                }
                state.touched = Instant::now();
                Ok(state)
            }
            Phase::Committing => Err(Errno::BUSY),
            Phase::Gone => Err(Errno::STALE),
        }
    }

    /// Whether nobody will complete the folder: its maker and its last user have ended. A folder made by
    /// `mkdir` is kept for ten minutes.
    pub fn is_abandoned(&self) -> bool {
        const KEPT: Duration = Duration::from_secs(600);
        let (phase, users, idle) = {
            let state = self.state();
            (state.phase, state.users, state.touched.elapsed())
        };
        phase == Phase::Filling
            && !users.0.is_alive()
            && (users.1 == users.0 || !users.1.is_alive())
            && (!self.kept || idle > KEPT)
    }
}
