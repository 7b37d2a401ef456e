//! A layer's stream on its way into a daemon: hashed as stored, and reported as progress.

use std::io::{self, Read};
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use pcocc_core::progress::{BlobKind, Event, Reporter};

use pcocc_image::transfer::{Context, Offer};
use pcocc_image::{Error, Result};
use pcocc_layers::Digest;
use pcocc_layers::digest::Hashing;

/// Bytes between two reports.
const REPORT_EVERY: u64 = 1 << 20;

/// Clones read the same stream, so that its hash can be had when an inflater is through with it.
pub(super) struct Counted<'a>(Arc<Mutex<Counting<'a>>>);

impl Clone for Counted<'_> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

struct Counting<'a> {
    stream: Option<Hashing<Box<dyn Read + Send + 'a>>>,
    reported: u64,
    id: u64,
    progress: Reporter,
}

impl<'a> Counted<'a> {
    /// Announces the blob with the number `id` within its transfer.
    pub(super) fn new(
        stream: Box<dyn Read + Send + 'a>,
        offer: &Offer<'_>,
        id: u64,
        context: &Context,
    ) -> Self {
        let name = offer
            .blob
            .map(|(digest, _)| digest)
            .or(offer.diff_id.map(|diff_id| diff_id.0))
            .map_or_else(|| format!("layer {id}"), |digest| digest.to_string());
        context.progress.emit(Event::BlobStarted {
            id,
            kind: BlobKind::Layer,
            name,
            total: offer.size,
        });
        Self(Arc::new(Mutex::new(Counting {
            stream: Some(Hashing::new(stream)),
            reported: 0,
            id,
            progress: context.progress.clone(),
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Counting<'a>> {
        self.0.lock()
    }

    /// Reads what an inflater left over and tells digest and size of the whole.
    pub(super) fn finish(mut self) -> Result<(Digest, u64)> {
        io::copy(&mut self, &mut io::sink()).map_err(Error::io("read", "layer"))?;
        let mut counting = self.lock();
        let Some(stream) = counting.stream.take() else {
            return Err(Error::invalid("layer", "was read to its end before"));
        };
        let (digest, size, _) = stream.finish();
        counting.progress.emit(Event::BlobFinished {
            id: counting.id,
            total: size,
        });
        Ok((digest, size))
    }
}

impl Read for Counted<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let mut counting = self.lock();
        let Some(stream) = &mut counting.stream else {
            return Ok(0);
        };
        let n = stream.read(buf)?;
        let done = stream.size();
        if done - counting.reported >= REPORT_EVERY {
            counting.reported = done;
            counting.progress.emit(Event::BlobProgress {
                id: counting.id,
                done,
            });
        }
        Ok(n)
    }
}
