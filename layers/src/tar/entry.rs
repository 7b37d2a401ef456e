//! One entry: header and extension records put together.

use tar::{EntryType, Header};

use super::error::{TarError, invalid};
use super::header::{Block, number, until_nul};
use super::pax::{self, Records};
use super::sparse::{PaxSparse, Segments};

/// One file of the archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name, in the archive's own bytes.
    pub path: Vec<u8>,
    /// Target of a hard or symbolic link, else empty.
    pub link: Vec<u8>,
    /// Kind of file; a sparse file is [`EntryType::Regular`].
    pub kind: EntryType,
    /// Permissions, with set-user-ID, set-group-ID and sticky bit.
    pub mode: u32,
    /// Owner.
    pub uid: i64,
    /// Group.
    pub gid: i64,
    /// Modification time, in seconds since 1970.
    pub mtime: i64,
    /// Major and minor number of a device.
    pub device: (u32, u32),
    /// Length of the file in bytes, holes included.
    pub size: u64,
    /// Where the stored content of a sparse file belongs, as (offset, length) in ascending order; `None` for a
    /// file that is not sparse.
    pub segments: Option<Vec<(u64, u64)>>,
    /// Extended attributes by their names.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// The extension records in front of an entry.
#[derive(Default)]
pub(super) struct Extensions {
    long_path: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
    pax: Records,
}

impl Extensions {
    pub(super) fn is_empty(&self) -> bool {
        self.long_path.is_none() && self.long_link.is_none() && self.pax.is_empty()
    }

    /// Takes one record: pax records, or a long name.
    pub(super) fn take(&mut self, kind: EntryType, record: &[u8]) -> Result<(), TarError> {
        match kind {
            EntryType::GNULongName => self.long_path = Some(until_nul(record).to_vec()),
            EntryType::GNULongLink => self.long_link = Some(until_nul(record).to_vec()),
            _ => self.pax = pax::records(record)?,
        }
        Ok(())
    }
}

impl Entry {
    /// Combines a header with its extension records; the caller reads the sparse map of pax records.
    pub(super) fn new(
        block: &Block,
        extensions: Extensions,
    ) -> Result<(Self, PaxSparse), TarError> {
        let header = Header::from_byte_slice(block);
        let link = || header.link_name_bytes().map(|link| link.into_owned());
        let mut entry = Self {
            path: extensions
                .long_path
                .unwrap_or_else(|| header.path_bytes().into_owned()),
            link: extensions.long_link.or_else(link).unwrap_or_default(),
            kind: header.entry_type(),
            mode: number(&block[100..108])? as u32 & 0o7777,
            uid: number(&block[108..116])?,
            gid: number(&block[116..124])?,
            mtime: number(&block[136..148])?,
            device: (
                number(&block[329..337]).unwrap_or(0) as u32,
                number(&block[337..345]).unwrap_or(0) as u32,
            ),
            size: super::header::size(&block[124..136])?,
            segments: None,
            xattrs: Vec::new(),
        };
        let mut sparse = PaxSparse::default();
        for (key, value) in extensions.pax {
            entry.apply(&mut sparse, &key, value)?;
        }
        match entry.kind {
            EntryType::Regular | EntryType::Continuous if entry.path.ends_with(b"/") => {
                entry.kind = EntryType::Directory;
            }
            // Old tools write the target's size here, without content.
            EntryType::Link
            | EntryType::Symlink
            | EntryType::Directory
            | EntryType::Char
            | EntryType::Block
            | EntryType::Fifo => entry.size = 0,
            _ => {}
        }
        Ok((entry, sparse))
    }

    fn apply(
        &mut self,
        sparse: &mut PaxSparse,
        key: &[u8],
        value: Vec<u8>,
    ) -> Result<(), TarError> {
        if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
            self.xattrs.push((name.to_vec(), value));
            return Ok(());
        }
        // An empty value cancels the record.
        if value.is_empty() {
            return Ok(());
        }
        match key {
            b"path" => self.path = value,
            b"linkpath" => self.link = value,
            b"uid" => self.uid = pax::decimal(&value)?,
            b"gid" => self.gid = pax::decimal(&value)?,
            b"mtime" => self.mtime = pax::seconds(&value)?,
            b"size" => match u64::try_from(pax::decimal(&value)?) {
                Ok(size) => self.size = size,
                Err(_) => return invalid("has an entry of negative size"),
            },
            _ => sparse.apply(key, value)?,
        }
        Ok(())
    }

    /// Makes the entry a sparse file of `size` bytes; the real name of a pax sparse file is in a record.
    pub(super) fn spread(&mut self, segments: Segments, size: u64, name: Option<Vec<u8>>) {
        self.kind = EntryType::Regular;
        self.segments = Some(segments);
        self.size = size;
        self.path = name.unwrap_or(std::mem::take(&mut self.path));
    }
}
