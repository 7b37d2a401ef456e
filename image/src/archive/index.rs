//! The entries of a docker archive by name, with the offset of their content.
//!
//! One pass over the headers builds the index. Memory is bounded whatever the archive claims: extension headers
//! have a limit, and so has the number of entries.

use std::collections::HashMap;
use std::io::Read;

use pcocc_layers::tar::{EntryType, TarError, TarFile};

use super::stretch::{Stretches, truncated};
use crate::error::{Error, Result};
use crate::transfer::Context;

/// Most entries of an archive: enough for 1024 layers of every image of a large save.
const MAX_ENTRIES: usize = 100_000;

/// Most bytes of names that are kept of an archive: a compressed one of many long names is small.
const MAX_NAMES: usize = 64 << 20;

/// Links to links that are followed.
const MAX_LINKS: usize = 8;

/// A file's content within the archive.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extent {
    /// Offset of the first byte, in uncompressed bytes.
    pub(super) offset: u64,
    /// Its length.
    pub(super) size: u64,
    /// Its first bytes, filled up with zeros.
    pub(super) start: [u8; 4],
}

/// Joins the parts of a path within an archive, without empty parts, `.` and `..`; `None` when the path leaves
/// the archive.
pub fn fold<'a>(path: impl Iterator<Item = &'a str>) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for part in path {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

enum Named {
    File(Extent),
    Link(String),
}

/// The archive's entries by normalised name.
pub(super) struct Index {
    entries: HashMap<String, Named>,
    path: String,
}

impl Index {
    /// Reads all headers of the archive.
    pub(super) fn read(stretches: &Stretches, context: &Context) -> Result<Self> {
        let mut index = Self {
            entries: HashMap::new(),
            path: stretches.path().display().to_string(),
        };
        let failed = |error| match error {
            TarError::Read(error) => Error::io("read", stretches.path())(error),
            TarError::Truncated => truncated(stretches.path()),
            TarError::Invalid(why) => Error::invalid(stretches.path().display().to_string(), why),
        };
        let mut tar = TarFile::new(stretches);
        let (mut seen, mut names) = (0, 0_usize);
        while let Some(entry) = tar.next_entry().map_err(failed)? {
            context.check()?;
            seen += 1;
            if seen > MAX_ENTRIES {
                return Err(index.refuse(&format!("has more than {MAX_ENTRIES} entries")));
            }
            let name = lossy(&entry.path);
            let link = lossy(&entry.link);
            names = names.saturating_add(name.len() + link.len());
            if names > MAX_NAMES {
                return Err(index.refuse(&format!("has more than {MAX_NAMES} bytes of names")));
            }
            if entry.segments.is_some() {
                let shown = name.chars().take(200).collect::<String>();
                return Err(index.refuse(&format!("has the sparse entry {shown:?}")));
            }
            let named = match entry.kind {
                EntryType::Symlink => {
                    let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
                    Named::Link(format!("{folder}/{link}"))
                }
                EntryType::Link => Named::Link(link),
                EntryType::Regular | EntryType::Continuous => {
                    let offset = tar.offset();
                    let mut start = Vec::with_capacity(4);
                    (&mut tar)
                        .take(4)
                        .read_to_end(&mut start)
                        .map_err(|error| failed(error.into()))?;
                    start.resize(4, 0);
                    Named::File(Extent {
                        offset,
                        size: entry.size,
                        start: start.try_into().unwrap_or_default(),
                    })
                }
                _ => continue,
            };
            // Nothing in the archive can name an entry outside of it.
            if let Some(name) = fold(name.split('/')) {
                index.entries.insert(name, named);
            }
        }
        if seen == 0 {
            return Err(index.refuse("is no tar archive, or an empty one"));
        }
        Ok(index)
    }

    /// Finds a file by name, through links.
    pub(super) fn find(&self, name: &str) -> Result<Option<Extent>> {
        let shown = |name: &str| name.chars().take(200).collect::<String>();
        let mut target = name;
        for _ in 0..MAX_LINKS {
            let Some(normal) = fold(target.split('/')) else {
                return Err(self.refuse(&format!(
                    "names {:?}, which leads out of the archive",
                    shown(target)
                )));
            };
            match self.entries.get(&normal) {
                None => return Ok(None),
                Some(Named::File(extent)) => return Ok(Some(*extent)),
                Some(Named::Link(next)) => target = next,
            }
        }
        Err(self.refuse(&format!("has links in a circle at {:?}", shown(name))))
    }

    fn refuse(&self, why: &str) -> Error {
        Error::invalid(self.path.clone(), why)
    }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
