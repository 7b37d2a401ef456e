//! Images in use: their documents in memory, their layers as open files.
//!
//! The first access to an image's index or blobs opens its layout; if the store is a daemon, that exports the
//! image. Other processes wait for the same export; when the last of them is ended, the export stops. An opened
//! layout keeps its files from being removed, so an unused layout is closed.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lru::LruCache;
use parking_lot::Mutex;
use pcocc_core::cancel::Cancel;
use pcocc_image::Error;
use pcocc_image::layout::MARKER;
use pcocc_image::oci::Image;
use pcocc_image::origin::Origin;
use pcocc_image::transfer::Layout;
use pcocc_layers::Digest;

use crate::blob::{BlobFile, read_full_at};
use crate::errno::{Errno, Result, io_to_errno};
use crate::status::Status;
use crate::tree::Tree;
use crate::tree::flight::SingleFlight;
use crate::tree::image_key::{ImageKey, Part};
use crate::tree::open_file::OpenFile;
use crate::tree::stores::StoreView;

/// How long an unused layout stays open.
const IDLE: Duration = Duration::from_secs(60);

/// How long a layout counts as in use after an access: a tool goes from file to file.
const JUST_NOW: Duration = Duration::from_millis(500);

/// Most opened images.
const KEPT: NonZeroUsize = NonZeroUsize::MIN.saturating_add(63);

/// Content of a part.
#[derive(Clone, Debug)]
pub enum Content {
    /// A document.
    Bytes(Arc<[u8]>),
    /// A layer.
    Blob(Arc<BlobFile>),
}

impl OpenFile for Content {
    fn read(&self, _: &Tree, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        match self {
            Self::Bytes(bytes) => {
                let start = usize::try_from(offset).unwrap_or(usize::MAX);
                let rest = bytes.get(start..).unwrap_or_default();
                let n = rest.len().min(buffer.len());
                if let (Some(to), Some(from)) = (buffer.get_mut(..n), rest.get(..n)) {
                    to.copy_from_slice(from);
                }
                Ok(n)
            }
            Self::Blob(blob) => {
                let read = read_full_at(&blob.file, buffer, offset);
                read.map_err(io_to_errno)
            }
        }
    }

    fn blob(&self, _: &Tree) -> Result<Option<Arc<BlobFile>>> {
        Ok(match self {
            Self::Blob(blob) => Some(Arc::clone(blob)),
            Self::Bytes(_) => None,
        })
    }
}

/// One image in use.
pub struct ImageView {
    image: Image,
    index: Arc<[u8]>,
    /// `None` while only the commit's documents are known.
    layout: Option<Arc<dyn Layout>>,
    layers: Mutex<Vec<Arc<BlobFile>>>,
}

impl std::fmt::Debug for ImageView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ImageView")
            .field("id", &self.image.id())
            .finish_non_exhaustive()
    }
}

impl ImageView {
    /// A view of an image; without a layout, only names and sizes are known. The index of the view has the
    /// origin, so that a copy of the image keeps it.
    pub fn new(
        image: Image,
        name: &str,
        origin: Option<&Origin>,
        layout: Option<Arc<dyn Layout>>,
    ) -> Result<Self, Error> {
        // Tools that pick an image by its tag (umoci) find the image's own tag, or the usual one.
        let tag = match name
            .rsplit('/')
            .next()
            .and_then(|last| last.split_once(':'))
        {
            Some((_, tag)) => tag,
            None => "latest",
        };
        let index = image.index(Some(tag))?;
        let index = match origin {
            Some(origin) => origin.annotate(index).into(),
            None => index.into(),
        };
        Ok(Self {
            image,
            index,
            layout,
            layers: Mutex::default(),
        })
    }

    /// Digest and size of every blob.
    pub fn blobs(&self) -> Vec<(Digest, u64)> {
        self.image.blobs()
    }

    /// Whether the view is of the store's image, and not of the committed documents.
    pub fn is_final(&self) -> bool {
        self.layout.is_some()
    }

    /// Size of a file; `None` if the image has no such part.
    pub fn size(&self, part: Part) -> Option<u64> {
        match part {
            Part::Marker => Some(MARKER.len() as u64),
            Part::Index => Some(self.index.len() as u64),
            Part::Top | Part::Blobs | Part::Sha256 => Some(0),
            Part::Blob(digest) => self
                .image
                .blobs()
                .into_iter()
                .find_map(|(d, size)| (d == digest).then_some(size)),
        }
    }

