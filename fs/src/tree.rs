//! The file system itself, without FUSE: every request as a method.
//!
//! A request names inodes and handles by number. `requests` and `readdir` are a thin dispatcher: they find the
//! [`nodes::Node`] or open file (`handles`) of the number and call its method. Each kind of node has a file:
//!
//! - `nodes/fixed`: the top of the tree, its README and status
//! - `nodes/names`: the folders of names in a store
//! - `nodes/image`: the folder of an image and the parts of its layout
//! - `nodes/rootfs`: root file systems
//! - `nodes/staged`: folders and files of an image that is being copied in
//!
//! Shared state of the tree: `inodes` (numbers), [`images`] and [`rootfs`] (opened images), `staging` (images
//! being copied in), `stage` (which starts one), `commit` (which turns a complete copy into an image),
//! `listing` (folders being read), [`stores`]. Methods may wait for a store, unless [`Tree::may_wait`] says
//! otherwise for the inode. Locks are held for moments only, and never across a call into a store.

mod commit;
mod flight;
mod handles;
pub mod image_key;
pub mod images;
pub mod inodes;
pub mod listing;
pub mod nodes;
mod open_file;
mod readdir;
mod requests;
pub mod rootfs;
mod stage;
mod staging;
pub mod stores;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use pcocc_core::cancel::Cancel;

use crate::attributes::ExtendedAttribute;
use crate::errno::{Errno, Result};
use crate::naming::{Notation, StoreId};
use crate::status::{Gauges, Status};
use commit::Committing;
use handles::Handles;
use images::Images;
use inodes::Inodes;
use listing::Listings;
use nodes::Node;
use rootfs::RootFilesystems;
use staging::Staging;
use stores::StoreView;

pub use open_file::Caching;
pub use requests::{Lookup, Space};

/// The extended attribute with the reason why the last copy failed.
const ERROR_ATTRIBUTE: &[u8] = b"user.pcocc.error";

/// Validity of attributes that can change behind the mount.
const SOON: Duration = Duration::from_secs(1);

/// Settings of a tree.
#[derive(Debug, Default)]
pub struct TreeOptions {
    /// User and group that own everything outside of root file systems.
    pub owner: (u32, u32),
    /// Whether images can be removed.
    pub allow_delete: bool,
    /// Folder for the files of images being copied in.
    pub staging_dir: std::path::PathBuf,
    /// Ends all running exports and commits when raised.
    pub cancel: Cancel,
}

/// The mounted tree.
#[derive(Debug)]
pub struct Tree {
    /// The stores: repositories in order, and the daemon.
    stores: Vec<Arc<StoreView>>,
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
        let mut stores: Vec<_> = repositories
            .into_iter()
            .map(|(label, store)| Arc::new(StoreView::new(label, Notation::Repository, store)))
            .collect();
        let docker = docker.map(|store| {
            stores.push(Arc::new(StoreView::new("docker", Notation::Docker, store)));
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

    /// The numbers of things that the tree holds.
    pub fn gauges(&self) -> Gauges {
        Gauges {
            inodes: self.inodes.count(),
            rootfs: self.rootfs.lookups(),
            handles: self.handles.len(),
            staged: self.staging.len(),
            committing: self.committing.len(),
        }
    }

    /// The transfers, present and past.
    pub fn status(&self) -> &Status {
        &self.status
    }

    /// Stops all running exports and commits.
    pub fn cancel_all(&self) {
        self.cancel.cancel();
        self.committing.stop_all();
    }

    /// Removes abandoned copies, closes unused images, and stops commits whose tool is being ended. Called
    /// often.
    pub fn collect(&self) {
        self.committing.stop_interrupted();
        self.collect_abandoned(None);
        self.images.collect();
        self.rootfs.collect();
    }
}

impl Tree {
    fn view(&self, store: StoreId) -> Result<&Arc<StoreView>> {
        self.stores.get(store).ok_or(Errno::STALE)
    }

    fn node(&self, number: u64) -> Result<Node> {
        self.inodes.get(number).ok_or(Errno::STALE)
    }

    /// Notes one more reference of the kernel to `node`; returns its number.
    fn remember(&self, node: &Node) -> u64 {
        if let Node::RootfsFile(file) = node
            && let Ok(open) = self.rootfs.get(file.system)
        {
            open.remember();
        }
        self.inodes.remember(node)
    }

    /// The kernel dropped `count` references to an inode.
    pub fn forget(&self, number: u64, count: u64) {
        match self.inodes.get(number) {
            Some(Node::RootfsFile(file)) => self.rootfs.forget(file.system, count),
            _ => self.inodes.forget(number, count),
        }
    }

    /// The extended attributes with the reason why the last copy into a store, or of one of its images, failed.
    fn last_error(&self, store: StoreId, image: Option<&str>) -> Result<Vec<ExtendedAttribute>> {
        let error = self.status.last_error(&self.view(store)?.label, image);
        let error = error.map(|text| (ERROR_ATTRIBUTE.to_vec(), text.into_bytes()));
        Ok(error.into_iter().collect())
    }
}

#[cfg(test)]
mod tests;
