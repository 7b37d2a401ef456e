//! Walks a plain tar stream entry by entry, with every extension applied and bounded.
//!
//! The `tar` crate decodes header blocks; the walk is ours because a layer is hostile input: its own
//! iterator reads a pax or long-name record of any length into memory, knows no pax sparse files, and
//! expands sparse files to zeros. Data path: header blocks and extension records → [`Entry`] → content
//! straight from the stream by the caller → [`TarStream::drain`] to the stream's very end, because
//! whoever hashes the stream sits below. Rules that the formats leave open follow Go's `archive/tar`,
//! which the daemon uses: global pax records are skipped, an end without zero blocks is an end.

use std::io::{BufReader, Read};

use tar::{EntryType, Header};

/// One block of a tar file.
const BLOCK: usize = 512;
/// Longest extension record accepted, as in Go's `archive/tar`.
const MAX_RECORD: u64 = 1 << 20;
/// Most segments accepted in a sparse file's map.
const MAX_SEGMENTS: usize = 1 << 18;

/// Keys and values of pax records, or of extended attributes.
pub(super) type Records = Vec<(Vec<u8>, Vec<u8>)>;

/// One file as the archive describes it.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) path: Vec<u8>,
    pub(super) link: Vec<u8>,
    pub(super) kind: EntryType,
    pub(super) mode: u32,
    pub(super) uid: i64,
    pub(super) gid: i64,
    pub(super) mtime: i64,
    pub(super) device: (u32, u32),
    /// Length of the file, holes included.
    pub(super) size: u64,
    /// Where the stored content belongs, as (offset, length); `None` for all of it at 0.
    pub(super) segments: Option<Vec<(u64, u64)>>,
    pub(super) xattrs: Records,
}

/// Why the walk stopped: the stream failed, or the archive is not one.
#[derive(Debug)]
pub(super) enum Fault {
    Read(std::io::Error),
    Invalid(String),
}

impl From<std::io::Error> for Fault {
    fn from(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::UnexpectedEof {
            Self::Invalid("is truncated".into())
        } else {
            Self::Read(error)
        }
    }
}

fn invalid<T>(why: impl Into<String>) -> Result<T, Fault> {
    Err(Fault::Invalid(why.into()))
}

/// A tar stream between two entries, or within the content of one.
pub(super) struct TarStream<'a> {
    input: BufReader<&'a mut dyn Read>,
    /// Content of the current entry not read yet, then padding.
    content: u64,
    padding: u64,
}

/// The extension records that precede an entry.
#[derive(Default)]
struct Extensions {
    long_path: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
    pax: Records,
}

impl<'a> TarStream<'a> {
    pub(super) fn new(input: &'a mut dyn Read) -> Self {
        Self {
            input: BufReader::with_capacity(128 << 10, input),
            content: 0,
            padding: 0,
        }
    }

    /// The next entry; whatever the caller left unread of the previous one is skipped.
    pub(super) fn next(&mut self) -> Result<Option<Entry>, Fault> {
        let mut extensions = Extensions::default();
        let mut budget = 4 * MAX_RECORD;
        loop {
            self.skip()?;
            let Some(block) = self.header()? else {
                return if extensions.long_path.is_some()
                    || extensions.long_link.is_some()
                    || !extensions.pax.is_empty()
                {
                    invalid("ends after an extension header")
                } else {
                    Ok(None)
                };
            };
            let header = Header::from_byte_slice(&block);
            let Ok(size) = u64::try_from(number(field(&block, 124, 12))?) else {
                return invalid("has an entry of negative size");
            };
            self.expect(size)?;
            let kind = header.entry_type();
            if kind.is_gnu_longname() || kind.is_gnu_longlink() || kind.is_pax_local_extensions() {
                budget = budget.checked_sub(size).ok_or_else(|| {
                    Fault::Invalid("has too many extension headers before an entry".into())
                })?;
                let record = self.record(size)?;
                if kind.is_gnu_longname() {
                    extensions.long_path = Some(until_nul(&record).to_vec());
                } else if kind.is_gnu_longlink() {
                    extensions.long_link = Some(until_nul(&record).to_vec());
                } else {
                    extensions.pax = pax_records(&record)?;
                }
            } else if !kind.is_pax_global_extensions() {
                return self.entry(&block, size, extensions).map(Some);
            }
        }
    }

