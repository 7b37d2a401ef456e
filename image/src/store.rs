//! A store of named images as the mounted tree and the listings see it: a repository or a daemon.

use std::fs::File;
use std::sync::Arc;
use std::time::SystemTime;

use crate::error::Result;
use crate::origin::Origin;
use crate::transfer::{Context, Layout, Sink};
use pcocc_layers::Digest;

/// One named image of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Full name in the store's own notation: `centos`, and the same image once more as `centos@3`,
    /// in a repository;
    /// `debian:12`, `ghcr.io/org/app:1` in a daemon (always with its tag).
    pub name: String,
    /// Image ID; `None` for what is not a container image.
    pub id: Option<Digest>,
    /// Size in bytes: of the stored blobs in a repository, of the unpacked layers in a daemon.
    pub size: u64,
    /// When the image was made or imported.
    pub created: SystemTime,
}

/// A set of named images. Implementations are shared between threads; every call may block.
pub trait Store: Send + Sync {
    /// All named images. One cheap request; never exports anything.
    fn list(&self) -> Result<Vec<Entry>>;

    /// A number that changes whenever [`Store::list`] may have changed; costs next to nothing.
    fn version(&self) -> Result<u64>;

    /// Fails with [`crate::Error::Invalid`] when `name` can never name an image of this store.
    fn check_name(&self, name: &str) -> Result<()>;

    /// Fails when `name` cannot be created as things are, for a reason that the listing need not show:
    /// not a legal new name, taken by what is not listed, a store that cannot be written.
    fn check_new(&self, name: &str) -> Result<()> {
        self.check_name(name)
    }

    /// The image as a layout whose layers are local files ([`Layout::layer_file`] is never `None`).
    ///
    /// On a daemon this exports the image into a spool unless the spool has it.
    fn layout(&self, name: &str, context: &Context) -> Result<Arc<dyn Layout>>;

    /// The image's root filesystem as an open squashfs file (`config.json` and `rootfs/` inside),
    /// made first when it is missing.
    fn root_filesystem(&self, name: &str, context: &Context) -> Result<Arc<File>>;

    /// Where the image came from, or for a daemon's: that it comes from there.
    fn origin(&self, _name: &str) -> Option<Origin> {
        None
    }

    /// A sink that creates `name`, and keeps where it came from if the store can.
    fn sink(&self, name: &str, origin: Option<Origin>) -> Result<Box<dyn Sink>>;

    /// Gives the image another name, which must be free; the old name goes.
    fn rename(&self, from: &str, to: &str) -> Result<()>;

    /// Removes the name, and the image when it was its last.
    fn remove(&self, name: &str) -> Result<()>;
}
