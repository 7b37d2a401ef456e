//! Opening and reading: files, folders, and the table of handles.

use std::collections::HashMap;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use pcocc_image::squashfs::InodeNo;

use crate::errno::{Errno, errno_of, errno_of_io};
use crate::naming::Place;
use crate::process::Process;
use crate::staging::{Item, Staged, StagedFile};
use crate::sync::lock;
use crate::tree::images::{BlobFile, Content};
use crate::tree::look::{Attributes, Kind, image_node};
use crate::tree::node::{Fixed, ImageKey, Node, Part, Side};
use crate::tree::rootfs::OpenRootfs;
use crate::tree::{ALWAYS, Tree};

/// An open file or folder.
#[derive(Clone, Debug)]
pub(super) enum Handle {
    Bytes(Arc<[u8]>),
    Blob(Arc<BlobFile>),
    /// A part of an image that has just come in: looked for in its store when it is read.
    Later(Arc<Later>),
    Rootfs(Arc<OpenRootfs>, InodeNo),
    Folder(Arc<Listing>),
    Staged {
        image: Arc<Staged>,
        file: Arc<StagedFile>,
        writable: bool,
    },
    /// A part of an image written once more; kept only to see that it stays the same.
    Rewrite {
        image: ImageKey,
        part: Part,
        file: Arc<StagedFile>,
    },
}

/// What tools open only to change its mode shall not have the image exported.
#[derive(Debug)]
pub(super) struct Later {
    image: ImageKey,
    part: Part,
    content: OnceLock<Content>,
}

/// The open handles by number.
#[derive(Debug, Default)]
pub(super) struct Handles {
    open: Mutex<HashMap<u64, Handle>>,
    last: AtomicU64,
}

impl Handles {
    pub(super) fn len(&self) -> usize {
        lock(&self.open).len()
    }

    pub(super) fn reserve(&self) -> u64 {
        self.last.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(super) fn insert(&self, number: u64, handle: Handle) {
        lock(&self.open).insert(number, handle);
    }

    pub(super) fn add(&self, handle: Handle) -> u64 {
        let number = self.reserve();
        self.insert(number, handle);
        number
    }

    pub(super) fn get(&self, number: u64) -> Result<Handle, Errno> {
        lock(&self.open).get(&number).cloned().ok_or(Errno::BADF)
    }

    fn remove(&self, number: u64) -> Option<Handle> {
        lock(&self.open).remove(&number)
    }
}

/// What a name in a listing is.
#[derive(Clone, Debug)]
enum Listed {
    Node(Node),
    /// `.` and `..`, which the kernel takes no reference to.
    Dots(u64),
}

/// A name in a folder and what it stands for.
type Named = (Box<[u8]>, Kind, Node);

type Names = Vec<(Box<[u8]>, Kind, Listed)>;

/// The names of a folder as they were when it was opened, or first read.
#[derive(Debug)]
pub struct Listing {
    number: u64,
    node: Node,
    names: OnceLock<Names>,
}

/// A name handed to the kernel.
#[derive(Debug)]
pub struct DirItem<'a> {
    /// Inode number.
    pub number: u64,
    /// Where the next read goes on.
    pub next: u64,
    /// What it is.
    pub kind: Kind,
    /// The name.
    pub name: &'a [u8],
    /// Attributes and how long they hold, when they were asked for.
    pub attributes: Option<(Attributes, Duration)>,
}

/// How the kernel may cache an opened file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caching {
    /// Its content may have changed since it was last opened.
    Refresh,
    /// Its content never changes.
    Keep,
    /// Its size is only known once it is read.
    Direct,
}

