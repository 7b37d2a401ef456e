//! A layer's stream into a daemon: hashed as stored, and reported as progress.

use std::io::{self, Read};
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use pcocc_core::progress::BlobKind;
use pcocc_image::meter::BlobMeter;
use pcocc_image::transfer::{Context, Offer};
use pcocc_image::{Error, Result};
use pcocc_layers::Digest;
use pcocc_layers::digest::Hashing;

/// Clones read the same stream, so that the hash remains after an inflater has consumed a clone.
pub(super) struct LayerStream<'a>(Arc<Mutex<Option<Metered<'a>>>>);

type Metered<'a> = (Hashing<Box<dyn Read + Send + 'a>>, BlobMeter);

impl Clone for LayerStream<'_> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<'a> LayerStream<'a> {
    /// Reports that the blob starts to move; `number` replaces an unknown digest.
    pub(super) fn new(
        stream: Box<dyn Read + Send + 'a>,
        offer: &Offer<'_>,
        number: u64,
        context: &Context,
    ) -> Self {
        let name = offer
            .digest()
            .map_or_else(|| format!("layer {number}"), |digest| digest.to_string());
        let meter = BlobMeter::start(&context.progress, BlobKind::Layer, &name, offer.size);
        let open = Some((Hashing::new(stream), meter));
        Self(Arc::new(Mutex::new(open)))
    }

    /// The stream; `None` once it has ended.
    fn lock(&self) -> MutexGuard<'_, Option<Metered<'a>>> {
        self.0.lock()
    }

    /// Reads the inflater's rest; returns digest and size of the whole stream.
    pub(super) fn finish(mut self) -> Result<(Digest, u64)> {
        io::copy(&mut self, &mut io::sink()).map_err(Error::io("read", "layer"))?;
        let Some((stream, meter)) = self.lock().take() else {
            return Err(Error::invalid("layer", "was read to its end before"));
        };
        meter.finish();
        let (digest, size, _) = stream.finish();
        Ok((digest, size))
    }
}

impl Read for LayerStream<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let mut open = self.lock();
        let Some((stream, meter)) = &mut *open else {
            return Ok(0);
        };
        let n = stream.read(buf)?;
        meter.add(n);
        Ok(n)
    }
}
