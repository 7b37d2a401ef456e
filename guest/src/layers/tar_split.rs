//! The form in which docker notes what tar a layer was: all of it but the content of files.
//!
//! `tar-split.json.gz` (<https://github.com/vbatts/tar-split>, package `tar/storage`) is gzip of one JSON object a line.
//! `type` 2 is a segment of the tar, headers and padding, in `payload` (base64). `type` 1 stands for the content of a file:
//! `size` bytes of the file `name`, or `name_raw` (base64) if the name is not UTF-8. Entries without content, such as folders
//! and links, have no size.

use std::borrow::Cow;
use std::io::{BufRead, BufReader, Read};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::read::GzDecoder;
use serde::Deserialize;

use super::Error;

/// Longest line that is read, in bytes. The longest that docker writes has a mebibyte of padding, in base64.
const MAX_LINE: u64 = 8 << 20;

/// Types of entries.
const FILE: u8 = 1;
const SEGMENT: u8 = 2;

/// The file, in errors.
const NAME: &str = "tar-split.json.gz";

/// One part of the tar.
#[derive(Debug)]
pub enum Part<'a> {
    /// Bytes of the tar.
    Segment(Segment<'a>),
    /// The content of a file of the layer.
    File {
        /// The path, without `..` and not absolute.
        name: Cow<'a, [u8]>,
        /// Its bytes, more than none.
        size: u64,
    },
    /// An entry without content.
    Empty,
}

/// Bytes of the tar, as they are noted.
#[derive(Debug)]
pub struct Segment<'a>(&'a str);

impl Segment<'_> {
    /// Number of the bytes, if they are noted rightly.
    pub fn len(&self) -> u64 {
        let padding = self
            .0
            .bytes()
            .rev()
            .take_while(|byte| *byte == b'=')
            .count();
        (self.0.len() as u64 / 4 * 3).saturating_sub(padding as u64)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends the bytes to `into`.
    pub fn decode(&self, into: &mut Vec<u8>) -> Result<(), Error> {
        STANDARD
            .decode_vec(self.0, into)
            .map_err(|error| Error::invalid(NAME, error.to_string()))
    }
}

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(rename = "type")]
    kind: u8,
    #[serde(borrow, default)]
    name: Cow<'a, str>,
    #[serde(borrow, default)]
    name_raw: Option<&'a str>,
    #[serde(default)]
    size: i64,
    #[serde(borrow, default)]
    payload: Option<&'a str>,
}

/// Reads the parts, in the order of the tar.
#[derive(Debug)]
pub struct TarSplit<R> {
    lines: R,
    line: Vec<u8>,
}

impl<R: Read> TarSplit<BufReader<GzDecoder<R>>> {
    /// Reads what docker wrote.
    pub fn gzip(stream: R) -> Self {
        Self::new(BufReader::with_capacity(64 << 10, GzDecoder::new(stream)))
    }
}

impl<R: BufRead> TarSplit<R> {
    /// Reads what docker compresses.
    pub fn new(lines: R) -> Self {
        Self {
            lines,
            line: Vec::new(),
        }
    }

    /// Gives the next part; `None` after the last.
    pub fn next_part(&mut self) -> Result<Option<Part<'_>>, Error> {
        self.line.clear();
        let mut bounded = (&mut self.lines).take(MAX_LINE);
        let read = bounded
            .read_until(b'\n', &mut self.line)
            .map_err(Error::read(NAME))?;
        match self.line.last() {
            None => Ok(None),
            Some(b'\n') => part(&self.line).map(Some),
            Some(_) if read as u64 == MAX_LINE => {
                Err(Error::invalid(NAME, "it has a line without end"))
            }
            Some(_) => Err(Error::invalid(NAME, "it ends within a line")),
        }
    }
}

fn part(line: &[u8]) -> Result<Part<'_>, Error> {
    let bad = |why: String| Error::invalid(NAME, why);
    let line: Line<'_> = serde_json::from_slice(line).map_err(|error| bad(error.to_string()))?;
    match (line.kind, line.size) {
        (SEGMENT, _) => Ok(Part::Segment(Segment(line.payload.unwrap_or_default()))),
        (FILE, 0) => Ok(Part::Empty),
        (FILE, size) => {
            let name = match (line.name_raw, line.name) {
                (Some(raw), _) => {
                    let raw = STANDARD
                        .decode(raw)
                        .map_err(|error| bad(error.to_string()))?;
                    Cow::Owned(raw)
                }
                (None, Cow::Borrowed(name)) => Cow::Borrowed(name.as_bytes()),
                (None, Cow::Owned(name)) => Cow::Owned(name.into_bytes()),
            };
            if !is_beneath(&name) {
                return Err(bad(format!(
                    "it names {:?}",
                    String::from_utf8_lossy(&name)
                )));
            }
            let size = u64::try_from(size).map_err(|_| bad(format!("a file has {size} bytes")))?;
            Ok(Part::File { name, size })
        }
        (kind, _) => Err(bad(format!("it has an entry of type {kind}"))),
    }
}

/// Whether a path leads to something below the folder it starts from.
pub(super) fn is_beneath(path: &[u8]) -> bool {
    let mut names = path.split(|byte| *byte == b'/');
    !path.is_empty()
        && !path.starts_with(b"/")
        && !path.contains(&0)
        && names.all(|name| name != b"..")
}
