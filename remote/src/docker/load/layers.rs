//! Puts a layer into the archive: inflated, unchanged, or through a file.
//!
//! A graph driver gets plain layers ([`Load::plain_layer`]), containerd's store gets blobs
//! ([`Load::stored_layer`]). The archive has each length before the content, so a layer of unknown length goes
//! through an unnamed file. Digest, length and diff ID are compared with the offer after the last byte.

use std::io::{self, Read, Seek, Write};
use std::sync::atomic::Ordering;

use pcocc_image::oci::Layer;
use pcocc_image::stream as blob_stream;
use pcocc_image::transfer::{Context, Offer};
use pcocc_image::{Error, Result};
use pcocc_layers::compression::{self, Limits, PlainSize};
use pcocc_layers::digest::Hashing;
use pcocc_layers::{Compression, DiffId, Digest};

use super::super::client::ImageStore;
use super::super::layer_stream::LayerStream;
use super::{Load, Sent, blob_path};

impl Load<'_> {
    /// Inflates a layer into the archive.
    pub(super) fn plain_layer(
        &mut self,
        offer: &Offer<'_>,
        source: LayerStream<'_>,
        context: &Context,
    ) -> Result<Layer> {
        let threads = compression::default_threads();
        let (size, guessed) = match self.plain_size(offer, threads)? {
            Some(known) => known,
            None => return self.spooled_layer(offer, source, context),
        };
        let path = match offer.diff_id {
            Some(diff_id) => blob_path(diff_id.0),
            None => format!("layers/{}.tar", self.blobs),
        };
        self.begin(&path, size, context)?;
        let mut plain = Hashing::new(compression::open(
            offer.compression,
            Box::new(source.clone()),
            threads,
            Limits::default(),
        )?);
        let copied = self.copy(&mut plain, size, context)?;
        // One more byte tells whether the stream ends where it should.
        let goes_on = plain
            .read(&mut [0])
            .map_err(Error::io("inflate", "layer"))?
            > 0;
        let (digest, plain_size, inner) = plain.finish();
        drop(inner);
        if copied != size || goes_on {
            self.give_up();
            if guessed && !self.sink.exact.swap(true, Ordering::AcqRel) {
                self.sink.retry.store(true, Ordering::Release);
            }
            return Err(Error::Corrupt {
                expected: offer.diff_id.map_or(digest, |diff_id| diff_id.0),
                found: format!("a layer of {plain_size} bytes or more where {size} were due"),
            });
        }
        let stored = self.check(source.finish()?, offer)?;
        self.check_plain(digest, offer)?;
        self.pad(size, context)?;
        let diff_id = DiffId(digest);
        self.sent.push(Sent {
            path,
            layer: Layer {
                digest,
                size,
                compression: Compression::None,
                diff_id,
            },
        });
        let (digest, size) = stored;
        Ok(Layer {
            digest,
            size,
            compression: offer.compression,
            diff_id,
        })
    }

    /// Puts a blob into the archive unchanged.
    pub(super) fn stored_layer(
        &mut self,
        offer: &Offer<'_>,
        source: LayerStream<'_>,
        context: &Context,
    ) -> Result<Layer> {
        let (Some((digest, size)), Some(diff_id)) = (offer.blob, offer.diff_id) else {
            return self.spooled_layer(offer, source, context);
        };
        blob_stream::check_offer(offer, context)?;
        let path = blob_path(digest);
        self.begin(&path, size, context)?;
        let mut stored = source.clone();
        let copied = self.copy(&mut stored, size, context)?;
        if copied != size {
            self.give_up();
            return Err(Error::Corrupt {
                expected: digest,
                found: format!("{copied} bytes where {size} were due"),
            });
        }
        self.check(source.finish()?, offer)?;
        self.pad(size, context)?;
        let layer = Layer {
            digest,
            size,
            compression: offer.compression,
            diff_id,
        };
        self.sent.push(Sent {
            path,
            layer: layer.clone(),
        });
        Ok(layer)
    }

    /// Writes a layer of unknown length to an unnamed file first.
    fn spooled_layer(
        &mut self,
        offer: &Offer<'_>,
        source: LayerStream<'_>,
        context: &Context,
    ) -> Result<Layer> {
        let mut file = tempfile::tempfile().map_err(Error::io("create", "a temporary file"))?;
        let mut hashing = Hashing::new(compression::open(
            offer.compression,
            Box::new(source.clone()),
            compression::default_threads(),
            Limits::default(),
        )?);
        let mut chunk = vec![0; 256 << 10];
        loop {
            context.check()?;
            let n = hashing
                .read(&mut chunk)
                .map_err(Error::io("inflate", "layer"))?;
            let Some(data) = chunk.get(..n).filter(|data| !data.is_empty()) else {
                break;
            };
            file.write_all(data)
                .map_err(Error::io("write", "a temporary file"))?;
        }
        let (digest, size, inner) = hashing.finish();
        drop(inner);
        let stored = self.check(source.finish()?, offer)?;
        self.check_plain(digest, offer)?;
        file.rewind()
            .map_err(Error::io("read", "a temporary file"))?;
        let path = blob_path(digest);
        self.begin(&path, size, context)?;
        self.copy(&mut file, size, context)?;
        self.pad(size, context)?;
        let diff_id = DiffId(digest);
        let plain = Layer {
            digest,
            size,
            compression: Compression::None,
            diff_id,
        };
        self.sent.push(Sent {
            path,
            layer: plain.clone(),
        });
        match self.store {
            // The image's manifest must name the blob that containerd keeps.
            ImageStore::Containerd => Ok(plain),
            ImageStore::GraphDriver => Ok(Layer {
                digest: stored.0,
                size: stored.1,
                compression: offer.compression,
                diff_id,
            }),
        }
    }

    /// Length of the plain layer, and whether it is a guess; `None` when only reading the layer tells.
    fn plain_size(&self, offer: &Offer<'_>, threads: usize) -> Result<Option<(u64, bool)>> {
        if offer.compression == Compression::None {
            return Ok(offer.size.map(|size| (size, false)));
        }
        let Some(file) = &offer.file else {
            return Ok(None);
        };
        match compression::plain_size(file, offer.compression)? {
            PlainSize::Exact(size) => Ok(Some((size, false))),
            PlainSize::Guess(size) if !self.sink.exact.load(Ordering::Acquire) => {
                Ok(Some((size, true)))
            }
            PlainSize::Guess(_) | PlainSize::Unknown => {
                let blob = (offer.open)()?;
                let size =
                    compression::count_plain(offer.compression, blob, threads, Limits::default())?;
                Ok(Some((size, false)))
            }
        }
    }

    /// Compares a blob that was read with the offer.
    fn check(&mut self, read: (Digest, u64), offer: &Offer<'_>) -> Result<(Digest, u64)> {
        if let Some(expected) = offer.blob.filter(|blob| *blob != read) {
            self.give_up();
            return Err(Error::Corrupt {
                expected: expected.0,
                found: format!("{} of {} bytes", read.0, read.1),
            });
        }
        Ok(read)
    }

    /// Compares the content of a blob with the offered diff ID.
    fn check_plain(&mut self, digest: Digest, offer: &Offer<'_>) -> Result<()> {
        if let Some(expected) = offer.diff_id.filter(|diff_id| diff_id.0 != digest) {
            self.give_up();
            return Err(Error::Corrupt {
                expected: expected.0,
                found: digest.to_string(),
            });
        }
        Ok(())
    }
}

/// Replaces an inflater's error by the blob's corruption, if the blob is corrupt.
pub(super) fn blame(error: Error, offer: &Offer<'_>) -> Error {
    let (Error::Io { .. } | Error::Invalid { .. }, Some((expected, _))) = (&error, offer.blob)
    else {
        return error;
    };
    // A stream that exists only once cannot be read again: the first error remains.
    let Ok(mut blob) = (offer.open)() else {
        return error;
    };
    let mut hashing = Hashing::new(io::sink());
    if io::copy(&mut blob, &mut hashing).is_err() {
        return error;
    }
    let (found, size, _) = hashing.finish();
    if found == expected {
        return error;
    }
    Error::Corrupt {
        expected,
        found: format!("{found} of {size} bytes"),
    }
}