    /// Reads from the current entry's content.
    pub(super) fn content(&mut self) -> impl Read + '_ {
        Content(self)
    }

    /// Stored bytes of the current entry that were not read yet.
    pub(super) fn remaining(&self) -> u64 {
        self.content
    }

    /// Reads the stream to its very end, whatever follows the archive; `check` is asked at each chunk.
    pub(super) fn drain<E: From<Fault>>(
        mut self,
        check: impl Fn() -> Result<(), E>,
    ) -> Result<(), E> {
        let mut chunk = vec![0; 64 << 10];
        loop {
            check()?;
            match self.input.read(&mut chunk) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Fault::from(error).into()),
            }
        }
    }

    fn expect(&mut self, size: u64) -> Result<(), Fault> {
        if size > i64::MAX as u64 - BLOCK as u64 {
            return invalid("has an entry of absurd size");
        }
        self.content = size;
        self.padding = size.next_multiple_of(BLOCK as u64) - size;
        Ok(())
    }

    fn skip(&mut self) -> Result<(), Fault> {
        let left = self.content + self.padding;
        let copied = std::io::copy(&mut (&mut self.input).take(left), &mut std::io::sink())?;
        // umoci ends archives right behind the last byte of content, and docker takes them.
        if copied < self.content {
            return invalid("is truncated");
        }
        self.content = 0;
        self.padding = 0;
        Ok(())
    }

    /// The next header block; `None` at two zero blocks or at the end of the stream.
    fn header(&mut self) -> Result<Option<[u8; BLOCK]>, Fault> {
        let mut block = [0; BLOCK];
        if !self.block(&mut block)? {
            return Ok(None);
        }
        if block == [0; BLOCK] {
            return match self.block(&mut block)? {
                true if block != [0; BLOCK] => invalid("has a stray zero block"),
                _ => Ok(None),
            };
        }
        let (mut unsigned, mut signed) = (0i64, 0i64);
        for (place, &byte) in block.iter().enumerate() {
            let byte = if (148..156).contains(&place) {
                b' '
            } else {
                byte
            };
            unsigned += i64::from(byte);
            signed += i64::from(byte as i8);
        }
        match number(field(&block, 148, 8)) {
            Ok(stated) if stated == unsigned || stated == signed => Ok(Some(block)),
            _ => invalid("is not a tar archive, or is corrupt: a header's checksum is wrong"),
        }
    }

    /// Fills one block; `false` at the end of the stream.
    fn block(&mut self, block: &mut [u8; BLOCK]) -> Result<bool, Fault> {
        let mut filled = 0;
        while let Some(rest) = block.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.input.read(rest) {
                Ok(0) if filled == 0 => return Ok(false),
                Ok(0) => return invalid("is truncated"),
                Ok(count) => filled += count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }

    /// Reads the current entry's content as an extension record.
    fn record(&mut self, size: u64) -> Result<Vec<u8>, Fault> {
        if size > MAX_RECORD {
            return invalid("has an extension header longer than 1 MiB");
        }
        let mut record = Vec::new();
        self.content().read_to_end(&mut record)?;
        if self.content > 0 {
            return invalid("is truncated");
        }
        Ok(record)
    }

    fn entry(
        &mut self,
        block: &[u8; BLOCK],
        size: u64,
        extensions: Extensions,
    ) -> Result<Entry, Fault> {
        let header = Header::from_byte_slice(block);
        let mut entry = Entry {
            path: extensions
                .long_path
                .unwrap_or_else(|| header.path_bytes().into_owned()),
            link: extensions
                .long_link
                .or_else(|| header.link_name_bytes().map(|link| link.into_owned()))
                .unwrap_or_default(),
            kind: header.entry_type(),
            mode: number(field(block, 100, 8))? as u32 & 0o7777,
            uid: number(field(block, 108, 8))?,
            gid: number(field(block, 116, 8))?,
            mtime: number(field(block, 136, 12))?,
            device: (
                number(field(block, 329, 8)).unwrap_or(0) as u32,
                number(field(block, 337, 8)).unwrap_or(0) as u32,
            ),
            size,
            segments: None,
            xattrs: Vec::new(),
        };
        let mut sparse = PaxSparse::default();
        for (key, value) in extensions.pax {
            self.apply(&mut entry, &mut sparse, &key, value)?;
        }
        // Only regular files have content, whatever the size field of others says.
        match entry.kind {
            EntryType::GNUSparse => self.gnu_sparse(&mut entry, block)?,
            EntryType::Regular | EntryType::Continuous => {
                if entry.path.ends_with(b"/") {
                    entry.kind = EntryType::Directory;
                } else {
                    self.pax_sparse(&mut entry, sparse)?;
                }
            }
            EntryType::Link
            | EntryType::Symlink
            | EntryType::Directory
            | EntryType::Char
            | EntryType::Block
            | EntryType::Fifo => {
                // Archives by old tools give the target's size here, with no content.
                self.expect(0)?;
                entry.size = 0;
            }
            _ => {}
        }
        if let Some(segments) = &entry.segments {
            check_segments(segments, entry.size, self.content)?;
        }
        Ok(entry)
    }

    fn apply(
        &mut self,
        entry: &mut Entry,
        sparse: &mut PaxSparse,
        key: &[u8],
        value: Vec<u8>,
    ) -> Result<(), Fault> {
        if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
            entry.xattrs.push((name.to_vec(), value));
            return Ok(());
        }
        // An empty value takes the record back.
        if value.is_empty() {
            return Ok(());
        }
        match key {
            b"path" => entry.path = value,
            b"linkpath" => entry.link = value,
            b"uid" => entry.uid = decimal(&value)?,
            b"gid" => entry.gid = decimal(&value)?,
            b"mtime" => entry.mtime = seconds(&value)?,
            b"size" => {
                let Ok(size) = u64::try_from(decimal(&value)?) else {
                    return invalid("has an entry of negative size");
                };
                entry.size = size;
                self.expect(size)?;
            }
            _ => sparse.apply(key, value)?,
        }
        Ok(())
    }

    /// Reads the map of an old GNU sparse file: four segments in the header, more in further blocks.
    fn gnu_sparse(&mut self, entry: &mut Entry, block: &[u8; BLOCK]) -> Result<(), Fault> {
        let mut segments = Vec::new();
        let mut extended = block[482] != 0;
        push_segments(&mut segments, &block[386..482])?;
        while extended {
            let mut more = [0; BLOCK];
            if !self.block(&mut more)? {
                return invalid("is truncated");
            }
            push_segments(&mut segments, &more[..504])?;
            extended = more[504] != 0;
        }
        entry.size = match u64::try_from(number(field(block, 483, 12))?) {
            Ok(size) => size,
            Err(_) => return invalid("has an entry of negative size"),
        };
        entry.kind = EntryType::Regular;
        entry.segments = Some(segments);
        Ok(())
    }

    /// Applies the map of a pax sparse file, versions 0.0, 0.1 and 1.0.
    fn pax_sparse(&mut self, entry: &mut Entry, sparse: PaxSparse) -> Result<(), Fault> {
        let map = match (sparse.major.as_slice(), sparse.minor.as_slice()) {
            (b"1", b"0") => Some(self.sparse_map()?),
            _ if sparse.mapped => Some(sparse.map),
            _ => None,
        };
        if let Some(map) = map {
            let mut segments = Vec::with_capacity(map.len() / 2);
            for pair in map.chunks(2) {
                match pair {
                    &[offset, length] => segments.push((offset, length)),
                    _ => return invalid("has a sparse file with an odd map"),
                }
            }
            entry.segments = Some(segments);
            if let Some(name) = sparse.name {
                entry.path = name;
            }
            self.sparse_size(entry, sparse.real_size)?;
        }
        Ok(())
    }

    fn sparse_size(&self, entry: &mut Entry, real_size: Option<u64>) -> Result<(), Fault> {
        match real_size {
            Some(size) => entry.size = size,
            None => return invalid("has a sparse file without its size"),
        }
        Ok(())
    }

    /// Reads a version 1.0 map: decimal lines at the start of the content, padded to a block.
    fn sparse_map(&mut self) -> Result<Vec<u64>, Fault> {
        let mut numbers = Vec::new();
        let mut expected = None;
        let mut line: u64 = 0;
        let mut digits = 0;
        let mut block = [0; BLOCK];
        loop {
            let mut content = self.content();
            content.read_exact(&mut block)?;
            for &byte in &block {
                match byte {
                    b'0'..=b'9' if digits < 19 => {
                        line = line * 10 + u64::from(byte - b'0');
                        digits += 1;
                    }
                    b'\n' if digits > 0 => {
                        match expected {
                            None if line > MAX_SEGMENTS as u64 => {
                                return invalid("has a sparse file with too many segments");
                            }
                            None => expected = Some(line as usize * 2),
                            Some(_) => numbers.push(line),
                        }
                        (line, digits) = (0, 0);
                        if expected == Some(numbers.len()) {
                            return Ok(numbers);
                        }
                    }
                    _ => return invalid("has a sparse file with a broken map"),
                }
            }
        }
    }
}

