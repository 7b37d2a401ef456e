//! Compresses blocks on worker threads; one more thread writes them in order.
//!
//! Data path: steps enter a bounded queue in file order → a block that is to be compressed also goes to the
//! workers, and its step carries the slot for the result → the writing thread takes the steps in order, waits
//! for each slot, appends to the file, hashes, and records the positions. Buffers return through a pool, so the
//! queues bound the memory, whatever the size of the image.

use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use super::{BLOCK_SIZE, Data};
use crate::digest::{Digest, Hashing};
use crate::error::{Error, Result};

/// Mark in the stored size of an uncompressed block, as in squashfs.
pub(super) const UNCOMPRESSED: u32 = 1 << 24;
/// Mark in a number of [`Written::sizes`] that counts holes.
pub(super) const HOLES: u32 = 1 << 31;
/// Bytes reserved at the start of the file for the superblock.
pub(super) const SUPERBLOCK: u64 = 96;
/// Steps waiting to be written.
const QUEUE: usize = 16;

/// One thing to append, in file order.
enum Step {
    /// The next data block starts a file.
    File,
    /// Blocks of zeros, which take no space.
    Holes(u64),
    Block(Payload),
    Fragment(Payload),
    /// What was appended since the last end is the content of one layer.
    End,
}

/// A block in its stored form, or the slot for it.
enum Payload {
    Stored(Vec<u8>),
    Compressed(Receiver<(Vec<u8>, u32)>),
}

type Job = (Vec<u8>, Sender<(Vec<u8>, u32)>);

/// The content of one layer: blocks and fragment blocks that no other layer shares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Region {
    /// Where it lies in the squashfs file.
    pub(super) bytes: Range<u64>,
    /// Digest of its bytes as they are stored.
    pub(super) digest: Digest,
    /// Its part of [`Written::files`].
    pub(super) files: Range<usize>,
    /// Its part of [`Written::sizes`].
    pub(super) sizes: Range<usize>,
    /// Its part of [`Written::fragments`].
    pub(super) fragments: Range<usize>,
}

/// Where the content was written.
#[derive(Debug)]
pub(super) struct Written {
    /// For each file, its first block's position in the squashfs file and its index in `sizes`.
    pub(super) files: Vec<(u64, u32)>,
    /// Stored sizes of all files' blocks; a run of holes is one marked count.
    pub(super) sizes: Vec<u32>,
    /// Position and stored size of each fragment block.
    pub(super) fragments: Vec<(u64, u32)>,
    /// The layers' content, in file order.
    pub(super) regions: Vec<Region>,
    /// End of the content.
    pub(super) end: u64,
}

impl Default for Written {
    /// Of a file that has nothing but room for the superblock.
    fn default() -> Self {
        Self {
            files: Vec::new(),
            sizes: Vec::new(),
            fragments: Vec::new(),
            regions: Vec::new(),
            end: SUPERBLOCK,
        }
    }
}

/// Totals of a run of a file's blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Blocks {
    /// Their number, holes included.
    pub(super) count: u64,
    /// Their length as they are stored.
    pub(super) stored: u64,
}

impl Written {
    /// Adds up the `count` blocks of a file from `first` on, without a step for each hole. Fewer when the list ends.
    pub(super) fn blocks(&self, first: usize, count: u64) -> Blocks {
        let mut total = Blocks::default();
        for &size in self.sizes.get(first..).unwrap_or_default() {
            if total.count >= count {
                break;
            }
            if size & HOLES == 0 {
                total.count += 1;
                total.stored += u64::from(size & !UNCOMPRESSED);
            } else {
                total.count += u64::from(size & !HOLES);
            }
        }
        total.count = total.count.min(count);
        total
    }

