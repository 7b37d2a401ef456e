//! The attributes of a file or folder, as `stat` shows them.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pcocc_layers::squashfs::{self, FileType};

/// Validity of attributes that never change.
pub(crate) const ALWAYS: Duration = Duration::from_secs(365 * 24 * 3600);

/// The attributes that `stat` shows.
#[derive(Clone, Copy, Debug)]
pub struct Attributes {
    /// Inode number; 0 until the inode is known.
    pub number: u64,
    /// Kind of file.
    pub kind: FileType,
    /// Permission bits.
    pub mode: u16,
    /// Owner and group.
    pub owner: (u32, u32),
    /// Length in bytes.
    pub size: u64,
    /// Units of 512 bytes.
    pub blocks: u64,
    /// Number of names.
    pub links: u32,
    /// Device number.
    pub device: u32,
    /// Time of the last change of the content.
    pub modified: SystemTime,
    /// Time of the last change of content or attributes.
    pub changed: SystemTime,
}

impl Attributes {
    /// A folder.
    pub fn folder(owner: (u32, u32), mode: u16, modified: SystemTime) -> Self {
        Self {
            number: 0,
            kind: FileType::Directory,
            mode,
            owner,
            size: 0,
            blocks: 0,
            // One link means that the number of folders inside is unknown.
            links: 1,
            device: 0,
            modified,
            changed: modified,
        }
    }

    /// A regular file of `size` bytes.
    pub fn file(owner: (u32, u32), mode: u16, size: u64, modified: SystemTime) -> Self {
        Self {
            kind: FileType::Regular,
            size,
            blocks: size.div_ceil(512),
            ..Self::folder(owner, mode, modified)
        }
    }

    /// A file in an image.
    pub fn in_image(found: &squashfs::Attributes) -> Self {
        let modified = since_1970(found.mtime.into());
        Self {
            number: 0,
            kind: found.file_type,
            mode: found.mode,
            owner: (found.uid, found.gid),
            size: found.size,
            blocks: found.blocks,
            links: found.nlink,
            device: found.rdev,
            modified,
            changed: modified,
        }
    }

    /// The same attributes with an inode number.
    pub fn numbered(self, number: u64) -> Self {
        Self { number, ..self }
    }
}

/// Name and value of an extended attribute.
pub type ExtendedAttribute = (Vec<u8>, Vec<u8>);

/// The names among `attributes`, each ended by a zero byte.
pub(crate) fn names_of(attributes: Vec<ExtendedAttribute>) -> Vec<u8> {
    let ended = attributes
        .into_iter()
        .map(|(name, _)| [&*name, b"\0"].concat());
    ended.collect::<Vec<_>>().concat()
}

/// The value of the attribute `name`.
pub(crate) fn value_of(attributes: Vec<ExtendedAttribute>, name: &OsStr) -> Option<Vec<u8>> {
    let mut found = attributes.into_iter();
    found.find_map(|(known, value)| (known == name.as_bytes()).then_some(value))
}

/// Whether no file here can have such an attribute. `ls -l` asks for access control lists file by file until
/// the file system says that it has none.
pub(crate) fn is_unsupported(name: &OsStr) -> bool {
    name.as_bytes().starts_with(b"system.")
}

/// The time so many seconds after 1970.
pub(crate) fn since_1970(seconds: u64) -> SystemTime {
    UNIX_EPOCH
        .checked_add(Duration::from_secs(seconds))
        .unwrap_or(UNIX_EPOCH)
}
