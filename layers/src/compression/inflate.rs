//! Reads the plain tar out of a layer blob.
//!
//! Gzip members of our own (see `member.rs`) are inflated on several threads, by libdeflate. From the first
//! foreign member on, the rest is streamed through zlib-rs. Zstd is streamed. Nothing seeks: an arriving blob
//! is inflated as fast as a file. A blob fails as [`Error::Invalid`] if it is cut off or corrupt, if other
//! bytes follow it, or if it grows beyond its [`Limits`].
//!
//! libdeflate does not say where a deflate stream ended. A forged member may hide bytes between the stream and
//! the trailer: they go unseen here, and other programs take them for damage or for one more member. This is
//! harmless, because the diff ID says which content is the layer's, and the diff ID is taken of the bytes read
//! here.

use std::io::{self, BufRead, BufReader, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use flate2::bufread::MultiGzDecoder;
use libdeflater::Decompressor;

use super::buffer::{Buffer, Buffers, PIECE};
use super::member;
use super::ordered::Ordered;
use crate::compression::Compression;
use crate::error::{Error, Result};

/// Largest window of a zstd frame, as a power of two: 128 MiB, the default of every zstd program.
const ZSTD_WINDOW_LOG: u32 = 27;

/// Plain tar that any blob may hold, however small it is.
const RATIO_FLOOR: u64 = 1 << 30;

/// How large a layer may grow.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most bytes of plain tar.
    pub max_plain: u64,
    /// Most bytes of plain tar for a byte of blob, beyond 1 GiB of plain tar. Gzip cannot exceed 1032.
    pub max_ratio: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_plain: 4 << 40,
            max_ratio: 1100,
        }
    }
}

/// Name of the blob in the errors of [`open`]'s reader; a caller that knows the real name replaces it.
pub const UNNAMED: &str = "layer";

/// Opens the plain tar inside a blob; at most `threads` threads inflate.
///
/// A bad blob makes `read` fail with an [`Error::Invalid`] inside an `io::Error`, which [`Error::io`] unwraps.
/// Errors of the blob's own reader stay as they are.
pub fn open<'a>(
    compression: Compression,
    blob: impl Read + Send + 'a,
    threads: usize,
    limits: Limits,
) -> Result<Box<dyn Read + Send + 'a>> {
    let watch = Arc::new(Watch::default());
    let blob = Watched {
        blob,
        watch: Arc::clone(&watch),
    };
    let plain: Box<dyn Read + Send + 'a> = match compression {
        Compression::None => Box::new(blob),
        Compression::Gzip => Box::new(Gzip::new(blob, threads)),
        Compression::Zstd => {
            let mut decoder = zstd::Decoder::new(blob).map_err(Error::io("inflate", "layer"))?;
            decoder
                .window_log_max(ZSTD_WINDOW_LOG)
                .map_err(Error::io("inflate", "layer"))?;
            let size = zstd::Decoder::<BufReader<io::Empty>>::recommended_output_size();
            Box::new(Steady(BufReader::with_capacity(size, decoder)))
        }
    };
    Ok(Box::new(Guarded {
        plain,
        compression,
        watch,
        limits,
        done: 0,
    }))
}

/// Counts the bytes of plain tar inside a blob by inflating all of it.
pub fn count_plain(
    compression: Compression,
    blob: impl Read + Send,
    threads: usize,
    limits: Limits,
) -> Result<u64> {
    let mut plain = open(compression, blob, threads, limits)?;
    io::copy(&mut plain, &mut io::sink()).map_err(Error::io("inflate", "layer"))
}

/// Reads always as many bytes as the buffer holds, whatever the caller asks for.
///
/// libzstd decodes a frame that fits into the caller's buffer in one go, and then finds more faults in it: a blob would be
/// good or bad by the size of a buffer.
struct Steady<R>(BufReader<R>);

impl<R: Read> Read for Steady<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        let count = self.0.fill_buf()?.read(buf)?;
        self.0.consume(count);
        Ok(count)
    }
}

/// What the blob's reader has delivered.
#[derive(Default)]
struct Watch {
    read: AtomicU64,
    failed: AtomicBool,
}

struct Watched<R> {
    blob: R,
    watch: Arc<Watch>,
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self.blob.read(buf) {
            Ok(n) => {
                self.watch.read.fetch_add(n as u64, Ordering::Relaxed);
                Ok(n)
            }
            Err(error) => {
                if error.kind() != io::ErrorKind::Interrupted {
                    self.watch.failed.store(true, Ordering::Relaxed);
                }
                Err(error)
            }
        }
    }
}

/// Enforces the limits on the plain stream and types its errors.
struct Guarded<'a> {
    plain: Box<dyn Read + Send + 'a>,
    compression: Compression,
    watch: Arc<Watch>,
    limits: Limits,
    done: u64,
}

