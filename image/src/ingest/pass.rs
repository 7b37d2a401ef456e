//! One pass over one layer's stream.
//!
//! Stages, joined by bounded channels of 1 MiB pieces; each stage has a thread if it is needed:
//!
//! ```text
//! stream as offered → feed: hash, store as it is → inflate: hash, store as gzip → squashfs
//! ```
//!
//! A plain stream has no second stage; the first stage does its work. The last stage runs on the caller's
//! thread. A stage passes on the end of its stream only if digest and size are right, so that the squashfs
//! never takes a wrong layer. All threads end with the call.

use std::io::{self, Read};
use std::thread;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::channel::{DEPTH, Piece, Pieces, Run, send};
use super::output::{Output, Store, Written};
use super::{BlobDir, Options};
use crate::error::{Error, Result};
use crate::meter::BlobMeter;
use crate::transfer::{Context, OpenLayer};
use pcocc_layers::Compression;
use pcocc_layers::compression::{self, Buffers, PIECE};
use pcocc_layers::digest::Hashing;
use pcocc_layers::squashfs::{LayerTree, RootfsWriter};
use pcocc_layers::{DiffId, Digest};

/// A stream, its destination, and the digests that it must have.
pub(super) struct Pass<'a, 'o> {
    pub(super) dir: &'a dyn BlobDir,
    pub(super) options: &'a Options,
    /// Name of the layer in errors.
    pub(super) name: &'a str,
    pub(super) open: &'a OpenLayer<'o>,
    pub(super) compression: Compression,
    /// Digest and size of the stream.
    pub(super) blob: Option<(Digest, u64)>,
    /// Length of the stream, when its digest is not known.
    pub(super) size: Option<u64>,
    /// Digest of the plain tar.
    pub(super) diff_id: Option<DiffId>,
    pub(super) store: Store,
    pub(super) meter: Option<BlobMeter>,
}

/// The result of a pass.
#[derive(Debug)]
pub(super) struct Passed {
    pub(super) diff_id: DiffId,
    /// The layer stored in a temporary file.
    pub(super) written: Option<Written>,
    /// The layer in the squashfs file.
    pub(super) tree: Option<LayerTree>,
}

/// The result of a stage.
struct Found {
    digest: Digest,
    written: Option<Written>,
}

impl Pass<'_, '_> {
    /// Runs the pass; the layer goes to `squashfs` as well, if there is one.
    pub(super) fn run(
        mut self,
        squashfs: Option<&mut RootfsWriter>,
        context: &Context,
    ) -> Result<Passed> {
        let run = Run::new(context);
        let buffers = Buffers::default();
        let meter = self.meter.take();
        let (this, shared) = (&self, &run);
        let is_plain = self.compression == Compression::None;
        let passed = thread::scope(|scope| {
            let (feed_to, fed) = bounded::<Piece>(DEPTH);
            let (inflate_to, inflated) = bounded::<Piece>(DEPTH);
            let buffers = &buffers;
            match (is_plain, squashfs) {
                (true, None) => {
                    let found = shared.stage(|| this.feed(shared, buffers, meter, None))?;
                    Some((None, found, None))
                }
                (true, Some(squashfs)) => {
                    let first = spawn(shared, scope, "feed", move || {
                        shared.stage(|| this.feed(shared, buffers, meter, Some(&feed_to)))
                    });
                    let tree = this.root(shared, fed, squashfs, context);
                    Some((None, join(first)?, Some(tree?)))
                }
                (false, squashfs) => {
                    let first = spawn(shared, scope, "feed", move || {
                        shared.stage(|| this.feed(shared, buffers, meter, Some(&feed_to)))
                    });
                    let Some(squashfs) = squashfs else {
                        let mut fed = Pieces::new(fed, shared);
                        let plain = shared.stage(|| this.inflate(shared, buffers, &mut fed, None));
                        // The feeder may wait for room: it has to learn that nobody reads any more.
                        drop(fed);
                        return Some((Some(join(first)?), plain?, None));
                    };
                    let second = spawn(shared, scope, "inflate", move || {
                        let mut fed = Pieces::new(fed, shared);
                        shared.stage(|| this.inflate(shared, buffers, &mut fed, Some(&inflate_to)))
                    });
                    let tree = this.root(shared, inflated, squashfs, context);
                    Some((Some(join(first)?), join(second)?, Some(tree?)))
                }
            }
        });
        let (raw, plain, tree) = run.result(passed)?;
        Ok(Passed {
            diff_id: DiffId(plain.digest),
            written: plain.written.or(raw.and_then(|raw| raw.written)),
            tree,
        })
    }

