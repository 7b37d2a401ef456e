//! Receiving one image into an entry of the spool.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::{ROOTFS, is_missing};
use crate::error::{Error, Result};
use crate::ingest::{BlobDir, Ingest, Options};
use crate::layout::{MARKER, MARKER_NAME};
use crate::oci::{Image, Layer};
use crate::transfer::{Context, Offer, Receiver, Sink};
use pcocc_layers::{DiffId, Digest};

/// Receives an image into a folder that becomes an entry of the spool later.
#[derive(Debug)]
pub(super) struct SpoolSink {
    blobs: EntryBlobs,
    options: Options,
}

impl SpoolSink {
    /// Receives into the empty `folder`; layers of other entries are linked.
    pub(super) fn new(
        folder: &Path,
        others: HashMap<DiffId, (Layer, PathBuf)>,
        options: Options,
    ) -> Result<Self> {
        let blobs = folder.join("blobs/sha256");
        fs::create_dir_all(&blobs).map_err(Error::io("create", &blobs))?;
        Ok(Self {
            blobs: EntryBlobs {
                folder: folder.to_owned(),
                others,
            },
            options,
        })
    }
}

impl Sink for SpoolSink {
    fn open(&self, _context: &Context) -> Result<Box<dyn Receiver + '_>> {
        let rootfs = self.blobs.temp()?;
        Ok(Box::new(SpoolReceiver {
            blobs: &self.blobs,
            ingest: Ingest::new(&self.blobs, self.options, Some(rootfs))?,
        }))
    }
}

struct SpoolReceiver<'a> {
    blobs: &'a EntryBlobs,
    ingest: Ingest<'a>,
}

impl Receiver for SpoolReceiver<'_> {
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
        let path = self.blobs.folder.join(ROOTFS);
        rootfs
            .file
            .persist(&path)
            .map_err(|error| Error::io("write", &path)(error.error))?;
        let index = image.index(None)?;
        for (name, content) in [(MARKER_NAME, MARKER), ("index.json", &index)] {
            let path = self.blobs.folder.join(name);
            fs::write(&path, content).map_err(Error::io("write", &path))?;
        }
        Ok(())
    }
}

/// The blobs of an unfinished entry.
#[derive(Debug)]
struct EntryBlobs {
    folder: PathBuf,
    /// Layers of other entries, verified when they were received.
    others: HashMap<DiffId, (Layer, PathBuf)>,
}

impl BlobDir for EntryBlobs {
    fn size_of(&self, digest: Digest) -> Result<Option<u64>> {
        let path = self.path_of(digest);
        match fs::metadata(&path) {
            Ok(metadata) => Ok(Some(metadata.len())),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(Error::io("look for", &path)(error)),
        }
    }

    fn path_of(&self, digest: Digest) -> PathBuf {
        self.folder.join("blobs/sha256").join(digest.hex())
    }

    fn temp(&self) -> Result<NamedTempFile> {
        NamedTempFile::new_in(&self.folder).map_err(Error::io("create a file in", &self.folder))
    }

    fn publish(&self, temp: NamedTempFile, digest: Digest, _size: u64) -> Result<()> {
        let path = self.path_of(digest);
        temp.persist(&path)
            .map_err(|error| Error::io("publish", &path)(error.error))?;
        Ok(())
    }

    fn known_layer(&self, diff_id: DiffId) -> Result<Option<Layer>> {
        let Some((layer, file)) = self.others.get(&diff_id) else {
            return Ok(None);
        };
        if self.size_of(layer.digest)?.is_none()
            && let Err(error) = fs::hard_link(file, self.path_of(layer.digest))
        {
            // The other entry may be gone: then the layer is received like any other.
            tracing::debug!(%error, %diff_id, "cannot link a layer of another image of the spool");
            return Ok(None);
        }
        Ok((self.size_of(layer.digest)? == Some(layer.size)).then(|| layer.clone()))
    }
}
