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
    /// Full name in the store's own notation. A repository names `centos`, and each revision as `centos@3`. A
    /// daemon names `debian:12` or `ghcr.io/org/app:1`, always with the tag.
    pub name: String,
    /// Image ID; `None` for images that are not container images.
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

    /// Fails when `name` cannot be created now, for a reason that the listing need not show: the name is not
    /// legal for a new image, or an unlisted image has it, or the store cannot be written.
    fn check_new(&self, name: &str) -> Result<()> {
        self.check_name(name)
    }

    /// The image as a layout whose layers are local files: [`Layout::layer_file`] is never `None`.
    ///
    /// A daemon exports the image into a spool, unless the spool has it.
    fn layout(&self, name: &str, context: &Context) -> Result<Arc<dyn Layout>>;

    /// The image's root filesystem as an open squashfs file, with `config.json` and `rootfs/` inside. A missing
    /// file is made first.
    fn root_filesystem(&self, name: &str, context: &Context) -> Result<Arc<File>>;

    /// The origin of the image; of a daemon's image, the daemon.
    fn origin(&self, _name: &str) -> Option<Origin> {
        None
    }

    /// A sink that creates `name`, and keeps the origin if the store can.
    fn sink(&self, name: &str, origin: Option<Origin>) -> Result<Box<dyn Sink>>;

    /// Gives the image another name, which must be free, and removes the old name.
    fn rename(&self, from: &str, to: &str) -> Result<()>;

    /// Removes the name; an image without a name left is removed.
    fn remove(&self, name: &str) -> Result<()>;
}