impl Read for Guarded<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = match self.plain.read(buf) {
            Ok(n) => n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
            Err(error) if self.watch.failed.load(Ordering::Relaxed) => return Err(error),
            Err(error) => return Err(bad(format!("cannot be inflated: {error}"))),
        };
        self.done += n as u64;
        let read = self.watch.read.load(Ordering::Relaxed);
        if n == 0 && read == 0 && !buf.is_empty() && self.compression != Compression::None {
            return Err(bad("is empty, but should be compressed".to_owned()));
        }
        let Limits {
            max_plain,
            max_ratio,
        } = self.limits;
        if self.done > max_plain {
            return Err(bad(format!(
                "holds more than the {max_plain} bytes allowed"
            )));
        }
        if self.done > RATIO_FLOOR && self.done / max_ratio.max(1) > read {
            return Err(bad(format!(
                "grows more than {max_ratio} times when inflated, as only an attack does"
            )));
        }
        Ok(n)
    }
}

/// A gzip blob, in one of its states.
enum Gzip<R: Read> {
    /// Members of our own so far.
    Members(Members<R>),
    /// The rest is foreign.
    Foreign(MultiGzDecoder<BufReader<io::Chain<io::Cursor<Vec<u8>>, R>>>),
    /// Reading has failed.
    Failed,
}

/// Members of our own between the workers.
struct Members<R> {
    blob: R,
    pool: Ordered<Buffer, Result<Buffer, String>>,
    buffers: Buffers,
    /// The member that the caller is reading, and the number of bytes read.
    plain: Option<(Buffer, usize)>,
    end: End,
}

/// How far the blob has been read.
enum End {
    /// More bytes may come.
    Open,
    /// The end was reached.
    Reached,
    /// Foreign bytes were reached; the first of them are here.
    Foreign(Vec<u8>),
}

impl<R: Read> Gzip<R> {
    fn new(blob: R, threads: usize) -> Self {
        let buffers = Buffers::default();
        let outputs = buffers.clone();
        Self::Members(Members {
            blob,
            pool: Ordered::new(threads, move || {
                let mut decompressor = Decompressor::new();
                let outputs = outputs.clone();
                move |member: Buffer| inflate(&mut decompressor, &member, outputs.take())
            }),
            buffers,
            plain: None,
            end: End::Open,
        })
    }
}

impl<R: Read> Read for Gzip<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        loop {
            match self {
                Self::Failed => return Err(io::Error::other("failed before")),
                Self::Foreign(decoder) => return decoder.read(buf),
                Self::Members(members) => match members.read(buf) {
                    Ok(Some(n)) => return Ok(n),
                    Ok(None) => {}
                    Err(error) => {
                        *self = Self::Failed;
                        return Err(error);
                    }
                },
            }
            if let Self::Members(members) = std::mem::replace(self, Self::Failed)
                && let End::Foreign(start) = members.end
            {
                let rest = io::Cursor::new(start).chain(members.blob);
                *self = Self::Foreign(MultiGzDecoder::new(BufReader::with_capacity(1 << 18, rest)));
            }
        }
    }
}

impl<R: Read> Members<R> {
    /// Reads as `Read` does; `None` when the rest is foreign.
    fn read(&mut self, buf: &mut [u8]) -> io::Result<Option<usize>> {
        loop {
            if let Some((plain, at)) = &mut self.plain
                && let Some(rest) = plain.get(*at..).filter(|rest| !rest.is_empty())
            {
                let n = rest.len().min(buf.len());
                buf[..n].copy_from_slice(&rest[..n]);
                *at += n;
                return Ok(Some(n));
            }
            self.plain = None;
            while matches!(self.end, End::Open) && !self.pool.is_full() {
                self.take_member()?;
            }
            match (self.pool.pop(), &self.end) {
                (Some(member), _) => {
                    self.plain = Some((member?.map_err(io::Error::other)?, 0));
                }
                (None, End::Foreign(_)) => return Ok(None),
                (None, _) => return Ok(Some(0)),
            }
        }
    }

    fn take_member(&mut self) -> io::Result<()> {
        let mut member = self.buffers.take();
        member.fill(&mut self.blob, member::HEADER)?;
        if member.is_empty() {
            self.end = End::Reached;
            return Ok(());
        }
        let Some(length) = member::length(&member) else {
            self.end = End::Foreign(member.to_vec());
            return Ok(());
        };
        member.fill(&mut self.blob, length)?;
        if member.len() < length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.pool.push(member)
    }
}

fn inflate(
    decompressor: &mut Decompressor,
    member: &[u8],
    mut out: Buffer,
) -> Result<Buffer, String> {
    let (crc, size) = member::trailer(member).ok_or("gzip member without an end")?;
    let size = size as usize;
    if size > PIECE {
        return Err(format!("gzip member claims to hold {size} bytes"));
    }
    let deflated = member
        .get(member::HEADER..member.len() - member::TRAILER)
        .ok_or("gzip member without an end")?;
    out.resize(size, 0);
    let inflated = decompressor
        .deflate_decompress(deflated, &mut out)
        .map_err(|error| format!("gzip member is damaged: {error}"))?;
    if inflated != size || libdeflater::crc32(&out) != crc {
        return Err("gzip member is not what its check sum says".to_owned());
    }
    Ok(out)
}

fn bad(why: String) -> io::Error {
    Error::invalid(UNNAMED, why).into()
}
