//! Receiving one image into an entry of the spool.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write as _};

use pcocc_core::beneath::{OpenFolder, TempFile};

use super::folder::Folder;
use super::{BLOBS, ROOTFS, TOC, is_missing};
use crate::error::{Error, Result};
use crate::ingest::{BlobDir, Ingest, Options};
use crate::layout::{MARKER, MARKER_NAME};
use crate::oci::{Image, Layer};
use crate::transfer::{Context, Offer, Receiver, Sink};
use pcocc_layers::{DiffId, Digest};

/// Receives an image into a folder that becomes an entry of the spool later.
#[derive(Debug)]
pub(super) struct SpoolSink<'a> {
    blobs: EntryBlobs,
    spool: &'a Folder,
    options: Options,
}

impl<'a> SpoolSink<'a> {
    /// Receives into the empty `folder`; what other entries of `spool` have is taken from there.
    pub(super) fn new(folder: OpenFolder, spool: &'a Folder, options: Options) -> Result<Self> {
        let made = folder
            .folder_or_new("blobs", 0o700)
            .and_then(|_| folder.folder_or_new(BLOBS, 0o700));
        let blobs = made.map_err(Error::io("create", folder.path().join(BLOBS)))?;
        Ok(Self {
            blobs: EntryBlobs {
                folder,
                blobs,
                others: spool.layers(),
            },
            spool,
            options,
        })
    }
}

impl Sink for SpoolSink<'_> {
    fn open(&self, _context: &Context) -> Result<Box<dyn Receiver + '_>> {
        let rootfs = self.blobs.temp()?;
        Ok(Box::new(SpoolReceiver {
            blobs: &self.blobs,
            spool: self.spool,
            ingest: Ingest::new(&self.blobs, self.options, Some(rootfs))?,
        }))
    }
}

struct SpoolReceiver<'a> {
    blobs: &'a EntryBlobs,
    spool: &'a Folder,
    ingest: Ingest<'a>,
}

impl Receiver for SpoolReceiver<'_> {
    fn expect_layers(&mut self, lowest: &[DiffId], context: &Context) -> Result<()> {
        match self.spool.base(lowest) {
            Some(base) => self.ingest.begin_on(base, lowest, context),
            None => Ok(()),
        }
    }

    fn has_layer(&mut self, diff_id: DiffId) -> Result<bool> {
        self.ingest.has_layer(diff_id)
    }

    fn layer(&mut self, offer: &Offer<'_>, context: &Context) -> Result<Layer> {
        self.ingest.layer(offer, context)
    }

    fn commit(mut self: Box<Self>, image: &Image, context: &Context) -> Result<()> {
        self.ingest.documents(image, context)?;
        let Some(rootfs) = self.ingest.finish(image, context)? else {
            return Err(Error::NotFound(format!(
                "root filesystem of {}",
                image.id()
            )));
        };
        let folder = &self.blobs.folder;
        let failed = |name: &str| Error::io("write", folder.path().join(name));
        let toc = rootfs.toc.and_then(|toc| toc.encode()).unwrap_or_default();
        let mut rootfs = rootfs.file;
        rootfs.rename(folder, ROOTFS).map_err(failed(ROOTFS))?;
        let index = image.index(None)?;
        for (name, content) in [(MARKER_NAME, MARKER), ("index.json", &index), (TOC, &toc)] {
            let file = folder.create_file(name, 0o600);
            file.and_then(|mut file| file.write_all(content))
                .map_err(failed(name))?;
        }
        Ok(())
    }
}

/// The blobs of an unfinished entry.
#[derive(Debug)]
struct EntryBlobs {
    folder: OpenFolder,
    blobs: OpenFolder,
    /// Layers of other entries with the folders of their blobs, verified when they came.
    others: HashMap<DiffId, (Layer, OpenFolder)>,
}

impl EntryBlobs {
    fn failed(
        &self,
        action: &'static str,
        digest: Digest,
    ) -> impl FnOnce(io::Error) -> Error + use<> {
        Error::io(action, self.blobs.path().join(digest.hex()))
    }
}

impl BlobDir for EntryBlobs {
    fn size_of(&self, digest: Digest) -> Result<Option<u64>> {
        match self.blobs.stat(digest.hex()) {
            Ok(found) => Ok(Some(found.size)),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(self.failed("look for", digest)(error)),
        }
    }

    fn open(&self, digest: Digest) -> Result<File> {
        let file = self.blobs.open_file(digest.hex());
        file.map_err(self.failed("open", digest))
    }

    fn temp(&self) -> Result<TempFile> {
        let temp = self.folder.temp(".tmp-", 0o600);
        temp.map_err(Error::io("create a file in", self.folder.path()))
    }

    fn publish(&self, mut temp: TempFile, digest: Digest, _size: u64) -> Result<()> {
        let renamed = temp.rename(&self.blobs, digest.hex());
        renamed.map_err(self.failed("publish", digest))
    }

    fn known_layer(&self, diff_id: DiffId) -> Result<Option<Layer>> {
        let Some((layer, blobs)) = self.others.get(&diff_id) else {
            return Ok(None);
        };
        if self.size_of(layer.digest)?.is_none()
            && let Err(error) = blobs.link(layer.digest.hex(), &self.blobs, layer.digest.hex())
        {
            // The other entry may be gone: then the layer is received like any other.
            tracing::debug!(%error, %diff_id, "cannot link a layer of another image of the spool");
            return Ok(None);
        }
        Ok((self.size_of(layer.digest)? == Some(layer.size)).then(|| layer.clone()))
    }
}