    /// Opens a file of the image.
    pub fn open(&self, part: Part) -> Result<Content> {
        let digest = match part {
            Part::Marker => return Ok(Content::Bytes(MARKER.into())),
            Part::Index => return Ok(Content::Bytes(Arc::clone(&self.index))),
            Part::Top | Part::Blobs | Part::Sha256 => return Err(Errno::ISDIR),
            Part::Blob(digest) => digest,
        };
        if digest == self.image.manifest_digest() {
            return Ok(Content::Bytes(self.image.manifest().into()));
        }
        if digest == self.image.id() {
            return Ok(Content::Bytes(self.image.config().into()));
        }
        let mut layers = self.layers.lock();
        if let Some(open) = layers.iter().find(|layer| layer.digest == digest) {
            return Ok(Content::Blob(Arc::clone(open)));
        }
        let layer = self
            .image
            .layers()
            .iter()
            .find(|layer| layer.digest == digest)
            .ok_or(Errno::NOENT)?;
        let file = self
            .layout
            .as_ref()
            .and_then(|layout| layout.layer_file(layer))
            .ok_or_else(|| {
                tracing::warn!(%digest, "cannot open a layer");
                Errno::STALE
            })?;
        let blob = Arc::new(BlobFile {
            file,
            digest,
            size: layer.size,
        });
        layers.push(Arc::clone(&blob));
        Ok(Content::Blob(blob))
    }
}

/// An entry for an image in the table.
#[derive(Debug, Default)]
struct Slot {
    view: Mutex<Option<(Arc<ImageView>, Instant)>>,
    opening: SingleFlight<Arc<ImageView>>,
}

impl Slot {
    fn view(&self) -> Option<Arc<ImageView>> {
        let mut slot = self.view.lock();
        let (view, used) = slot.as_mut()?;
        *used = Instant::now();
        Some(Arc::clone(view))
    }

    fn open(
        &self,
        key: &ImageKey,
        view: &StoreView,
        status: &Status,
        cancel: &Cancel,
    ) -> Result<Arc<ImageView>> {
        if let Some(view) = self.view().filter(|view| view.is_final()) {
            return Ok(view);
        }
        let (name, store) = (&key.name, &view.store);
        let opened = view.transfer(name, "export", status, cancel, |context| {
            let layout = store.layout(name, context)?;
            let image = layout.image(context)?;
            ImageView::new(image, name, store.origin(name).as_ref(), Some(layout))
        })?;
        if key.id.is_some_and(|id| id != opened.image.id()) {
            // Another image has the name now.
            return Err(Errno::STALE);
        }
        let opened = Arc::new(opened);
        self.set(&opened);
        Ok(opened)
    }

    fn set(&self, view: &Arc<ImageView>) {
        *self.view.lock() = Some((Arc::clone(view), Instant::now()));
    }

    /// Closes the layout if nobody has used it for `idle` and no file in it is open.
    fn release(&self, idle: Duration) {
        let mut slot = self.view.lock();
        if let Some((view, used)) = &*slot
            && view.is_final()
            && used.elapsed() >= idle
            && Arc::strong_count(view) == 1
            && view
                .layers
                .lock()
                .iter()
                .all(|layer| Arc::strong_count(layer) == 1)
        {
            *slot = None;
        }
    }
}

/// The images that were used lately.
#[derive(Debug)]
pub struct Images {
    slots: Mutex<LruCache<ImageKey, Arc<Slot>>>,
    cancel: Cancel,
}

impl Images {
    /// Starts empty; raising `cancel` ends running exports.
    pub fn new(cancel: Cancel) -> Self {
        Self {
            slots: Mutex::new(LruCache::new(KEPT)),
            cancel,
        }
    }

    fn slot(&self, key: &ImageKey) -> Arc<Slot> {
        let mut slots = self.slots.lock();
        Arc::clone(slots.get_or_insert(key.clone(), Arc::default))
    }

    /// The image if it is open. Never waits.
    pub fn peek(&self, key: &ImageKey) -> Option<Arc<ImageView>> {
        self.slot(key).view()
    }

    /// Notes the documents of a commit, so that names and sizes are known without an export.
    pub fn note(&self, key: &ImageKey, image: Image, origin: Option<&Origin>) {
        match ImageView::new(image, &key.name, origin, None) {
            Ok(view) => self.slot(key).set(&Arc::new(view)),
            Err(error) => tracing::debug!(%error, "an image just written has no index"),
        }
    }

    /// Opens the image, which may take as long as an export.
    pub fn open(
        &self,
        key: &ImageKey,
        store: &Arc<StoreView>,
        status: &Status,
    ) -> Result<Arc<ImageView>> {
        let slot = self.slot(key);
        if let Some(view) = slot.view().filter(|view| view.is_final()) {
            return Ok(view);
        }
        // Images that are not in use at this moment make room.
        self.release(JUST_NOW);
        let (key, store, status) = (key.clone(), Arc::clone(store), status.clone());
        let opening = Arc::clone(&slot);
        slot.opening.wait(&self.cancel, move |cancel| {
            opening.open(&key, &store, &status, cancel)
        })
    }

    /// Closes images that nobody has used for a while.
    pub fn collect(&self) {
        self.release(IDLE);
    }

    fn release(&self, idle: Duration) {
        for (_, slot) in self.slots.lock().iter() {
            slot.release(idle);
        }
    }

    /// Forgets an image.
    pub fn drop_image(&self, key: &ImageKey) {
        self.slots.lock().pop(key);
    }
}
