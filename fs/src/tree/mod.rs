//! The file system itself, without FUSE: every request as a method.
//!
//! A request names inodes and handles by number. [`node`] tells what an inode is; `look` finds and
//! describes, `files` opens and reads, `listing` lists, `write` makes and changes what is being copied in, `settle`
//! turns a complete copy into an image and undoes what could not be one. Methods may wait for a
//! store, unless [`Tree::may_wait`] says otherwise for the inode. Locks are held for moments only and
//! never across a call into a store.

pub mod files;
mod flight;
pub mod images;
pub mod listing;
pub mod look;
pub mod node;
pub mod rootfs;
mod settle;
mod staged;
pub mod stores;
pub mod write;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use pcocc_core::cancel::Cancel;

use crate::naming::{Notation, StoreId};
use crate::status::{Gauges, Status};
use files::Handles;
use images::Images;
use listing::Listings;
use node::Inodes;
use rootfs::RootFilesystems;
use staged::Staging;
use stores::StoreView;

use settle::Committing;

/// How long the kernel may trust what can change behind the mount.
const SOON: Duration = Duration::from_secs(1);

/// How long it may trust what never changes.
pub(crate) const ALWAYS: Duration = Duration::from_secs(365 * 24 * 3600);

/// What a tree is made of.
#[derive(Debug, Default)]
pub struct TreeOptions {
    /// User and group that own everything but what is inside root file systems.
    pub owner: (u32, u32),
    /// Whether images can be removed.
    pub allow_delete: bool,
    /// Folder for the files of images being copied in.
    pub staging_dir: std::path::PathBuf,
    /// Ends every export and commit under way when raised.
    pub cancel: Cancel,
}

/// The mounted tree.
#[derive(Debug)]
pub struct Tree {
    /// The stores: repositories in order, and the daemon.
    stores: Vec<StoreView>,
    docker: Option<StoreId>,
    owner: (u32, u32),
    allow_delete: bool,
    staging_dir: Arc<Path>,
    started: SystemTime,
    inodes: Inodes,
    handles: Handles,
    listings: Listings,
    images: Images,
    rootfs: RootFilesystems,
    staging: Staging,
    committing: Committing,
    status: Status,
    cancel: Cancel,
}

impl Tree {
    /// Makes a tree over a daemon's and repositories' images.
    pub fn new(
        docker: Option<Arc<dyn pcocc_image::store::Store>>,
        repositories: Vec<(String, Arc<dyn pcocc_image::store::Store>)>,
        options: TreeOptions,
    ) -> Self {
        let mut stores: Vec<StoreView> = repositories
            .into_iter()
            .map(|(label, store)| StoreView::new(label, Notation::Repository, store))
            .collect();
        let docker = docker.map(|store| {
            stores.push(StoreView::new("docker", Notation::Docker, store));
            stores.len() - 1
        });
        Self {
            stores,
            docker,
            owner: options.owner,
            allow_delete: options.allow_delete,
            staging_dir: options.staging_dir.into(),
            started: SystemTime::now(),
            inodes: Inodes::default(),
            handles: Handles::default(),
            listings: Listings::default(),
            images: Images::new(options.cancel.clone()),
            rootfs: RootFilesystems::new(options.cancel.clone()),
            staging: Staging::default(),
            committing: Committing::default(),
            status: Status::default(),
            cancel: options.cancel,
        }
    }

    /// What the tree holds right now.
    pub fn gauges(&self) -> Gauges {
        Gauges {
            inodes: self.inodes.count(),
            rootfs: self.rootfs.lookups(),
            handles: self.handles.len(),
            staged: self.staging.len(),
            committing: self.committing.len(),
        }
    }

    /// Transfers now and lately.
    pub fn status(&self) -> &Status {
        &self.status
    }

    /// Stops every export and commit under way.
    pub fn cancel_all(&self) {
        self.cancel.cancel();
        self.committing.stop_all();
    }

    /// Takes away what was left behind, and stops commits whose tool was told to end. Called often.
    pub fn collect(&self) {
        self.committing.stop_interrupted();
        self.collect_abandoned(None);
        self.images.collect();
        self.rootfs.collect();
    }
}

#[cfg(test)]
mod tests;
