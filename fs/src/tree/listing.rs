//! Listing folders: by handle, or by number where the kernel opens folders by itself.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use lru::LruCache;
use parking_lot::Mutex;
use pcocc_layers::squashfs::InodeNo;

use crate::errno::{Errno, errno_of};
use crate::naming::Place;
use crate::staging::Item;
use crate::tree::files::{Caching, Handle};
use crate::tree::look::{Attributes, Kind, image_node, rootfs_attributes};
use crate::tree::node::{Fixed, Node, Part, Side};
use crate::tree::rootfs::OpenRootfs;
use crate::tree::{ALWAYS, Tree};

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

impl Listing {
    fn len(&self) -> usize {
        self.names.get().map_or(0, Vec::len)
    }
}

/// Bits of an offset that are the place in a listing; the others tell which listing.
const INDEX_BITS: u32 = 32;

/// Names kept in listings of folders that the kernel opened by itself.
const KEPT_NAMES: usize = 1 << 17;

/// Number of a folder and of its listing.
type ListingKey = (u64, u64);

/// The listings being read of folders that the kernel opened by itself, those read last kept.
#[derive(Debug)]
pub(super) struct Listings {
    recent: Mutex<(LruCache<ListingKey, Arc<Listing>>, usize)>,
    last: AtomicU64,
}

impl Default for Listings {
    fn default() -> Self {
        Self {
            recent: Mutex::new((LruCache::unbounded(), 0)),
            last: AtomicU64::new(0),
        }
    }
}

impl Listings {
    /// A number for one more listing.
    fn next(&self) -> u64 {
        // So that an offset is not negative for the kernel.
        const MOST: u64 = (1 << 30) - 1;
        self.last.fetch_add(1, Ordering::Relaxed) % MOST + 1
    }

    fn get(&self, key: ListingKey) -> Option<Arc<Listing>> {
        self.recent.lock().0.get(&key).cloned()
    }

    fn put(&self, key: ListingKey, listing: &Arc<Listing>) {
        let mut recent = self.recent.lock();
        let (listings, names) = &mut *recent;
        *names += listing.len();
        if let Some((_, before)) = listings.push(key, Arc::clone(listing)) {
            *names -= before.len();
        }
        while *names > KEPT_NAMES && listings.len() > 1 {
            if let Some((_, oldest)) = listings.pop_lru() {
                *names -= oldest.len();
            }
        }
    }

    fn drop_listing(&self, key: ListingKey) {
        let mut recent = self.recent.lock();
        if let Some(listing) = recent.0.pop(&key) {
            recent.1 -= listing.len();
        }
    }
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

impl Tree {
    /// Opens a folder: its names as they are now.
    pub fn open_dir(&self, number: u64) -> Result<(u64, Caching), Errno> {
        let node = self.node(number)?;
        let caching = match node {
            Node::RootfsFile(..) => Caching::Keep,
            _ => Caching::Refresh,
        };
        // Opening is no reading: tools open folders to change what is in them, and the blobs' names may
        // cost an export; the kernel still knows the names of root file systems.
        let later = matches!(node, Node::Part(_, Part::Sha256) | Node::RootfsFile(..));
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
        self.names_in(&listing)?;
        self.hand_on(&listing, 0, offset, attributes, take)
    }

    /// The same for a folder that the kernel opened by itself: below `rootfs`. An offset tells the listing
    /// it belongs to, which stays as it is until it was read to its end.
    pub fn read_open_dir(
        &self,
        number: u64,
        offset: u64,
        attributes: bool,
        take: &mut dyn FnMut(DirItem<'_>) -> bool,
    ) -> Result<(), Errno> {
        let node = self.node(number)?;
        let (generation, start) = (offset >> INDEX_BITS, offset & ((1 << INDEX_BITS) - 1));
        let generation = match node {
            // They never change.
            Node::RootfsFile(..) => 0,
            _ if start == 0 => self.listings.next(),
            _ => generation,
        };
        let key = (number, generation);
        let listing = match self.listings.get(key) {
            Some(listing) => listing,
            None => {
                let listing = Arc::new(Listing {
                    number,
                    node,
                    names: OnceLock::new(),
                });
                self.names_in(&listing)?;
                self.listings.put(key, &listing);
                listing
            }
        };
        if start >= listing.len() as u64 {
            self.listings.drop_listing(key);
            return Ok(());
        }
        self.hand_on(&listing, generation << INDEX_BITS, start, attributes, take)
    }

    fn hand_on(
        &self,
        listing: &Listing,
        base: u64,
        offset: u64,
        attributes: bool,
        take: &mut dyn FnMut(DirItem<'_>) -> bool,
    ) -> Result<(), Errno> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let mut system: Option<Arc<OpenRootfs>> = None;
        let names = listing.names.get().into_iter().flatten();
        for (place, (name, kind, listed)) in names.enumerate().skip(start) {
            let mut item = DirItem {
                number: 0,
                next: base + place as u64 + 1,
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
                Listed::Node(node @ Node::RootfsFile(number, inode)) if attributes => {
                    let open = match &system {
                        Some(open) => open,
                        // All names of a folder are in one file system.
                        None => system.insert(self.rootfs.get(*number)?),
                    };
                    let found = open.squashfs.attributes(*inode);
                    let found = found.map_err(|error| errno_of(&error.into()))?;
                    item.number = self.inodes.number(node);
                    item.attributes = Some((rootfs_attributes(item.number, &found), ALWAYS));
                    if take(item) {
                        return Ok(());
                    }
                    open.remember();
                }
                Listed::Node(node) if attributes => {
                    let described = self.describe_now(node);
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
}

fn list_rootfs(open: &OpenRootfs, inode: InodeNo) -> Result<Vec<Named>, Errno> {
    let entries = open.squashfs.read_dir(inode);
    let entries = entries.map_err(|error| errno_of(&error.into()))?;
    Ok(entries
        .into_iter()
        .map(|entry| {
            let node = Node::RootfsFile(open.number, entry.inode);
            (entry.name, entry.file_type, node)
        })
        .collect())
}
