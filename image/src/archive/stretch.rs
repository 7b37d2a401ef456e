//! Reading stretches of an archive file that is plain, or compressed as a whole.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use pcocc_core::named;

use super::packing::Packing;
use crate::error::{Error, Result};
use pcocc_layers::tar::ReadAt;

/// Hands out readers for stretches of one archive; offsets count uncompressed bytes.
///
/// A plain file is read at any offset. A compressed file has one decompressor, which continues where the last
/// reader stopped and starts over for an earlier stretch.
pub(super) struct Stretches {
    path: PathBuf,
    packing: Packing,
    plain: Arc<File>,
    forward: Arc<Mutex<Option<Forward>>>,
}

/// A decompressor and its position.
struct Forward {
    reader: Box<dyn Read + Send>,
    position: u64,
}

impl Stretches {
    /// Opens the archive.
    pub(super) fn new(path: &Path, packing: Packing) -> Result<Self> {
        let file = named::open(path).map_err(Error::io("open", path))?;
        Ok(Self {
            path: path.to_owned(),
            packing,
            plain: Arc::new(file),
            forward: Arc::new(Mutex::new(None)),
        })
    }

    /// The archive's file, for messages.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Reads `size` bytes from `offset`; fails when the archive ends before.
    pub(super) fn read(&self, offset: u64, size: u64) -> Result<Stretch> {
        if self.packing != Packing::Plain && !self.forward_to(offset)? {
            return Err(truncated(&self.path));
        }
        Ok(self.stretch(offset, size))
    }

    fn stretch(&self, offset: u64, left: u64) -> Stretch {
        Stretch {
            plain: (self.packing == Packing::Plain).then(|| Arc::clone(&self.plain)),
            forward: Arc::clone(&self.forward),
            offset,
            left,
        }
    }

    /// Moves the decompressor to `offset`; `false` when the archive ends before.
    fn forward_to(&self, offset: u64) -> Result<bool> {
        let mut forward = self.forward.lock();
        let mut at = match forward.take() {
            Some(at) if at.position <= offset => at,
            _ => {
                let mut file = named::open(&self.path).map_err(Error::io("open", &self.path))?;
                file.seek(SeekFrom::Start(0))
                    .map_err(Error::io("read", &self.path))?;
                Forward {
                    reader: self.packing.open(file)?,
                    position: 0,
                }
            }
        };
        let gap = offset - at.position;
        let skipped = io::copy(&mut (&mut at.reader).take(gap), &mut io::sink())
            .map_err(|error| corrupt(&self.path, &error))?;
        if skipped < gap {
            return Ok(false);
        }
        at.position = offset;
        *forward = Some(at);
        Ok(true)
    }
}

impl ReadAt for Stretches {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        if self.packing != Packing::Plain && !self.forward_to(offset)? {
            return Ok(0);
        }
        self.stretch(offset, 0)
            .read_on(buffer)
            .map_err(|error| corrupt(&self.path, &error).into())
    }
}

/// One stretch of an archive.
pub(super) struct Stretch {
    plain: Option<Arc<File>>,
    forward: Arc<Mutex<Option<Forward>>>,
    offset: u64,
    left: u64,
}

impl Stretch {
    /// Reads at the current offset; 0 at the archive's end.
    fn read_on(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = match &self.plain {
            Some(file) => file.read_at(buf, self.offset)?,
            None => {
                let mut forward = self.forward.lock();
                match forward.as_mut() {
                    Some(at) if at.position == self.offset => {
                        let n = at.reader.read(buf)?;
                        at.position += n as u64;
                        n
                    }
                    _ => return Err(io::Error::other("two parts of it are read at once")),
                }
            }
        };
        self.offset += n as u64;
        Ok(n)
    }
}

impl Read for Stretch {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX);
        let most = most.min(buf.len());
        let Some(buf) = buf.get_mut(..most).filter(|buf| !buf.is_empty()) else {
            return Ok(0);
        };
        let n = self.read_on(buf)?;
        if n == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the archive is truncated",
            ));
        }
        self.left -= n as u64;
        Ok(n)
    }
}

/// The error for an archive that ends within an entry.
pub(super) fn truncated(path: &Path) -> Error {
    Error::invalid(
        path.display().to_string(),
        "is truncated; copy or download it again",
    )
}

/// The error for an archive that does not decompress: it is cut off or damaged.
pub(super) fn corrupt(path: &Path, error: &io::Error) -> Error {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        return truncated(path);
    }
    Error::invalid(
        path.display().to_string(),
        format!("is corrupt ({error}); copy or download it again"),
    )
}
