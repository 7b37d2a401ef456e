//! The entries of a tar archive by name, and where their content lies.
//!
//! One pass over the headers (POSIX ustar, pax and GNU long names, GNU sizes above 8 GiB). Memory is
//! bounded whatever the archive claims: extension headers are read up to a limit, entries counted.

use std::collections::HashMap;
use std::io::Read;

use tar::{EntryType, Header};

use super::fold;
use super::stretch::{Stretches, corrupt, truncated};
use crate::error::{Error, Result};
use crate::transfer::Context;

const BLOCK: u64 = 512;

/// Largest extension header that is read, in bytes.
const MAX_EXTENSION: u64 = 1 << 20;

/// Most entries an archive may have: 1024 layers of every image of a large save.
const MAX_ENTRIES: usize = 100_000;

/// Links to links that are followed.
const MAX_LINKS: usize = 8;

/// A file's content within the archive.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// Where it starts, in uncompressed bytes.
    pub(super) offset: u64,
    /// Its length.
    pub(super) size: u64,
    /// Its first bytes, zeros where it is shorter.
    pub(super) start: [u8; 4],
}

enum Entry {
    File(Place),
    Link(String),
}

/// The archive's entries by normalised name.
pub(super) struct Index {
    entries: HashMap<String, Entry>,
    path: String,
}

/// What extension headers say of the entry behind them.
#[derive(Default)]
struct Extension {
    name: Option<String>,
    link: Option<String>,
    size: Option<u64>,
}

impl Index {
    /// Reads all headers of the archive.
    pub(super) fn read(stretches: &Stretches, context: &Context) -> Result<Self> {
        let mut index = Self {
            entries: HashMap::new(),
            path: stretches.path().display().to_string(),
        };
        let mut offset = 0;
        let mut extension = Extension::default();
        let mut seen = 0;
        while let Some(header) = header_at(stretches, offset)? {
            context.check()?;
            seen += 1;
            if seen > MAX_ENTRIES {
                return Err(index.refuse(&format!("has more than {MAX_ENTRIES} entries")));
            }
            offset += BLOCK;
            let kind = header.entry_type();
            let mut size = header
                .entry_size()
                .map_err(|_| index.refuse("has an entry of an unreadable size"))?;
            let is_extension = matches!(
                kind,
                EntryType::GNULongName
                    | EntryType::GNULongLink
                    | EntryType::XHeader
                    | EntryType::XGlobalHeader
            );
            if !is_extension {
                size = extension.size.unwrap_or(size);
            }
            let end = size
                .checked_next_multiple_of(BLOCK)
                .and_then(|padded| padded.checked_add(offset))
                .filter(|end| *end < i64::MAX as u64)
                .ok_or_else(|| index.refuse("has an entry of an absurd size"))?;
            if stretches
                .length()
                .is_some_and(|length| offset + size > length)
            {
                return Err(truncated(stretches.path()));
            }
            if is_extension {
                if size > MAX_EXTENSION {
                    return Err(index.refuse("has an extension header of an absurd size"));
                }
                let mut content = Vec::new();
                stretches
                    .read(offset, size)?
                    .read_to_end(&mut content)
                    .map_err(|error| corrupt(stretches.path(), &error))?;
                extension.take(kind, &content);
                offset = end;
                continue;
            }
            let about = std::mem::take(&mut extension);
            let name = about.name.unwrap_or_else(|| lossy(&header.path_bytes()));
            let link = about.link.or_else(|| {
                let link = header.link_name_bytes()?;
                Some(lossy(&link))
            });
            let entry = match kind {
                EntryType::Symlink => link.map(|target| {
                    let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
                    Entry::Link(format!("{folder}/{target}"))
                }),
                EntryType::Link => link.map(Entry::Link),
                EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                    Some(Entry::File(Place {
                        offset,
                        size,
                        start: start_of(stretches, offset, size)?,
                    }))
                }
                _ => None,
            };
            // A name that leaves the archive can be named by nothing within it.
            if let (Some(entry), Some(name)) = (entry, fold(name.split('/'))) {
                index.entries.insert(name, entry);
            }
            offset = end;
        }
        if seen == 0 {
            return Err(index.refuse("is no tar archive, or an empty one"));
        }
        Ok(index)
    }

    /// Finds a file by name, through links.
    pub(super) fn find(&self, name: &str) -> Result<Option<Place>> {
        let shown = || name.chars().take(200).collect::<String>();
        let mut name = name.to_owned();
        for _ in 0..MAX_LINKS {
            let Some(normal) = fold(name.split('/')) else {
                return Err(self.refuse(&format!(
                    "names {:?}, which leads out of the archive",
                    name.chars().take(200).collect::<String>()
                )));
            };
            match self.entries.get(&normal) {
                None => return Ok(None),
                Some(Entry::File(place)) => return Ok(Some(*place)),
                Some(Entry::Link(target)) => name.clone_from(target),
            }
        }
        Err(self.refuse(&format!("has links in a circle at {:?}", shown())))
    }

    fn refuse(&self, why: &str) -> Error {
        Error::invalid(self.path.clone(), why)
    }
}

impl Extension {
    fn take(&mut self, kind: EntryType, content: &[u8]) {
        let text = || {
            let end = content.iter().position(|b| *b == 0);
            lossy(
                content
                    .get(..end.unwrap_or(content.len()))
                    .unwrap_or_default(),
            )
        };
        match kind {
            EntryType::GNULongName => self.name = Some(text()),
            EntryType::GNULongLink => self.link = Some(text()),
            EntryType::XHeader => {
                for record in tar::PaxExtensions::new(content).flatten() {
                    let (Ok(key), Ok(value)) = (record.key(), record.value()) else {
                        continue;
                    };
                    match key {
                        "path" => self.name = Some(value.to_owned()),
                        "linkpath" => self.link = Some(value.to_owned()),
                        "size" => self.size = value.parse().ok(),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
}

/// Reads the header at `offset`; `None` at the archive's end.
fn header_at(stretches: &Stretches, offset: u64) -> Result<Option<Header>> {
    if let Some(length) = stretches.length()
        && offset >= length
    {
        // docker and others end an archive with two blocks of zeros; a lack of them is no loss.
        return Ok(None);
    }
    let mut header = Header::new_old();
    stretches
        .read(offset, BLOCK)?
        .read_exact(header.as_mut_bytes())
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => truncated(stretches.path()),
            _ => corrupt(stretches.path(), &error),
        })?;
    let bytes = header.as_bytes();
    if bytes.iter().all(|b| *b == 0) {
        return Ok(None);
    }
    let sum: u32 = bytes
        .iter()
        .enumerate()
        .map(|(i, b)| u32::from(if (148..156).contains(&i) { b' ' } else { *b }))
        .sum();
    if header.cksum().ok() != Some(sum) {
        return Err(Error::invalid(
            stretches.path().display().to_string(),
            if offset == 0 {
                "is no tar archive"
            } else {
                "is corrupt: an entry's header has a wrong checksum"
            },
        ));
    }
    Ok(Some(header))
}

fn start_of(stretches: &Stretches, offset: u64, size: u64) -> Result<[u8; 4]> {
    let mut start = [0; 4];
    let length = size.min(4);
    let target = usize::try_from(length)
        .ok()
        .and_then(|length| start.get_mut(..length));
    if let Some(target) = target {
        stretches
            .read(offset, length)?
            .read_exact(target)
            .map_err(|error| corrupt(stretches.path(), &error))?;
    }
    Ok(start)
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
