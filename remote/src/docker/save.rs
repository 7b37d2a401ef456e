//! Reads an image out of a daemon: layer by layer where a VM hands them out, else `docker save` in one pass.
//!
//! Phases: inspect → nothing is sent when the store recalls the image ID → [`super::guest`], or else the store learns
//! the diff IDs, and the archive streams by: every layer
//! goes to the receiver at once, documents and links are kept in memory → at the end `manifest.json` assigns
//! the roles ([`super::roles`]) → the config's digest must be the image ID, and its diff IDs must be those of
//! the layers.
//!
//! There are two layouts. Docker before 25 writes `<config>.json` and `<v1 ID>/layer.tar`, with symbolic links
//! for layers that occur twice. Docker 25 and later writes `blobs/sha256/<digest>`. A daemon with containerd's
//! store writes the second, and keeps the compression of the blobs.

use std::io::Read;

use parking_lot::Mutex;

use super::client::{Daemon, ImageStore, Inspected};
use super::guest::{self, Way};
use super::roles::{self, Contents};
use super::stream::Arriving;
use super::tarball::{SavedEntry, Tarball};
use super::v1::LayerGuess;
use pcocc_image::oci::{Image, Layer, MAX_DOCUMENT};
use pcocc_image::reference::DockerReference;
use pcocc_image::transfer::{Context, Offer, Receiver, Source};
use pcocc_image::{Error, Result};
use pcocc_layers::Compression;
use pcocc_layers::{DiffId, Digest};

/// Most bytes of documents and names that are kept of one archive.
const MAX_DOCUMENTS: usize = 64 << 20;

/// Most entries of an archive. Docker has four for each layer, so this is plenty.
const MAX_ENTRIES: usize = 20_000;

/// An image of a daemon as a source.
#[derive(Debug)]
pub struct DaemonSource {
    daemon: Daemon,
    name: String,
    pinned: Option<Digest>,
    way: Way,
}

impl DaemonSource {
    /// The image that docker knows by the name or ID `name`.
    pub fn new(daemon: Daemon, name: &str) -> Self {
        Self {
            daemon,
            name: name.to_owned(),
            pinned: None,
            way: Way::default(),
        }
    }

    /// Fails with [`Error::NotFound`] if the name has moved to another image than `id`.
    pub fn pinned(self, id: Digest) -> Self {
        Self {
            pinned: Some(id),
            ..self
        }
    }

    fn save(
        &self,
        inspected: &Inspected,
        store: ImageStore,
        announce: bool,
        receiver: &mut dyn Receiver,
        context: &Context,
    ) -> Result<Image> {
        // The image is requested by its ID, so that a name may move meanwhile. containerd's store gives the
        // platform's manifest only for a named image.
        let id = inspected.id.to_string();
        let wanted = match store {
            ImageStore::GraphDriver => id.as_str(),
            ImageStore::Containerd => self.name.as_str(),
        };
        let stream = Arriving::saved(&self.daemon, wanted, &self.name, &context.cancel)?;
        read_archive(stream, inspected, store, announce, receiver, context)
    }
}

impl Source for DaemonSource {
    fn send(&self, receiver: &mut dyn Receiver, context: &Context) -> Result<Image> {
        // For docker, an image ID alone is a name, too.
        if Digest::from_hex(&self.name).is_err() {
            self.name.parse::<DockerReference>()?;
        }
        let daemon = self.daemon.until(&context.cancel);
        let inspected = daemon.inspect(&self.name)?;
        if let Some(id) = self.pinned.filter(|id| *id != inspected.id) {
            return Err(Error::NotFound(format!(
                "image {} with the ID {id}, for the name was moved to another image meanwhile,",
                self.name
            )));
        }
        let store = daemon.info()?.image_store;
        if store == ImageStore::GraphDriver
            && let Some(image) = receiver.recall(inspected.id)?
        {
            return Ok(image);
        }
        context.check()?;
        if let Some(service) = self.way.service(&self.daemon) {
            return guest::send(&daemon, &service, &inspected, store, receiver, context);
        }
        receiver.expect_layers(&inspected.diff_ids, context)?;
        match self.save(&inspected, store, true, receiver, context) {
            // An announced diff ID or a name in the archive is wrong: try without announcements.
            Err(Error::Corrupt { expected, found })
                if inspected.diff_ids.contains(&DiffId(expected)) =>
            {
                tracing::debug!(%expected, found, "saving again without announcing layers");
                self.save(&inspected, store, false, receiver, context)
            }
            outcome => outcome,
        }
    }

    fn again(&self, error: &Error) -> bool {
        self.way.again(error)
    }
}

