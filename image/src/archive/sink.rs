//! Writing a docker archive.
//!
//! The archive has an entry `HEX.tar` for each layer (plain, named by diff ID), `HEX.json` for the config, and
//! last `manifest.json`, as in `skopeo copy docker-archive:`. Layers are inflated into a temporary file beside
//! the destination. A header is written when the length of its entry is known. The file gets its name when all
//! of it is written and flushed.

use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use pcocc_core::beneath::TempFile;
use serde_json::json;
use tar::{EntryType, Header};

use crate::error::{Error, Result};
use crate::meter;
use crate::new_file;
use crate::oci::{Image, Layer};
use crate::reference::DockerReference;
use crate::stream;
use crate::transfer::{Context, Offer, Receiver, Sink};
use pcocc_layers::{Compression, DiffId};

const BLOCK: u64 = 512;

/// A [`Sink`] that creates a docker archive file.
#[derive(Debug)]
pub struct ArchiveSink {
    path: PathBuf,
    reference: Option<String>,
}

impl ArchiveSink {
    /// Makes a sink for the new file `path`; `docker load` gives the image the name `reference`, or no name.
    pub fn new(path: &Path, reference: Option<&str>) -> Self {
        Self {
            path: path.to_owned(),
            reference: reference.map(str::to_owned),
        }
    }
}

impl Sink for ArchiveSink {
    fn open(&self, _context: &Context) -> Result<Box<dyn Receiver + '_>> {
        let reference = match &self.reference {
            None => None,
            Some(reference) => Some(reference.parse::<DockerReference>()?),
        };
        if reference.as_ref().is_some_and(|r| r.tag().is_none()) {
            return Err(Error::invalid(
                "an image name with a digest",
                "cannot be given to an image in a docker archive; give it a tag",
            ));
        }
        let file = new_file::create(&self.path, ".pcocc-archive-")?;
        Ok(Box::new(ArchiveReceiver {
            sink: self,
            reference,
            file,
            written: Vec::new(),
        }))
    }
}

/// One image on its way into an archive.
struct ArchiveReceiver<'a> {
    sink: &'a ArchiveSink,
    reference: Option<DockerReference>,
    file: TempFile,
    /// The layers in the archive so far.
    written: Vec<Layer>,
}

impl ArchiveReceiver<'_> {
    /// Writes an entry; `fill` writes the content at the file's position and returns its size.
    fn entry(&mut self, name: &str, fill: impl FnOnce(&mut TempFile) -> Result<u64>) -> Result<()> {
        let path = &self.sink.path;
        let failed = |error| Error::io("write", path)(error);
        let start = self.file.stream_position().map_err(failed)?;
        let content = self
            .file
            .seek(SeekFrom::Start(start + BLOCK))
            .map_err(failed)?;
        let size = fill(&mut self.file)?;
        let padding = size.next_multiple_of(BLOCK) - size;
        let padding = usize::try_from(padding).unwrap_or(0);
        let zeros = [0; BLOCK as usize];
        self.file
            .write_all(zeros.get(..padding).unwrap_or_default())
            .map_err(failed)?;
        let end = content + size.next_multiple_of(BLOCK);
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Regular);
        header.set_path(name).map_err(failed)?;
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(size);
        header.set_cksum();
        self.file.seek(SeekFrom::Start(start)).map_err(failed)?;
        self.file.write_all(header.as_bytes()).map_err(failed)?;
        self.file.seek(SeekFrom::Start(end)).map_err(failed)?;
        Ok(())
    }

    fn document(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.sink.path.clone();
        self.entry(name, |file| {
            file.write_all(bytes).map_err(Error::io("write", path))?;
            Ok(bytes.len() as u64)
        })
    }
}

impl Receiver for ArchiveReceiver<'_> {
    fn has_layer(&mut self, diff_id: DiffId) -> Result<bool> {
        Ok(self.written.iter().any(|layer| layer.diff_id == diff_id))
    }

    fn layer(&mut self, offer: &Offer<'_>, context: &Context) -> Result<Layer> {
        let diff_id = offer.known_diff_id("cannot be written to a docker archive")?;
        let (digest, size) = match (offer.blob, offer.size) {
            (Some(blob), _) => blob,
            (None, size) => (diff_id.0, size.unwrap_or(0)),
        };
        let layer = Layer {
            digest,
            size,
            compression: offer.compression,
            diff_id,
        };
        if let Some(twin) = self.written.iter().find(|twin| twin.diff_id == diff_id) {
            return Ok(twin.clone());
        }
        self.entry(&layer_name(diff_id), |file| {
            let mut reader = stream::inflate((offer.open)()?, offer.compression)?;
            let expected = match offer.compression {
                Compression::None => offer.size.map(|size| (diff_id.0, size)),
                _ => None,
            };
            let name = digest.to_string();
            let (found, size) = stream::copy(&mut reader, file, &name, expected, context)?;
            if found != diff_id.0 {
                return Err(Error::Corrupt {
                    expected: digest,
                    found: format!("a layer with the diff ID {found} instead of {diff_id}"),
                });
            }
            Ok(size)
        })?;
        self.written.push(layer.clone());
        Ok(layer)
    }

    fn commit(mut self: Box<Self>, image: &Image, context: &Context) -> Result<()> {
        for layer in image.layers() {
            if !self.written.iter().any(|l| l.diff_id == layer.diff_id) {
                return Err(Error::NotFound(format!("layer {}", layer.digest)));
            }
        }
        let config = format!("{}.json", image.id().hex());
        self.document(&config, image.config())?;
        meter::config_moved(&context.progress, image);
        context
            .progress
            .stage("Writing manifest to image destination");
        let layers: Vec<String> = image
            .layers()
            .iter()
            .map(|l| layer_name(l.diff_id))
            .collect();
        let manifest = json!([{
            "Config": config,
            "RepoTags": self.reference.as_ref().map(|reference| vec![reference.to_string()]),
            "Layers": layers,
        }]);
        self.document("manifest.json", manifest.to_string().as_bytes())?;
        self.file
            .write_all(&[0; 2 * BLOCK as usize])
            .map_err(Error::io("write", &self.sink.path))?;
        context.check()?;
        new_file::publish(self.file, &self.sink.path)
    }
}

fn layer_name(diff_id: DiffId) -> String {
    format!("{}.tar", diff_id.0.hex())
}
