//! The image to run: its files and its config.

use std::fs::File;
use std::sync::Arc;

use pcocc_fs::root::RootTree;
use pcocc_image::Error;
use pcocc_image::formats::Location;
use pcocc_image::layout::LayoutFolder;
use pcocc_image::oci::Platform;
use pcocc_image::reference::ImageUri;
use pcocc_layers::squashfs::{BlockCache, Squashfs};
use pcocc_run::account::Account;
use pcocc_run::config::ImageConfig;

use crate::errors::Outcome;
use crate::invocation::Invocation;

/// Bytes of inflated blocks that are kept; the kernel caches file content.
const CACHE: usize = 32 << 20;

/// Prefix of an image in a folder.
const LAYOUT: &str = "oci:";

/// An image that can be run.
#[derive(Debug)]
pub(super) struct RunImage {
    /// Its config.
    pub(super) config: ImageConfig,
    squashfs: Arc<File>,
    /// The user's name for the image, and the plain one.
    names: Vec<String>,
}

/// Opens the image `name`; a root file system that the cache lacks is made.
pub(super) fn open(invocation: &Invocation, name: &str) -> Outcome<RunImage> {
    let repositories = invocation.host.repositories()?;
    let mut names = vec![name.to_owned()];
    let (image, file) = if name.starts_with(LAYOUT) {
        let home = Some(invocation.environment.home.as_path());
        let location = Location::source(name, None, home)?;
        let Location::OciFolder { path, tag } = location else {
            let error = Error::invalid(name, "is no OCI image layout");
            return Err(error.into());
        };
        let layout = LayoutFolder::open(&path, tag.as_deref(), Platform::host())?;
        invocation.drawn(|context| {
            repositories.root_filesystem_of(&layout, Default::default(), context)
        })?
    } else {
        let uri: ImageUri = name.parse()?;
        let (repository, meta) = repositories.find(&uri)?;
        let image = repository.image(&meta)?;
        names.push(uri.name.clone());
        let options = repository.options();
        let file = invocation
            .drawn(|context| repositories.root_filesystem(repository, &meta, options, context))?;
        (image, file)
    };
    Ok(RunImage {
        config: ImageConfig::parse(image.config())?,
        squashfs: Arc::new(file),
        names,
    })
}

impl RunImage {
    /// The names of the image in `containers.yaml`, the closest first.
    pub(super) fn names(&self) -> Vec<&str> {
        self.names.iter().map(String::as_str).collect()
    }

    /// The image's files as the root of a container of `account`.
    pub(super) fn tree(&self, account: &Account) -> Result<RootTree, Error> {
        let squashfs = self.open()?;
        let top = squashfs
            .lookup(squashfs.root(), b"rootfs")?
            .ok_or_else(|| Error::invalid("the image's squashfs file", "has no rootfs"))?;
        Ok(RootTree::new(
            squashfs,
            top.inode,
            (account.uid, account.gid),
        ))
    }

    /// The files in the folder `rootfs`.
    pub(super) fn bundle(&self, account: &Account) -> Result<RootTree, Error> {
        let squashfs = self.open()?;
        let root = squashfs.root();
        Ok(RootTree::new(squashfs, root, (account.uid, account.gid)))
    }

    fn open(&self) -> Result<Squashfs, Error> {
        Ok(Squashfs::open(
            Arc::clone(&self.squashfs),
            BlockCache::new(CACHE),
        )?)
    }
}