    /// First stage: reads the stream.
    fn feed(
        &self,
        run: &Run<'_>,
        buffers: &Buffers,
        mut meter: Option<BlobMeter>,
        to: Option<&Sender<Piece>>,
    ) -> Result<Found> {
        let is_plain = self.compression == Compression::None;
        let store = if is_plain || self.store == Store::AsIs {
            self.store
        } else {
            Store::Nothing
        };
        let mut stream = (self.open)()?;
        let mut output = Output::new(self.dir, store, self.options.threads)?;
        // A local blob of a known layer is verified by its diff ID alone.
        let hashes = is_plain || self.blob.is_some() || store != Store::Nothing;
        let announced = self.blob.map(|(_, size)| size).or(self.size);
        let limit = announced.unwrap_or(u64::MAX);
        let limit = if is_plain {
            limit.min(self.options.limits.max_plain)
        } else {
            limit
        };
        let mut hash = Hashing::new(io::sink());
        let mut read = 0;
        loop {
            run.check()?;
            let mut piece = buffers.take();
            piece
                .fill(
                    &mut Checked {
                        stream: &mut *stream,
                        run,
                    },
                    PIECE,
                )
                .map_err(Error::io("read", self.name))?;
            if piece.is_empty() {
                break;
            }
            read += piece.len() as u64;
            if read > limit {
                return Err(self.too_long(limit, announced.is_some()));
            }
            if hashes {
                update(&mut hash, &piece);
            }
            output.write(&piece)?;
            if let Some(meter) = &mut meter {
                meter.add(piece.len());
            }
            if let Some(to) = to {
                send(to, Some(piece))?;
            }
        }
        let (digest, _, _) = hash.finish();
        if let Some((expected, size)) = self.blob
            && (digest, read) != (expected, size)
        {
            return Err(Error::Corrupt {
                expected,
                found: format!("{digest} of {read} bytes instead of {size}"),
            });
        }
        if announced.is_some_and(|size| size != read) {
            return Err(Error::invalid(
                self.name,
                format!("ends after {read} bytes instead of {limit}"),
            ));
        }
        if is_plain {
            self.verify_plain(digest)?;
        }
        let written = output.finish(digest, read)?;
        if let Some(to) = to {
            send(to, None)?;
        }
        if let Some(meter) = meter {
            meter.finish();
        }
        Ok(Found { digest, written })
    }

    /// Second stage: inflates the stream.
    fn inflate(
        &self,
        run: &Run<'_>,
        buffers: &Buffers,
        fed: &mut Pieces<'_>,
        to: Option<&Sender<Piece>>,
    ) -> Result<Found> {
        let store = if self.store == Store::AsIs {
            Store::Nothing
        } else {
            self.store
        };
        let mut output = Output::new(self.dir, store, self.options.threads)?;
        let mut hash = Hashing::new(io::sink());
        {
            let mut plain = compression::open(
                self.compression,
                &mut *fed,
                self.options.threads,
                self.options.limits,
            )?;
            loop {
                run.check()?;
                let mut piece = buffers.take();
                piece
                    .fill(&mut *plain, PIECE)
                    .map_err(|error| self.named(Error::io("inflate", self.name)(error)))?;
                if piece.is_empty() {
                    break;
                }
                update(&mut hash, &piece);
                output.write(&piece)?;
                if let Some(to) = to {
                    send(to, Some(piece))?;
                }
            }
        }
        // The blob must be verified before the plain tar counts.
        fed.drain()?;
        let (digest, size, _) = hash.finish();
        self.verify_plain(digest)?;
        let written = output.finish(digest, size)?;
        if let Some(to) = to {
            send(to, None)?;
        }
        Ok(Found { digest, written })
    }

    /// Last stage: writes the root filesystem.
    fn root(
        &self,
        run: &Run<'_>,
        from: Receiver<Piece>,
        squashfs: &mut RootfsWriter,
        context: &Context,
    ) -> Option<LayerTree> {
        let mut plain = Pieces::new(from, run);
        run.stage(|| {
            let tree = squashfs.layer(self.name, &mut plain, &context.cancel)?;
            plain.drain()?;
            Ok(tree)
        })
    }

    /// Names the layer in an error of the decompressor.
    fn named(&self, error: Error) -> Error {
        match error {
            Error::Invalid { what, why } if what == compression::UNNAMED => {
                Error::invalid(format!("layer {}", self.name), why)
            }
            error => error,
        }
    }

    fn verify_plain(&self, found: Digest) -> Result<()> {
        match self.diff_id {
            Some(DiffId(expected)) if expected != found => Err(Error::Corrupt {
                expected,
                found: format!("{found}, inflated from {}", self.name),
            }),
            _ => Ok(()),
        }
    }

    fn too_long(&self, limit: u64, is_announced: bool) -> Error {
        match self.blob {
            Some((expected, size)) => Error::Corrupt {
                expected,
                found: format!("longer than its {size} bytes"),
            },
            None if is_announced => {
                Error::invalid(self.name, format!("is longer than its {limit} bytes"))
            }
            None => Error::invalid(
                self.name,
                format!("holds more than the {limit} bytes allowed"),
            ),
        }
    }
}

/// Checks for a stop at every read: a slow stream takes long to fill a piece.
struct Checked<'a> {
    stream: &'a mut dyn Read,
    run: &'a Run<'a>,
}

impl Read for Checked<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.run.check()?;
        self.stream.read(buf)
    }
}

fn update(hash: &mut Hashing<io::Sink>, bytes: &[u8]) {
    use std::io::Write;
    // A sink takes everything.
    let _ = hash.write_all(bytes);
}

type Started<'scope, T> = Option<thread::ScopedJoinHandle<'scope, Option<T>>>;

fn spawn<'scope, 'env, T: Send + 'scope>(
    run: &'scope Run<'_>,
    scope: &'scope thread::Scope<'scope, 'env>,
    name: &str,
    stage: impl FnOnce() -> Option<T> + Send + 'scope,
) -> Started<'scope, T> {
    run.stage(|| {
        thread::Builder::new()
            .name(name.to_owned())
            .spawn_scoped(scope, stage)
            .map_err(Error::io("start thread", name))
    })
}

fn join<T>(started: Started<'_, T>) -> Option<T> {
    match started?.join() {
        Ok(found) => found,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}
