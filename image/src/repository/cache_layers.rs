//! Which cached squashfs file has the layers that an image begins with.
//!
//! Disk layout, in the folder of the cache:
//!
//! ```text
//! .layers/hh/<image ID, hex>.toc     the table of contents of the squashfs file of that image
//! .layers/hh/<chain ID, hex>.images  images that begin with this stack of layers, the latest first, an ID a line
//! ```
//!
//! To find a base, the chain IDs of an image are looked for from the top down: a few small files, however many images
//! there are. Nothing here is flushed to disk, and nothing is believed. A table has a digest of itself, and names the
//! diff IDs that make a chain ID right or wrong; the content of the squashfs file is compared with the table while it
//! is copied. So a squashfs file that was damaged, or that others put in place of ours, is never built upon.
//!
//! Without locks: of two writers of one list, one image may get lost, and is not found as a base.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use pcocc_core::beneath;
use pcocc_core::progress::Reporter;

use crate::error::{Error, Result};
use crate::ingest::{Base, Rootfs};
use crate::oci::MAX_LAYERS;
use crate::repository::cache::{Cache, CacheKey};
use pcocc_layers::squashfs::Toc;
use pcocc_layers::{ChainId, DiffId, Digest};

/// The folder in the cache.
const LAYERS: &str = ".layers";
const TOC: &str = "toc";
const IMAGES: &str = "images";

/// Most images in a list.
const MAX_IMAGES: usize = 4;
/// Longest list: lines of a digest.
const MAX_LIST: u64 = MAX_IMAGES as u64 * 72;

/// A table of contents in the cache.
#[derive(Debug)]
pub(crate) struct CachedToc {
    /// The image whose squashfs file it is about.
    pub(crate) image: Digest,
    /// Its size in bytes.
    pub(crate) size: u64,
}

impl Cache {
    /// The squashfs file that begins with most of the layers `diff_ids`, lowest first, at least with one.
    ///
    /// What cannot be read is passed over: the file can be made without a base.
    pub fn base(&self, diff_ids: &[DiffId], progress: &Reporter) -> Option<Base> {
        // A daemon's word: no image has more.
        let diff_ids = diff_ids.get(..MAX_LAYERS).unwrap_or(diff_ids);
        let mut tried = HashSet::new();
        let chains = ChainId::prefixes(diff_ids).into_iter().enumerate();
        for (below, chain) in chains.rev() {
            let length = below + 1;
            let lowest = diff_ids.get(..length).unwrap_or_default();
            for image in self.images_on(chain) {
                if !tried.insert(image) {
                    continue;
                }
                match self.base_of(image, progress) {
                    Ok(Some(base))
                        if base.toc.diff_ids().take(length).eq(lowest.iter().copied()) =>
                    {
                        tracing::debug!(%image, length, "the squashfs image begins with that of another image");
                        return Some(base);
                    }
                    Ok(_) => {}
                    Err(error) => {
                        tracing::debug!(%error, %image, "no squashfs image to begin with")
                    }
                }
            }
        }
        None
    }

    /// The squashfs file of an image with its table of contents.
    fn base_of(&self, image: Digest, progress: &Reporter) -> Result<Option<Base>> {
        let Some(toc) = self.open_below(&toc_name(image))? else {
            return Ok(None);
        };
        let key = CacheKey::of_image(image);
        // Looked for after the small file, and noted as used: it is.
        let Some(file) = self.open(&key, progress)? else {
            return Ok(None);
        };
        let path = self.path().join(toc_name(image));
        let toc = beneath::read(toc, Toc::MAX_BYTES).map_err(Error::io("read", &path))?;
        Ok(Some(Base {
            file,
            path: self.entry_path(&key),
            toc: Toc::decode(&toc)?,
        }))
    }

    /// Flushes and publishes the squashfs file of an image under its ID.
    pub(crate) fn publish_rootfs(&self, rootfs: Rootfs, image: Digest) -> Result<()> {
        self.publish(rootfs.file, &CacheKey::of_image(image))?;
        if let Some(toc) = rootfs.toc
            && let Err(error) = self.publish_toc(image, &toc)
        {
            // Images on top of this one are made from nothing.
            tracing::debug!(%error, %image, "the layers of a cached squashfs image are not noted");
        }
        Ok(())
    }

