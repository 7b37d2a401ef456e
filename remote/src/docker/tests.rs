//! Archives of recorded shape, and daemons that misbehave.

mod archive;
mod fake;
mod faults;
mod floods;
mod guest_blobs;
mod guest_layers;
mod patience;

use std::collections::HashSet;
use std::io::Read;
use std::sync::Mutex;

use pcocc_image::oci::{Image, Layer};
use pcocc_image::transfer::{Context, Offer, Receiver, Sink};
use pcocc_image::{Error, Result};
use pcocc_layers::Compression;
use pcocc_layers::{DiffId, Digest};

/// Keeps plain layers as they come and notes what was announced.
#[derive(Default)]
struct Memory {
    known: HashSet<DiffId>,
    /// Streams may be opened again.
    reopens: bool,
    announced: Mutex<Vec<Option<DiffId>>>,
    committed: Mutex<Option<Image>>,
}

struct Receiving<'a>(&'a Memory);

impl Sink for Memory {
    fn open(&self, _context: &Context) -> Result<Box<dyn Receiver + '_>> {
        Ok(Box::new(Receiving(self)))
    }
}

impl Receiver for Receiving<'_> {
    fn has_layer(&mut self, diff_id: DiffId) -> Result<bool> {
        Ok(self.0.known.contains(&diff_id))
    }

    fn layer(&mut self, offer: &Offer<'_>, _context: &Context) -> Result<Layer> {
        self.0.announced.lock().unwrap().push(offer.diff_id);
        if let Some(diff_id) = offer.diff_id.filter(|_| offer.is_far)
            && self.0.known.contains(&diff_id)
        {
            // As it was stored.
            return Ok(Layer {
                digest: diff_id.0,
                size: 1,
                compression: Compression::None,
                diff_id,
            });
        }
        let mut content = Vec::new();
        (offer.open)()?
            .read_to_end(&mut content)
            .map_err(Error::io("read", "offer"))?;
        if !offer.is_far && !self.0.reopens {
            assert!((offer.open)().is_err(), "the stream exists only once");
            assert_eq!(offer.size, Some(content.len() as u64));
        }
        let digest = Digest::of(&content);
        let corrupt = |expected| Error::Corrupt {
            expected,
            found: digest.to_string(),
        };
        if let Some((expected, _)) = offer.blob.filter(|blob| blob.0 != digest) {
            return Err(corrupt(expected));
        }
        let mut plain = Vec::new();
        match offer.compression {
            Compression::Gzip => {
                flate2::read::MultiGzDecoder::new(&content[..])
                    .read_to_end(&mut plain)
                    .map_err(Error::io("inflate", "offer"))?;
            }
            _ => plain.clone_from(&content),
        }
        let diff_id = DiffId(Digest::of(&plain));
        if let Some(expected) = offer.diff_id.filter(|announced| *announced != diff_id) {
            return Err(corrupt(expected.0));
        }
        Ok(Layer {
            digest,
            size: content.len() as u64,
            compression: offer.compression,
            diff_id,
        })
    }

    fn commit(self: Box<Self>, image: &Image, _context: &Context) -> Result<()> {
        *self.0.committed.lock().unwrap() = Some(image.clone());
        Ok(())
    }
}
