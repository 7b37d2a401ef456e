//! The files of a container: the image's, and added ones.
//!
//! Added entries hide the image's entries of the same name. They are few and kept by folder; a folder without
//! added entries is answered from the squashfs alone.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use pcocc_layers::Error;
use pcocc_layers::squashfs::{FileType, InodeNo, Squashfs};

/// Symbolic links followed on the way to one file, as in the kernel.
const MAX_LINKS: u32 = 40;

/// Why a path in a container cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TreeError {
    /// The image cannot be read.
    #[error(transparent)]
    Image(#[from] Error),
    /// A component of the path is not a folder.
    #[error("{} is not a folder in the image", .0.display())]
    NotAFolder(PathBuf),
    /// A folder is at the path of a file.
    #[error("{} is a folder in the image", .0.display())]
    IsAFolder(PathBuf),
    /// Links lead to each other.
    #[error("{} has too many symbolic links on its way in the image", .0.display())]
    Loop(PathBuf),
}

/// A file or folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Found {
    /// A file or folder of the image.
    Image(InodeNo, FileType),
    /// An added file or folder, by its number.
    Added(usize),
}

/// An added file or folder.
#[derive(Clone, Debug)]
pub(super) enum Added {
    Folder { parent: NodeId },
    File { content: Vec<u8>, mode: u16 },
}

/// Identity of a file or folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum NodeId {
    Image(InodeNo),
    Added(usize),
}

type Names = BTreeMap<Box<[u8]>, usize>;

/// A name in a folder, and its file or folder.
pub(super) type Named = (Box<[u8]>, Found);

/// The files of a container, as the kernel sees them.
#[derive(Debug)]
pub struct RootTree {
    pub(super) squashfs: Squashfs,
    pub(super) top: InodeNo,
    /// Owner of added files.
    pub(super) owner: (u32, u32),
    pub(super) added: Vec<Added>,
    names: HashMap<NodeId, Names>,
}

impl RootTree {
    /// The folder `top` of `squashfs` as root. Added files belong to `owner`, a user and a group.
    pub fn new(squashfs: Squashfs, top: InodeNo, owner: (u32, u32)) -> Self {
        Self {
            squashfs,
            top,
            owner,
            added: Vec::new(),
            names: HashMap::new(),
        }
    }

    /// The absolute path that `path` leads to, links followed. Missing components are taken literally. `..` and
    /// absolute links never lead out of the tree.
    pub fn resolve(&self, path: &Path) -> Result<(PathBuf, Option<Found>), TreeError> {
        let mut left: Vec<OsString> = parts(path);
        let mut resolved: Vec<(OsString, Option<Found>)> = Vec::new();
        let mut links = 0;
        while let Some(name) = left.pop() {
            if name == ".." {
                resolved.pop();
                continue;
            }
            let here = match resolved.last() {
                None => Some(Found::Image(self.top, FileType::Directory)),
                Some((_, found)) => *found,
            };
            let found = match here {
                None => None,
                Some(here) => match self.folder_id(here) {
                    Some(folder) => self.lookup(folder, name.as_bytes())?,
                    None => {
                        let upto: PathBuf = resolved.iter().map(|(name, _)| name).collect();
                        return Err(TreeError::NotAFolder(Path::new("/").join(upto)));
                    }
                },
            };
            if let Some(Found::Image(inode, FileType::Symlink)) = found {
                links += 1;
                if links > MAX_LINKS {
                    return Err(TreeError::Loop(path.to_owned()));
                }
                let target = PathBuf::from(OsString::from_vec(self.squashfs.read_link(inode)?));
                if target.is_absolute() {
                    resolved.clear();
                }
                left.extend(parts(&target));
                continue;
            }
            resolved.push((name, found));
        }
        let found = match resolved.last() {
            None => Some(Found::Image(self.top, FileType::Directory)),
            Some((_, found)) => *found,
        };
        let path: PathBuf = resolved.into_iter().map(|(name, _)| name).collect();
        Ok((Path::new("/").join(path), found))
    }

    /// Content of the regular file `path`, at most `most` bytes; `None` when there is no such file.
    pub fn read_file(&self, path: &Path, most: u64) -> Result<Option<Vec<u8>>, TreeError> {
        match self.resolve(path)?.1 {
            Some(Found::Image(inode, FileType::Regular)) => {
                let size = self.squashfs.attributes(inode)?.size;
                if size > most {
                    let what = path.display().to_string();
                    return Err(Error::invalid(what, "is too large to be what it is called").into());
                }
                let mut content = vec![0; size as usize];
                let read = self.squashfs.read_at(inode, 0, &mut content)?;
                content.truncate(read);
                Ok(Some(content))
            }
            Some(Found::Added(number)) => Ok(match self.added.get(number) {
                Some(Added::File { content, .. }) => Some(content.clone()),
                _ => None,
            }),
            _ => Ok(None),
        }
    }