/// Takes an image out of a save archive. `announce` tells the receiver the diff IDs that are known before a
/// layer is read.
pub(super) fn read_archive(
    stream: impl Read + Send,
    inspected: &Inspected,
    store: ImageStore,
    announce: bool,
    receiver: &mut dyn Receiver,
    context: &Context,
) -> Result<Image> {
    let mut tarball = Tarball::new(stream);
    let mut contents = Contents::default();
    let mut guess = LayerGuess::new(&inspected.diff_ids);
    let mut room = Room(MAX_DOCUMENTS);
    let mut entries = 0;
    while let Some(entry) = tarball.next()? {
        context.check()?;
        entries += 1;
        if entries > MAX_ENTRIES {
            return Err(bad(format!("has more than {MAX_ENTRIES} entries")));
        }
        let (path, size) = match entry {
            SavedEntry::Other { .. } => continue,
            SavedEntry::Link { path, target } => {
                room.take(path.len() + target.len())?;
                contents.add_link(path, target)?;
                continue;
            }
            SavedEntry::File { path, size } => (path, size),
        };
        room.take(path.len())?;
        contents.check_new(&path)?;
        let mut start = [0; 4];
        let filled = read_start(&mut tarball, &mut start)?;
        let start = start.get(..filled).unwrap_or_default();
        let kind = classify(&path, size, start);
        tracing::trace!(path, size, ?kind, "archive entry");
        match kind {
            Content::Ignored => {}
            Content::Document => {
                // It is at most MAX_DOCUMENT.
                room.take(usize::try_from(size).unwrap_or(usize::MAX))?;
                let mut data = start.to_vec();
                tarball
                    .read_to_end(&mut data)
                    .map_err(Error::io("read", &path))?;
                guess.learn(&path, &data);
                contents.add_document(path, data);
            }
            Content::Layer => {
                let blob = roles::blob_digest(&path);
                let compression = Compression::sniff(start);
                let diff_id = match (blob, compression) {
                    _ if !announce => None,
                    (Some(digest), Compression::None) => {
                        Some(DiffId(digest)).filter(|diff_id| inspected.diff_ids.contains(diff_id))
                    }
                    (Some(_), _) => None,
                    (None, _) => guess.diff_id(&path),
                };
                let layer = offer_once(
                    start.chain(&mut tarball),
                    blob.filter(|_| store == ImageStore::Containerd)
                        .map(|digest| (digest, size)),
                    compression,
                    diff_id,
                    size,
                    receiver,
                    context,
                )?;
                contents.add_layer(path, layer);
            }
        }
    }
    // Very small layers were taken for documents: they are offered now.
    let roles = roles::assign(&contents)?;
    for path in &roles.layers {
        if let Some(data) = contents.unoffered(path) {
            let data = data.to_vec();
            let blob = roles::blob_digest(path).filter(|_| store == ImageStore::Containerd);
            let layer = offer_once(
                data.as_slice(),
                blob.map(|digest| (digest, data.len() as u64)),
                Compression::sniff(&data),
                None,
                data.len() as u64,
                receiver,
                context,
            )?;
            contents.add_layer(path.clone(), layer);
        }
    }
    roles.image(&contents, inspected, store)
}

/// How many bytes of an archive may still be kept.
struct Room(usize);

impl Room {
    fn take(&mut self, bytes: usize) -> Result<()> {
        self.0 = self.0.checked_sub(bytes).ok_or_else(|| {
            bad(format!(
                "has more than {MAX_DOCUMENTS} bytes of documents and names"
            ))
        })?;
        Ok(())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    Document,
    Layer,
    Ignored,
}

fn classify(path: &str, size: u64, start: &[u8]) -> Content {
    let name = path.rsplit('/').next().unwrap_or(path);
    let is_blob = roles::blob_digest(path).is_some();
    let may_be_layer = is_blob || name.ends_with(".tar");
    let looks_like_json = matches!(start.first(), Some(b'{' | b'[' | b' ' | b'\n' | b'\t'));
    if size <= MAX_DOCUMENT
        && (looks_like_json && is_blob || name.ends_with(".json") || name == "json")
    {
        Content::Document
    } else if may_be_layer && size > 0 {
        Content::Layer
    } else {
        Content::Ignored
    }
}

fn read_start(tarball: &mut impl Read, start: &mut [u8]) -> Result<usize> {
    let mut filled = 0;
    while let Some(rest) = start.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match tarball
            .read(rest)
            .map_err(Error::io("read", "the archive from the docker daemon"))?
        {
            0 => break,
            n => filled += n,
        }
    }
    Ok(filled)
}

fn offer_once(
    stream: impl Read + Send,
    blob: Option<(Digest, u64)>,
    compression: Compression,
    diff_id: Option<DiffId>,
    size: u64,
    receiver: &mut dyn Receiver,
    context: &Context,
) -> Result<Layer> {
    let boxed: Box<dyn Read + Send + '_> = Box::new(stream);
    let stream = Mutex::new(Some(boxed));
    let open = || {
        let mut stream = stream.lock();
        stream
            .take()
            .ok_or_else(|| bad("can be read only once".to_owned()))
    };
    receiver.layer(
        &Offer {
            blob,
            compression,
            diff_id,
            size: Some(size),
            file: None,
            is_far: false,
            open: &open,
        },
        context,
    )
}

fn bad(why: String) -> Error {
    Error::invalid("the archive from the docker daemon", why)
}