    /// Ends the region of the files, sizes and fragment blocks that no region has yet.
    pub(super) fn end_region(&mut self, start: u64, digest: Digest) {
        let last = self.regions.last();
        let [files, sizes, fragments] = last.map_or([0; 3], |region| {
            [region.files.end, region.sizes.end, region.fragments.end]
        });
        self.regions.push(Region {
            bytes: start..self.end,
            digest,
            files: files..self.files.len(),
            sizes: sizes..self.sizes.len(),
            fragments: fragments..self.fragments.len(),
        });
    }

    /// The stored sizes of `count` blocks of a file.
    pub(super) fn block_sizes(&self, first: u32, count: u64) -> impl Iterator<Item = u32> + '_ {
        self.sizes
            .get(first as usize..)
            .unwrap_or_default()
            .iter()
            .flat_map(|&size| {
                if size & HOLES == 0 {
                    std::iter::repeat_n(size, 1)
                } else {
                    std::iter::repeat_n(0, (size & !HOLES) as usize)
                }
            })
            .take(usize::try_from(count).unwrap_or(usize::MAX))
    }
}

/// The threads and the queues to them.
pub(super) struct Pipeline {
    steps: Option<Sender<Step>>,
    jobs: Option<Sender<Job>>,
    pool: (Sender<Vec<u8>>, Receiver<Vec<u8>>),
    writing: Option<JoinHandle<Result<(File, Written)>>>,
    workers: Vec<JoinHandle<()>>,
}

impl std::fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pipeline")
            .field("workers", &self.workers.len())
            .finish_non_exhaustive()
    }
}

impl Pipeline {
    /// Starts to append to `file`, in which `written` is already.
    pub(super) fn start(
        file: File,
        path: &Path,
        data: Data,
        threads: usize,
        written: Written,
    ) -> Result<Self> {
        let (steps, queue) = bounded(QUEUE);
        let pool = unbounded();
        let mut workers = Vec::new();
        let mut jobs = None;
        if let Data::Zstd(level) = data {
            let (sender, receiver) = bounded(QUEUE);
            for _ in 0..threads.max(1) {
                let (receiver, pool) = (receiver.clone(), pool.0.clone());
                workers.push(spawn("squashfs-zstd", path, move || {
                    compress(level, &receiver, &pool);
                })?);
            }
            jobs = Some(sender);
        }
        let (spare, name) = (pool.0.clone(), path.to_owned());
        let writing = spawn("squashfs-write", path, move || {
            write(file, &name, written, &queue, &spare)
        })?;
        Ok(Self {
            steps: Some(steps),
            jobs,
            pool,
            writing: Some(writing),
            workers,
        })
    }

    /// An empty buffer with room for one block.
    pub(super) fn buffer(&self) -> Vec<u8> {
        match self.pool.1.try_recv() {
            Ok(mut buffer) => {
                buffer.clear();
                buffer
            }
            Err(_) => Vec::with_capacity(BLOCK_SIZE),
        }
    }

    pub(super) fn file(&mut self) -> Result<()> {
        self.send(Step::File)
    }

    pub(super) fn holes(&mut self, count: u64) -> Result<()> {
        self.send(Step::Holes(count))
    }

    pub(super) fn block(&mut self, block: Vec<u8>) -> Result<()> {
        let payload = self.payload(block);
        self.send(Step::Block(payload))
    }

    pub(super) fn fragment(&mut self, block: Vec<u8>) -> Result<()> {
        let payload = self.payload(block);
        self.send(Step::Fragment(payload))
    }

    /// Ends a layer's content.
    pub(super) fn region(&mut self) -> Result<()> {
        self.send(Step::End)
    }

    fn payload(&mut self, block: Vec<u8>) -> Payload {
        match &self.jobs {
            None => Payload::Stored(block),
            Some(jobs) => {
                let (slot, result) = bounded(1);
                // Without workers, the slot is dropped, and the writing thread reports the loss.
                let _ = jobs.send((block, slot));
                Payload::Compressed(result)
            }
        }
    }

    fn send(&mut self, step: Step) -> Result<()> {
        match &self.steps {
            Some(steps) if steps.send(step).is_ok() => Ok(()),
            // The writing thread has ended and knows the reason.
            _ => match self.end() {
                Err(error) => Err(error),
                Ok(_) => Err(broken()),
            },
        }
    }