    /// Makes sure that a folder is at `path`; returns the path without links.
    pub fn ensure_folder(&mut self, path: &Path) -> Result<PathBuf, TreeError> {
        let (path, found) = self.resolve(path)?;
        match found {
            Some(found) if self.folder_id(found).is_some() => Ok(path),
            Some(_) => Err(TreeError::NotAFolder(path)),
            None => {
                let (parent, name) = self.parent_of(&path)?;
                self.add(parent, &name, Added::Folder { parent });
                Ok(path)
            }
        }
    }

    /// Makes sure that something other than a folder is at `path`, if need be an empty file; returns the path
    /// without links.
    pub fn ensure_file(&mut self, path: &Path) -> Result<PathBuf, TreeError> {
        let (path, found) = self.resolve(path)?;
        match found {
            Some(found) if self.folder_id(found).is_some() => Err(TreeError::IsAFolder(path)),
            Some(_) => Ok(path),
            None => self.put_file(&path, Vec::new(), 0o644),
        }
    }

    /// Puts a file at `path`, in place of any entry but a folder; the entry may be a link.
    pub fn put_file(
        &mut self,
        path: &Path,
        content: Vec<u8>,
        mode: u16,
    ) -> Result<PathBuf, TreeError> {
        let (path, found) = self.resolve(path)?;
        if found.is_some_and(|found| self.folder_id(found).is_some()) {
            return Err(TreeError::IsAFolder(path));
        }
        let (parent, name) = self.parent_of(&path)?;
        self.add(parent, &name, Added::File { content, mode });
        Ok(path)
    }

    fn add(&mut self, parent: NodeId, name: &[u8], what: Added) {
        let number = self.added.len();
        self.added.push(what);
        self.names
            .entry(parent)
            .or_default()
            .insert(name.into(), number);
    }

    /// The parent folder of the resolved `path`, made with all above it if missing, and the last name.
    fn parent_of(&mut self, path: &Path) -> Result<(NodeId, Vec<u8>), TreeError> {
        let mut names = parts(path);
        let mut folder = NodeId::Image(self.top);
        while let Some(name) = names.pop() {
            if names.is_empty() {
                return Ok((folder, name.into_vec()));
            }
            let next = match self.lookup(folder, name.as_bytes())? {
                Some(found) => self.folder_id(found),
                None => {
                    self.add(folder, name.as_bytes(), Added::Folder { parent: folder });
                    Some(NodeId::Added(self.added.len() - 1))
                }
            };
            folder = next.ok_or_else(|| TreeError::NotAFolder(path.to_owned()))?;
        }
        // The path is the root: it is a folder and has no parent.
        Err(TreeError::IsAFolder(path.to_owned()))
    }

    /// The identity of a folder; `None` for other files.
    pub(super) fn folder_id(&self, found: Found) -> Option<NodeId> {
        match found {
            Found::Image(inode, FileType::Directory) => Some(NodeId::Image(inode)),
            Found::Image(..) => None,
            Found::Added(number) => match self.added.get(number)? {
                Added::Folder { .. } => Some(NodeId::Added(number)),
                Added::File { .. } => None,
            },
        }
    }

    pub(super) fn lookup(&self, folder: NodeId, name: &[u8]) -> Result<Option<Found>, Error> {
        if let Some(number) = self.names.get(&folder).and_then(|names| names.get(name)) {
            return Ok(Some(Found::Added(*number)));
        }
        match folder {
            NodeId::Added(_) => Ok(None),
            NodeId::Image(inode) => {
                let entry = self.squashfs.lookup(inode, name)?;
                Ok(entry.map(|entry| Found::Image(entry.inode, entry.file_type)))
            }
        }
    }

    /// All names in a folder, in no order.
    pub(super) fn list(&self, folder: NodeId) -> Result<Vec<Named>, Error> {
        let added = self.names.get(&folder);
        let mut names = Vec::new();
        if let NodeId::Image(inode) = folder {
            for entry in self.squashfs.read_dir(inode)? {
                if added.is_none_or(|added| !added.contains_key(&entry.name)) {
                    names.push((entry.name, Found::Image(entry.inode, entry.file_type)));
                }
            }
        }
        let more = added.into_iter().flatten();
        names.extend(more.map(|(name, number)| (name.clone(), Found::Added(*number))));
        Ok(names)
    }
}

/// The components of a path, last first, as they are taken from the end.
fn parts(path: &Path) -> Vec<OsString> {
    path.components()
        .rev()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            _ => None,
        })
        .collect()
}