/// What pax records say about a sparse file.
#[derive(Default)]
struct PaxSparse {
    major: Vec<u8>,
    minor: Vec<u8>,
    name: Option<Vec<u8>>,
    real_size: Option<u64>,
    map: Vec<u64>,
    mapped: bool,
}

impl PaxSparse {
    fn apply(&mut self, key: &[u8], value: Vec<u8>) -> Result<(), Fault> {
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
            return invalid("has a sparse file with too many segments");
        }
        Ok(())
    }
}

/// Reads from the content of a [`TarStream`]'s current entry.
struct Content<'s, 'a>(&'s mut TarStream<'a>);

impl Read for Content<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let length = self.0.content.min(buffer.len() as u64) as usize;
        let Some(buffer) = buffer.get_mut(..length) else {
            return Ok(0);
        };
        let count = self.0.input.read(buffer)?;
        self.0.content -= count as u64;
        Ok(count)
    }
}

fn push_segments(segments: &mut Vec<(u64, u64)>, bytes: &[u8]) -> Result<(), Fault> {
    for pair in bytes.chunks_exact(24) {
        // A zero byte where the offset starts ends the map.
        if pair[0] == 0 {
            break;
        }
        if segments.len() == MAX_SEGMENTS {
            return invalid("has a sparse file with too many segments");
        }
        match (
            u64::try_from(number(&pair[..12])?),
            u64::try_from(number(&pair[12..])?),
        ) {
            (Ok(offset), Ok(length)) => segments.push((offset, length)),
            _ => return invalid("has a sparse file with a broken map"),
        }
    }
    Ok(())
}