    /// Waits until all is written.
    pub(super) fn end(&mut self) -> Result<(File, Written)> {
        self.steps = None;
        self.jobs = None;
        let result = match self.writing.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            _ => Err(broken()),
        };
        for worker in self.workers.drain(..) {
            let _ = worker.join();
        }
        result
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        // The caller removes an abandoned file; no thread may write to it any more.
        let _ = self.end();
    }
}

fn broken() -> Error {
    Error::invalid("squashfs file", "was abandoned after an earlier error")
}

fn spawn<T: Send + 'static>(
    name: &str,
    path: &Path,
    body: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>> {
    std::thread::Builder::new()
        .name(name.into())
        .spawn(body)
        .map_err(Error::io("start a thread to write", path))
}

fn compress(level: i32, jobs: &Receiver<Job>, pool: &Sender<Vec<u8>>) {
    let Ok(mut compressor) = zstd::bulk::Compressor::new(level) else {
        return;
    };
    let mut scratch = Vec::with_capacity(zstd::zstd_safe::compress_bound(BLOCK_SIZE));
    // A slot that is dropped unfilled tells the writing thread that compression failed.
    for (block, slot) in jobs {
        scratch.clear();
        let Ok(size) = compressor.compress_to_buffer(&block[..], &mut scratch) else {
            return;
        };
        let sent = if size < block.len() {
            let _ = pool.send(block);
            slot.send((scratch.clone(), size as u32))
        } else {
            let size = block.len() as u32 | UNCOMPRESSED;
            slot.send((block, size))
        };
        if sent.is_err() {
            return;
        }
    }
}

fn write(
    file: File,
    path: &PathBuf,
    mut written: Written,
    steps: &Receiver<Step>,
    pool: &Sender<Vec<u8>>,
) -> Result<(File, Written)> {
    let failed = |error| Error::io("write", path)(error);
    let mut output = BufWriter::with_capacity(1 << 16, file);
    // A file is no squashfs until its superblock is there.
    output
        .write_all(&[0; SUPERBLOCK as usize])
        .and_then(|()| output.seek(SeekFrom::Start(written.end)))
        .map_err(failed)?;
    let mut start = written.end;
    let mut hash = Hashing::new(io::sink());
    for step in steps {
        let (payload, fragment) = match step {
            Step::File => {
                let first = u32::try_from(written.sizes.len()).map_err(|_| {
                    Error::invalid(path.display().to_string(), "has too many blocks")
                })?;
                written.files.push((written.end, first));
                continue;
            }
            Step::Holes(mut count) => {
                while count > 0 {
                    let run = count.min(u64::from(HOLES - 1));
                    written.sizes.push(HOLES | run as u32);
                    count -= run;
                }
                continue;
            }
            Step::End => {
                let (digest, ..) = std::mem::replace(&mut hash, Hashing::new(io::sink())).finish();
                written.end_region(start, digest);
                start = written.end;
                continue;
            }
            Step::Block(payload) => (payload, false),
            Step::Fragment(payload) => (payload, true),
        };
        let (block, size) = match payload {
            Payload::Stored(block) => {
                let size = block.len() as u32 | UNCOMPRESSED;
                (block, size)
            }
            Payload::Compressed(slot) => slot
                .recv()
                .map_err(|_| Error::invalid(path.display().to_string(), "cannot be compressed"))?,
        };
        output
            .write_all(&block)
            .and_then(|()| hash.write_all(&block))
            .map_err(failed)?;
        if fragment {
            written.fragments.push((written.end, size));
        } else {
            written.sizes.push(size);
        }
        written.end += block.len() as u64;
        if block.capacity() >= BLOCK_SIZE {
            let _ = pool.send(block);
        }
    }
    let file = output
        .into_inner()
        .map_err(|error| failed(error.into_error()))?;
    Ok((file, written))
}
