//! Maps of sparse files: old GNU's in header blocks, pax versions 0.0, 0.1 and 1.0 (GNU tar, "Sparse Formats").

use std::io::Read;

use super::error::{TarError, invalid};
use super::header::{BLOCK, Block, number};
use super::pax::natural;

/// Most segments accepted in a sparse file's map.
const MAX_SEGMENTS: usize = 1 << 18;

/// Where stored content belongs in a file, as (offset, length).
pub(super) type Segments = Vec<(u64, u64)>;

/// The pax records about a sparse file.
#[derive(Default)]
pub(super) struct PaxSparse {
    major: Vec<u8>,
    minor: Vec<u8>,
    pub(super) name: Option<Vec<u8>>,
    real_size: Option<u64>,
    map: Vec<u64>,
    mapped: bool,
}

impl PaxSparse {
    pub(super) fn apply(&mut self, key: &[u8], value: Vec<u8>) -> Result<(), TarError> {
        match key {
            b"GNU.sparse.major" => self.major = value,
            b"GNU.sparse.minor" => self.minor = value,
            b"GNU.sparse.name" => self.name = Some(value),
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => self.real_size = Some(natural(&value)?),
            b"GNU.sparse.numblocks" => self.mapped = true,
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => self.map.push(natural(&value)?),
            b"GNU.sparse.map" => {
                self.mapped = true;
                self.map.clear();
                for part in value.split(|&byte| byte == b',') {
                    self.map.push(natural(part)?);
                }
            }
            _ => {}
        }
        if self.map.len() > 2 * MAX_SEGMENTS {
            return too_many();
        }
        Ok(())
    }

    /// The segments and the length of a sparse file; `content` may start with the map.
    pub(super) fn segments(
        &mut self,
        content: impl Read,
    ) -> Result<Option<(Segments, u64)>, TarError> {
        let map = match (self.major.as_slice(), self.minor.as_slice()) {
            (b"1", b"0") => content_map(content)?,
            _ if self.mapped => std::mem::take(&mut self.map),
            _ => return Ok(None),
        };
        let (pairs, []) = map.as_chunks::<2>() else {
            return invalid("has a sparse file with an odd map");
        };
        let segments = pairs.iter().map(|&[offset, length]| (offset, length));
        match self.real_size {
            Some(size) => Ok(Some((segments.collect(), size))),
            None => invalid("has a sparse file without its size"),
        }
    }
}

/// Reads a version 1.0 map: decimal lines at the start of the content, padded to a block.
fn content_map(mut content: impl Read) -> Result<Vec<u64>, TarError> {
    let mut numbers = Vec::new();
    let mut expected = None;
    let mut line: u64 = 0;
    let mut digits = 0;
    let mut block = [0; BLOCK];
    loop {
        content.read_exact(&mut block)?;
        for &byte in &block {
            match byte {
                b'0'..=b'9' if digits < 19 => {
                    line = line * 10 + u64::from(byte - b'0');
                    digits += 1;
                }
                b'\n' if digits > 0 => {
                    match expected {
                        None if line > MAX_SEGMENTS as u64 => return too_many(),
                        None => expected = Some(line as usize * 2),
                        Some(_) => numbers.push(line),
                    }
                    (line, digits) = (0, 0);
                    if expected == Some(numbers.len()) {
                        return Ok(numbers);
                    }
                }
                _ => return broken(),
            }
        }
    }
}

/// Reads an old GNU map: four segments in the header, more in the blocks that `next` reads.
pub(super) fn gnu_segments(
    header: &Block,
    mut next: impl FnMut(&mut Block) -> Result<(), TarError>,
) -> Result<Segments, TarError> {
    let mut segments = Vec::new();
    push_segments(&mut segments, &header[386..482])?;
    let mut extended = header[482] != 0;
    let mut block = [0; BLOCK];
    while extended {
        next(&mut block)?;
        push_segments(&mut segments, &block[..504])?;
        extended = block[504] != 0;
    }
    Ok(segments)
}

fn push_segments(segments: &mut Segments, bytes: &[u8]) -> Result<(), TarError> {
    for pair in bytes.chunks_exact(24) {
        // A zero byte where the offset starts ends the map.
        if pair[0] == 0 {
            break;
        }
        if segments.len() == MAX_SEGMENTS {
            return too_many();
        }
        match (
            u64::try_from(number(&pair[..12])?),
            u64::try_from(number(&pair[12..])?),
        ) {
            (Ok(offset), Ok(length)) => segments.push((offset, length)),
            _ => return broken(),
        }
    }
    Ok(())
}

/// Checks a map against the length of the file and of its stored content.
pub(super) fn check(segments: &[(u64, u64)], size: u64, stored: u64) -> Result<(), TarError> {
    let (mut end, mut total) = (0u64, 0u64);
    for &(offset, length) in segments {
        match offset.checked_add(length) {
            Some(next) if offset >= end && next <= size => {
                end = next;
                total += length;
            }
            _ => return invalid("has a sparse file whose segments overlap or leave it"),
        }
    }
    if total != stored {
        return invalid("has a sparse file whose map does not match its content");
    }
    Ok(())
}

fn too_many<T>() -> Result<T, TarError> {
    invalid("has a sparse file with too many segments")
}

fn broken<T>() -> Result<T, TarError> {
    invalid("has a sparse file with a broken map")
}