fn check_segments(segments: &[(u64, u64)], size: u64, stored: u64) -> Result<(), Fault> {
    let (mut end, mut total) = (0u64, 0u64);
    for &(offset, length) in segments {
        let next = offset.checked_add(length);
        match next {
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

fn field(block: &[u8; BLOCK], start: usize, length: usize) -> &[u8] {
    block.get(start..start + length).unwrap_or_default()
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|&byte| byte == 0).next().unwrap_or_default()
}

/// Decodes a header's number: octal text, or base 256 when the top bit is set.
fn number(field: &[u8]) -> Result<i64, Fault> {
    match field {
        [first, rest @ ..] if first & 0x80 != 0 => {
            // Two's complement; bit 6 of the first byte is the sign.
            let mut value = i64::from((*first as i8) << 1 >> 1);
            for &byte in rest {
                value = match value.checked_mul(256) {
                    Some(value) => value | i64::from(byte),
                    None => return invalid("has a number too large in a header"),
                };
            }
            Ok(value)
        }
        _ => {
            let text = until_nul(field).trim_ascii();
            let mut value = 0i64;
            for &byte in text {
                match byte {
                    b'0'..=b'7' => value = value * 8 + i64::from(byte - b'0'),
                    _ => return invalid("has a header with a broken number"),
                }
            }
            Ok(value)
        }
    }
}

fn decimal(text: &[u8]) -> Result<i64, Fault> {
    match std::str::from_utf8(text).map(str::parse) {
        Ok(Ok(value)) => Ok(value),
        _ => invalid("has a pax record with a broken number"),
    }
}

fn natural(text: &[u8]) -> Result<u64, Fault> {
    match u64::try_from(decimal(text)?) {
        Ok(value) => Ok(value),
        Err(_) => invalid("has a pax record with a negative number"),
    }
}

/// Whole seconds, rounded down, of a decimal time such as `-1.5`.
fn seconds(text: &[u8]) -> Result<i64, Fault> {
    let mut parts = text.splitn(2, |&byte| byte == b'.');
    let whole = parts.next().unwrap_or_default();
    let fraction = parts.next().unwrap_or_default();
    if !fraction.iter().all(u8::is_ascii_digit) {
        return invalid("has a pax record with a broken time");
    }
    let value = decimal(whole)?;
    let below = whole.starts_with(b"-") && fraction.iter().any(|&digit| digit != b'0');
    Ok(if below {
        value.saturating_sub(1)
    } else {
        value
    })
}

/// Splits a pax record block: `length key=value\n` each, the length counting all of it.
fn pax_records(mut block: &[u8]) -> Result<Records, Fault> {
    let mut records = Vec::new();
    while !block.is_empty() {
        let parsed = (|| {
            let space = block.iter().position(|&byte| byte == b' ')?;
            let length: usize = std::str::from_utf8(block.get(..space)?)
                .ok()?
                .parse()
                .ok()?;
            let record = block.get(space + 1..length)?.strip_suffix(b"\n")?;
            let equals = record.iter().position(|&byte| byte == b'=')?;
            Some((length, record.get(..equals)?, record.get(equals + 1..)?))
        })();
        let Some((length, key, value)) = parsed else {
            return invalid("has a broken pax record");
        };
        records.push((key.to_vec(), value.to_vec()));
        block = block.get(length..).unwrap_or_default();
    }
    Ok(records)
}