impl Tree {
    /// Opens a file.
    pub fn open(
        &self,
        number: u64,
        write: bool,
        truncate: bool,
        thread: u32,
    ) -> Result<(u64, Caching), Errno> {
        match self.node(number)? {
            Node::StagedFile(image, file) => {
                let handle = self.handles.reserve();
                if !write {
                    file.attach()?;
                } else {
                    let _state = image.touch(Some(Process::of_thread(thread)))?;
                    file.attach()?;
                    if truncate {
                        file.truncate(0)?;
                    }
                    file.opened(handle);
                    image.changed();
                }
                self.handles.insert(
                    handle,
                    Handle::Staged {
                        image,
                        file,
                        writable: write,
                    },
                );
                Ok((handle, Caching::Refresh))
            }
            Node::Part(key, part) if write => Ok((
                self.rewrite(&key, part).ok_or(Errno::ROFS)?,
                Caching::Direct,
            )),
            _ if write => Err(Errno::ROFS),
            Node::Fixed(fixed) => {
                let content = self.fixed_content(fixed).ok_or(Errno::ISDIR)?;
                let handle = self.handles.add(Handle::Bytes(content.into()));
                Ok((handle, Caching::Direct))
            }
            Node::Part(key, part)
                if self.images.peek(&key).is_some_and(|view| {
                    !view.is_final() && view.size(part).is_some() && matches!(part, Part::Blob(_))
                }) =>
            {
                let later = Later {
                    image: key,
                    part,
                    content: OnceLock::new(),
                };
                let handle = self.handles.add(Handle::Later(Arc::new(later)));
                Ok((handle, Caching::Direct))
            }
            Node::Part(key, part) => {
                let view = self
                    .images
                    .open(&key, self.view(key.store)?, &self.status)?;
                let (handle, caching) = match view.open(part)? {
                    // What was told of an image just committed may not be what its store makes of it.
                    Content::Bytes(bytes) => (Handle::Bytes(bytes), Caching::Direct),
                    Content::Blob(blob) => (Handle::Blob(blob), Caching::Keep),
                };
                Ok((self.handles.add(handle), caching))
            }
            Node::RootfsFile(system, inode) => {
                let open = self.rootfs.get(system)?;
                Ok((self.handles.add(Handle::Rootfs(open, inode)), Caching::Keep))
            }
            Node::Names(..) | Node::Image(_) | Node::RootfsImage(_) | Node::StagedDir(..) => {
                Err(Errno::ISDIR)
            }
        }
    }

    /// Whether reading through this handle first looks for its content.
    pub fn read_may_wait(&self, handle: u64) -> bool {
        matches!(self.handles.get(handle), Ok(Handle::Later(later)) if later.content.get().is_none())
    }

    /// An open handle, its content found.
    pub(super) fn ready(&self, handle: u64) -> Result<Handle, Errno> {
        let Handle::Later(later) = self.handles.get(handle)? else {
            return self.handles.get(handle);
        };
        let content = match later.content.get() {
            Some(content) => content,
            None => {
                let store = self.view(later.image.store)?;
                let view = self.images.open(&later.image, store, &self.status)?;
                // The store may have made other blobs of it.
                let found = view.open(later.part).map_err(|_| Errno::STALE)?;
                later.content.get_or_init(|| found)
            }
        };
        Ok(match content {
            Content::Bytes(bytes) => Handle::Bytes(Arc::clone(bytes)),
            Content::Blob(blob) => Handle::Blob(Arc::clone(blob)),
        })
    }