    /// Notes what the squashfs file of `image` has inside.
    fn publish_toc(&self, image: Digest, toc: &Toc) -> Result<()> {
        let Some(encoded) = toc.encode() else {
            tracing::debug!(%image, "the table of contents is too long to be kept");
            return Ok(());
        };
        self.write_small(&toc_name(image), &encoded)?;
        let diff_ids: Vec<DiffId> = toc.diff_ids().collect();
        for chain in ChainId::prefixes(&diff_ids) {
            let mut images = self.images_on(chain);
            if images.first() == Some(&image) {
                continue;
            }
            images.retain(|other| *other != image);
            images.insert(0, image);
            images.truncate(MAX_IMAGES);
            let lines: String = images.iter().map(|image| format!("{image}\n")).collect();
            self.write_small(&list_name(chain.0), lines.as_bytes())?;
        }
        Ok(())
    }

    /// The images of a list; none if there is no list that can be read.
    fn images_on(&self, chain: ChainId) -> Vec<Digest> {
        let name = list_name(chain.0);
        let read = self.open_below(&name).and_then(|file| match file {
            Some(file) => beneath::read(file, MAX_LIST).map_err(Error::io("read", &name)),
            None => Ok(Vec::new()),
        });
        match read {
            Ok(list) => images_in(&list),
            Err(error) => {
                tracing::debug!(%error, "a list of images in the cache is passed over");
                Vec::new()
            }
        }
    }

    /// Gives a small file its place. A crash may leave it empty or torn.
    fn write_small(&self, name: &Path, content: &[u8]) -> Result<()> {
        self.inner_folder(LAYERS.as_ref())?;
        let folder = self.inner_folder(name.parent().unwrap_or(name))?;
        let mut temp = self.temp()?;
        temp.write_all(content)
            .and_then(|()| temp.rename(&folder, name.file_name().unwrap_or_default()))
            .map_err(|error| self.write_error(error))
    }

    /// All tables of contents, in no order.
    pub(crate) fn tocs(&self) -> Result<Vec<CachedToc>> {
        let mut tocs = Vec::new();
        self.each_small(TOC, &mut |name, found| {
            tocs.push(CachedToc {
                image: name,
                size: found.size,
            });
            Ok(())
        })?;
        Ok(tocs)
    }

    /// Removes the tables of contents whose squashfs file is gone, and the lists that name none that is there.
    pub(crate) fn collect_layers(&self) -> Result<()> {
        for toc in self.tocs()? {
            if !self.contains(&CacheKey::of_image(toc.image)) {
                self.remove_below(&toc_name(toc.image))?;
            }
        }
        self.each_small(IMAGES, &mut |chain, _| {
            let images = self.images_on(ChainId(chain));
            let is_there =
                |image: &Digest| matches!(self.open_below(&toc_name(*image)), Ok(Some(_)));
            match images.iter().any(is_there) {
                true => Ok(()),
                false => self.remove_below(&list_name(chain)),
            }
        })
    }

    /// Calls `take` for all files that are named after a digest and the kind `kind`.
    fn each_small(
        &self,
        kind: &str,
        take: &mut dyn FnMut(Digest, beneath::Found) -> Result<()>,
    ) -> Result<()> {
        let Some(cache) = self.folder()? else {
            return Ok(());
        };
        let Ok(layers) = cache.folder(LAYERS) else {
            return Ok(());
        };
        for folder in layers.names().map_err(Error::io("list", layers.path()))? {
            let Ok(folder) = layers.folder(&folder) else {
                continue;
            };
            for name in folder.names().map_err(Error::io("list", folder.path()))? {
                if let (Some(digest), Ok(found)) = (named(&name, kind), folder.stat(&name)) {
                    take(digest, found)?;
                }
            }
        }
        Ok(())
    }

    /// Opens a file below that only the user and root can have written; `None` when it is not there.
    fn open_below(&self, name: &Path) -> Result<Option<File>> {
        let Some(folder) = self.folder()? else {
            return Ok(None);
        };
        self.open_in(&folder, name)
    }
}

/// The digest in the name of a file of this kind.
fn named(name: &OsString, kind: &str) -> Option<Digest> {
    let (digest, rest) = name.to_str()?.split_once('.')?;
    Digest::from_hex(digest).ok().filter(|_| rest == kind)
}

fn toc_name(image: Digest) -> PathBuf {
    name_of(image, TOC)
}

fn list_name(chain: Digest) -> PathBuf {
    name_of(chain, IMAGES)
}

fn name_of(digest: Digest, kind: &str) -> PathBuf {
    let hex = digest.hex();
    let folder = hex.get(..2).unwrap_or_default();
    [LAYERS, folder, &format!("{hex}.{kind}")].iter().collect()
}

/// Reads a list; what is no ID ends it.
fn images_in(list: &[u8]) -> Vec<Digest> {
    let lines = list.split(|byte| *byte == b'\n').take(MAX_IMAGES);
    lines
        .map_while(|line| std::str::from_utf8(line).ok()?.parse().ok())
        .collect()
}