    /// Reads from an open file into `buffer`; returns how much there was.
    pub fn read(&self, handle: u64, offset: u64, buffer: &mut [u8]) -> Result<usize, Errno> {
        match self.ready(handle)? {
            Handle::Bytes(bytes) => {
                let start = usize::try_from(offset)
                    .unwrap_or(usize::MAX)
                    .min(bytes.len());
                let rest = bytes.get(start..).unwrap_or_default();
                let n = rest.len().min(buffer.len());
                if let (Some(to), Some(from)) = (buffer.get_mut(..n), rest.get(..n)) {
                    to.copy_from_slice(from);
                }
                Ok(n)
            }
            Handle::Blob(blob) => {
                let mut done = 0;
                while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
                    match blob.file.read_at(rest, offset + done as u64) {
                        Ok(0) => break,
                        Ok(n) => done += n,
                        Err(error) => return Err(errno_of_io(&error)),
                    }
                }
                Ok(done)
            }
            Handle::Rootfs(open, inode) => open
                .squashfs
                .read_at(inode, offset, buffer)
                .map_err(|error| errno_of(&error)),
            Handle::Staged { file, .. } | Handle::Rewrite { file, .. } => file
                .read_at(buffer, offset)
                .map_err(|error| errno_of_io(&error)),
            Handle::Folder(_) => Err(Errno::ISDIR),
            Handle::Later(_) => Err(Errno::BADF),
        }
    }

    /// Opens a folder: its names as they are now.
    pub fn open_dir(&self, number: u64) -> Result<(u64, Caching), Errno> {
        let node = self.node(number)?;
        let caching = match node {
            Node::RootfsFile(..) => Caching::Keep,
            _ => Caching::Refresh,
        };
        // Opening is no reading: tools open folders to change what is in them, and the blobs' names may
        // cost an export.
        let later = matches!(node, Node::Part(_, Part::Sha256));
        let listing = Listing {
            number,
            node,
            names: OnceLock::new(),
        };
        if !later {
            self.names_in(&listing)?;
        }
        let handle = self.handles.add(Handle::Folder(Arc::new(listing)));
        Ok((handle, caching))
    }

    /// Whether reading through this handle first lists a folder that may wait for a store.
    pub fn read_dir_may_wait(&self, handle: u64) -> bool {
        matches!(self.handles.get(handle), Ok(Handle::Folder(listing)) if listing.names.get().is_none())
    }

    fn names_in<'a>(&self, listing: &'a Listing) -> Result<&'a Names, Errno> {
        if let Some(names) = listing.names.get() {
            return Ok(names);
        }
        let dots = |name: &[u8]| (name.into(), Kind::Directory, Listed::Dots(listing.number));
        let mut names = vec![dots(b"."), dots(b"..")];
        for (name, kind, node) in self.list(&listing.node)? {
            names.push((name, kind, Listed::Node(node)));
        }
        Ok(listing.names.get_or_init(|| names))
    }

    fn list(&self, node: &Node) -> Result<Vec<Named>, Errno> {
        let mut found: Vec<Named> = Vec::new();
        let mut add = |name: &str, kind, node| found.push((name.as_bytes().into(), kind, node));
        match node {
            Node::Fixed(fixed) => self.list_fixed(*fixed, &mut add)?,
            Node::Names(side, store, path) => {
                let listing = self.view(*store)?.names()?;
                let mut taken = Vec::new();
                if *side == Side::Images {
                    self.collect_abandoned(None);
                    for (name, node) in self.staging.below(*store, path) {
                        add(&name, Kind::Directory, node);
                        taken.push(name);
                    }
                }
                for (name, place) in listing.children(path).into_iter().flatten() {
                    if taken.contains(name) {
                        continue;
                    }
                    let node = match place {
                        Place::Folder => {
                            let path = crate::naming::join(path, name);
                            Node::Names(*side, *store, path.as_str().into())
                        }
                        Place::Image(entry) => image_node(*side, *store, entry),
                    };
                    add(name, Kind::Directory, node);
                }
            }
            Node::Image(key) => {
                // The index comes last: tools that copy in this order finish with it.
                for (name, kind, part) in [
                    ("oci-layout", Kind::Regular, Part::Marker),
                    ("blobs", Kind::Directory, Part::Blobs),
                    ("index.json", Kind::Regular, Part::Index),
                ] {
                    if !self.staging.is_hidden(key, part) {
                        add(name, kind, Node::Part(key.clone(), part));
                    }
                }
            }
            Node::Part(key, Part::Blobs) => {
                if !self.staging.is_hidden(key, Part::Sha256) {
                    add(
                        "sha256",
                        Kind::Directory,
                        Node::Part(key.clone(), Part::Sha256),
                    );
                }
            }
            Node::Part(key, Part::Sha256) => {
                // An image whose removal has begun is not exported for it. Otherwise the blobs are those
                // the store gives out, which may be compressed otherwise than those it was given.
                if !self.staging.is_going(key) {
                    let view = self.images.open(key, self.view(key.store)?, &self.status)?;
                    for (digest, _) in view.blobs() {
                        let part = Part::Blob(digest);
                        if !self.staging.is_hidden(key, part) {
                            add(&digest.hex(), Kind::Regular, Node::Part(key.clone(), part));
                        }
                    }
                }
            }
            Node::StagedDir(image, path) => {
                let prefix = if path.is_empty() {
                    String::new()
                } else {
                    format!("{path}/")
                };
                for (below, item) in &image.state().items {
                    let Some(name) = below.strip_prefix(&prefix) else {
                        continue;
                    };
                    if name.is_empty() || name.contains('/') {
                        continue;
                    }
                    match item {
                        Item::Dir => add(
                            name,
                            Kind::Directory,
                            Node::StagedDir(Arc::clone(image), below.as_str().into()),
                        ),
                        Item::File(file) => add(
                            name,
                            Kind::Regular,
                            Node::StagedFile(Arc::clone(image), Arc::clone(file)),
                        ),
                    }
                }
            }
            Node::RootfsImage(key) => {
                let open = self.open_rootfs(key)?;
                return list_rootfs(&open, open.top);
            }
            Node::RootfsFile(system, inode) => {
                return list_rootfs(&*self.rootfs.get(*system)?, *inode);
            }
            Node::Part(..) | Node::StagedFile(..) => return Err(Errno::NOTDIR),
        }
        Ok(found)
    }

    fn list_fixed(&self, fixed: Fixed, add: &mut dyn FnMut(&str, Kind, Node)) -> Result<(), Errno> {
        let mut stores = |side| {
            for (store, view) in self.stores.iter().enumerate() {
                if Some(store) != self.docker {
                    add(
                        &view.label,
                        Kind::Directory,
                        Node::Names(side, store, "".into()),
                    );
                }
            }
        };
        match fixed {
            Fixed::Repo => stores(Side::Images),
            Fixed::RootfsRepo => stores(Side::Rootfs),
            Fixed::Root | Fixed::Rootfs => {
                let side = if fixed == Fixed::Root {
                    add("README", Kind::Regular, Node::Fixed(Fixed::Readme));
                    add(".pcocc", Kind::Directory, Node::Fixed(Fixed::Pcocc));
                    Side::Images
                } else {
                    Side::Rootfs
                };
                if let Some(docker) = self.docker {
                    add(
                        "docker",
                        Kind::Directory,
                        Node::Names(side, docker, "".into()),
                    );
                }
                if fixed == Fixed::Root {
                    add("repo", Kind::Directory, Node::Fixed(Fixed::Repo));
                    add("rootfs", Kind::Directory, Node::Fixed(Fixed::Rootfs));
                } else {
                    add("repo", Kind::Directory, Node::Fixed(Fixed::RootfsRepo));
                }
            }
            Fixed::Pcocc => add("status.json", Kind::Regular, Node::Fixed(Fixed::Status)),
            Fixed::Readme | Fixed::Status => return Err(Errno::NOTDIR),
        }
        Ok(())
    }

    /// Hands names from `offset` on to `take` until it says that it is full. With `attributes`, the
    /// kernel takes a reference to each inode that was taken.
    pub fn read_dir(
        &self,
        handle: u64,
        offset: u64,
        attributes: bool,
        take: &mut dyn FnMut(DirItem<'_>) -> bool,
    ) -> Result<(), Errno> {
        let Handle::Folder(listing) = self.handles.get(handle)? else {
            return Err(Errno::NOTDIR);
        };
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let names = self.names_in(&listing)?;
        for (place, (name, kind, listed)) in names.iter().enumerate().skip(start) {
            let next = place as u64 + 1;
            let mut item = DirItem {
                number: 0,
                next,
                kind: *kind,
                name,
                attributes: None,
            };
            match listed {
                Listed::Dots(number) => {
                    item.number = *number;
                    if attributes {
                        let node = Node::Fixed(Fixed::Root);
                        let (mut dots, _) = self.describe_now(&node);
                        dots.number = *number;
                        item.attributes = Some((dots, Duration::ZERO));
                    }
                    if take(item) {
                        return Ok(());
                    }
                }
                Listed::Node(node) if attributes => {
                    let described = match node {
                        Node::RootfsFile(..) => match self.describe(node) {
                            Ok((found, _)) => (found, ALWAYS),
                            Err(error) => return Err(error),
                        },
                        _ => self.describe_now(node),
                    };
                    item.number = self.tell(node);
                    let number = item.number;
                    item.attributes = Some((
                        Attributes {
                            number,
                            ..described.0
                        },
                        described.1,
                    ));
                    if take(item) {
                        self.forget(number, 1);
                        return Ok(());
                    }
                }
                Listed::Node(node) => {
                    item.number = self.inodes.number(node);
                    if take(item) {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    /// Closes a handle for good. Never completes a copy: nobody would hear of its failure.
    pub fn release(&self, handle: u64) {
        if let Some(Handle::Staged {
            image,
            file,
            writable,
        }) = self.handles.remove(handle)
        {
            if writable && !file.is_settled() {
                file.settled(handle);
                image.changed();
            }
            file.detach();
        }
    }
}

fn list_rootfs(open: &OpenRootfs, inode: InodeNo) -> Result<Vec<Named>, Errno> {
    let entries = open.squashfs.read_dir(inode);
    let entries = entries.map_err(|error| errno_of(&error))?;
    Ok(entries
        .into_iter()
        .map(|entry| {
            let node = Node::RootfsFile(open.number, entry.inode);
            (entry.name, entry.file_type, node)
        })
        .collect())
}

/// Room for images being copied in, in blocks.
#[derive(Clone, Copy, Debug)]
pub struct Space {
    /// All of it.
    pub blocks: u64,
    /// What is free.
    pub free: u64,
    /// Bytes in a block.
    pub block_size: u32,
}

impl Tree {
    /// The room there is: tools ask before they copy.
    pub fn space(&self) -> Space {
        match rustix::fs::statvfs(&*self.staging_dir) {
            Ok(found) => Space {
                blocks: found.f_blocks,
                free: found.f_bavail,
                block_size: u32::try_from(found.f_frsize).unwrap_or(4096),
            },
            Err(_) => Space {
                blocks: 0,
                free: 0,
                block_size: 4096,
            },
        }
    }
}
