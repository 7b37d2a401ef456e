//! Finding and describing: lookup, attributes, extended attributes.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pcocc_image::store::Entry;
use pcocc_layers::Digest;
use pcocc_layers::squashfs::{self, FileType};

use crate::errno::{Errno, errno_of};
use crate::naming::{Place, StoreId, join};
use crate::staging::Item;
use crate::tree::node::{Fixed, ImageKey, Node, Part, Side};
use crate::tree::stores::StoreView;
use crate::tree::{ALWAYS, SOON, Tree};

/// The extended attribute that tells why the last copy failed.
pub const ERROR_ATTRIBUTE: &str = "user.pcocc.error";

/// What a file is.
pub type Kind = FileType;

/// What `stat` tells.
#[derive(Clone, Copy, Debug)]
pub struct Attributes {
    /// Inode number.
    pub number: u64,
    /// What it is.
    pub kind: Kind,
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
    /// Time of the last change of anything.
    pub changed: SystemTime,
}

/// Result of a lookup, and how long it holds.
#[derive(Clone, Copy, Debug)]
pub enum Looked {
    /// There is such a name. The kernel now knows the inode once more.
    Found(Attributes, Duration),
    /// There is no such name; the kernel need not ask again for that long.
    Missing(Duration),
}

/// Name and value of an extended attribute.
type Extended = (Vec<u8>, Vec<u8>);

/// The README at the top.
const README: &str = "\
Container images as folders. Each image is an OCI image layout.

  docker/        images of the docker daemon; copying one in loads it
  repo/NAME/     images of the repository NAME; copying one in imports it
  rootfs/        the same images as file trees, read only
  .pcocc/status.json   transfers now and lately, with errors

  cp -r repo/user/centos docker/work        export an image to docker
  cp -r docker/work:gcc repo/user/newimage  import it back

A copy is complete when cp returns. ':latest' is not shown, but is accepted.
`getfattr -n user.pcocc.error docker` tells why the last copy failed.
";

impl Tree {
    pub(super) fn view(&self, store: StoreId) -> Result<&StoreView, Errno> {
        self.stores.get(store).ok_or(Errno::STALE)
    }

    pub(super) fn node(&self, number: u64) -> Result<Node, Errno> {
        self.inodes.get(number).ok_or(Errno::STALE)
    }

    /// Whether a request on this inode may wait for a store, and so belongs on a worker.
    pub fn may_wait(&self, number: u64) -> bool {
        match self.inodes.get(number) {
            Some(Node::Names(..)) => true,
            Some(Node::Image(key) | Node::Part(key, _)) => {
                self.images.peek(&key).is_none_or(|view| !view.is_final())
            }
            Some(Node::RootfsImage(key)) => self.rootfs.peek(&key).is_none(),
            _ => false,
        }
    }

    /// Finds a name in a folder.
    pub fn lookup(&self, parent: u64, name: &OsStr) -> Result<Looked, Errno> {
        let node = self.node(parent)?;
        let missing = match &node {
            Node::RootfsImage(_) | Node::RootfsFile(..) => ALWAYS,
            _ => Duration::ZERO,
        };
        match self.child(&node, name)? {
            Some(child) => {
                let (attributes, validity) = self.describe(&child)?;
                self.tell(&child);
                Ok(Looked::Found(attributes, validity))
            }
            None => Ok(Looked::Missing(missing)),
        }
    }

    /// Notes that the kernel is told of `node`.
    pub(super) fn tell(&self, node: &Node) -> u64 {
        if let Node::RootfsFile(system, _) = node
            && let Ok(open) = self.rootfs.get(*system)
        {
            open.remember();
        }
        self.inodes.remember(node)
    }

    /// The kernel dropped `count` references to an inode.
    pub fn forget(&self, number: u64, count: u64) {
        if let Some(Node::RootfsFile(system, _)) = self.inodes.get(number) {
            self.rootfs.forget(system, count);
        } else {
            self.inodes.forget(number, count);
        }
    }

    fn child(&self, parent: &Node, name: &OsStr) -> Result<Option<Node>, Errno> {
        match parent {
            Node::Fixed(fixed) => Ok(self.fixed_child(*fixed, name)),
            Node::Names(side, store, path) => self.named(*side, *store, path, name),
            Node::Image(key) => Ok(match name.as_bytes() {
                b"oci-layout" => Some(Part::Marker),
                b"index.json" => Some(Part::Index),
                b"blobs" => Some(Part::Blobs),
                _ => None,
            }
            .filter(|part| !self.staging.is_hidden(key, *part))
            .map(|part| Node::Part(key.clone(), part))),
            Node::Part(key, Part::Blobs) => Ok((name == "sha256"
                && !self.staging.is_hidden(key, Part::Sha256))
            .then(|| Node::Part(key.clone(), Part::Sha256))),
            Node::Part(key, Part::Sha256) => {
                let Some(digest) = name.to_str().and_then(|hex| Digest::from_hex(hex).ok()) else {
                    return Ok(None);
                };
                let part = Part::Blob(digest);
                if self.staging.is_hidden(key, part) {
                    return Ok(None);
                }
                let view = self.glance(key)?;
                Ok(view.size(part).map(|_| Node::Part(key.clone(), part)))
            }
            Node::RootfsImage(key) => {
                let open = self.open_rootfs(key)?;
                let found = open.squashfs.lookup(open.top, name.as_bytes());
                let found = found.map_err(|error| errno_of(&error.into()))?;
                Ok(found.map(|entry| Node::RootfsFile(open.number, entry.inode)))
            }
            Node::RootfsFile(system, inode) => {
                let open = self.rootfs.get(*system)?;
                let found = open.squashfs.lookup(*inode, name.as_bytes());
                let found = found.map_err(|error| errno_of(&error.into()))?;
                Ok(found.map(|entry| Node::RootfsFile(*system, entry.inode)))
            }
            Node::StagedDir(image, path) => {
                let Some(name) = name.to_str() else {
                    return Ok(None);
                };
                let path = join(path, name);
                Ok(image.state().items.get(&path).map(|item| match item {
                    Item::Dir => Node::StagedDir(Arc::clone(image), path.as_str().into()),
                    Item::File(file) => Node::StagedFile(Arc::clone(image), Arc::clone(file)),
                }))
            }
            Node::Part(..) | Node::StagedFile(..) => Err(Errno::NOTDIR),
        }
    }

    fn fixed_child(&self, parent: Fixed, name: &OsStr) -> Option<Node> {
        let name = name.to_str()?;
        match (parent, name) {
            (Fixed::Root, "README") => Some(Node::Fixed(Fixed::Readme)),
            (Fixed::Root, ".pcocc") => Some(Node::Fixed(Fixed::Pcocc)),
            (Fixed::Root, "repo") => Some(Node::Fixed(Fixed::Repo)),
            (Fixed::Root, "rootfs") => Some(Node::Fixed(Fixed::Rootfs)),
            (Fixed::Rootfs, "repo") => Some(Node::Fixed(Fixed::RootfsRepo)),
            (Fixed::Pcocc, "status.json") => Some(Node::Fixed(Fixed::Status)),
            (Fixed::Root, "docker") => Some(Node::Names(Side::Images, self.docker?, "".into())),
            (Fixed::Rootfs, "docker") => Some(Node::Names(Side::Rootfs, self.docker?, "".into())),
            (Fixed::Repo | Fixed::RootfsRepo, _) => {
                let side = if parent == Fixed::Repo {
                    Side::Images
                } else {
                    Side::Rootfs
                };
                self.stores
                    .iter()
                    .position(|view| view.label == name)
                    .filter(|store| Some(*store) != self.docker)
                    .map(|store| Node::Names(side, store, "".into()))
            }
            _ => None,
        }
    }

    /// What stands at a name of a store's tree: an image being copied in, a folder, or an image.
    pub(super) fn named(
        &self,
        side: Side,
        store: StoreId,
        folder: &str,
        name: &OsStr,
    ) -> Result<Option<Node>, Errno> {
        let Some(name) = name.to_str() else {
            return Ok(None);
        };
        let path = join(folder, name);
        let view = self.view(store)?;
        if side == Side::Images {
            self.collect_abandoned(Some((store, &path)));
            if let Some(node) = self.staging.find(store, &path) {
                return Ok(Some(node));
            }
        }
        Ok(match view.names()?.resolve(&path) {
            None => None,
            Some(Place::Folder) => Some(Node::Names(side, store, path.as_str().into())),
            Some(Place::Image(entry)) => Some(image_node(side, store, &entry)),
        })
    }

    /// The image as far as it is known without waiting, else opened.
    pub(super) fn glance(
        &self,
        key: &ImageKey,
    ) -> Result<Arc<crate::tree::images::ImageView>, Errno> {
        match self.images.peek(key) {
            Some(view) => Ok(view),
            None => self.images.open(key, self.view(key.store)?, &self.status),
        }
    }

    /// Opens an image's root file system.
    pub(super) fn open_rootfs(
        &self,
        key: &ImageKey,
    ) -> Result<Arc<crate::tree::rootfs::OpenRootfs>, Errno> {
        let store = self.view(key.store)?;
        // One export gives both, whichever is asked for first and whoever waits for it.
        if Some(key.store) == self.docker && self.rootfs.peek(key).is_none() {
            self.images.open(key, store, &self.status)?;
        }
        self.rootfs.open(key, store, &self.status)
    }

    /// The attributes of an inode, and how long they hold.
    pub fn attributes(&self, number: u64) -> Result<(Attributes, Duration), Errno> {
        let node = self.node(number)?;
        let (mut attributes, validity) = self.describe(&node)?;
        // A node that took over another's number keeps answering to it.
        attributes.number = number;
        Ok((attributes, validity))
    }

    pub(super) fn describe(&self, node: &Node) -> Result<(Attributes, Duration), Errno> {
        if let Node::Part(key, part @ (Part::Index | Part::Blob(_))) = node
            // An image whose removal has begun is not exported for the size of what is removed next.
            && !self.staging.is_going(key)
        {
            let view = self.glance(key)?;
            let size = view.size(*part).ok_or(Errno::NOENT)?;
            let validity = if view.is_final() {
                SOON
            } else {
                Duration::ZERO
            };
            let modified = since_1970(key.created);
            return Ok((self.file(node, 0o444, size, modified), validity));
        }
        if let Node::RootfsFile(system, inode) = node {
            let open = self.rootfs.get(*system)?;
            let found = open.squashfs.attributes(*inode);
            let found = found.map_err(|error| errno_of(&error.into()))?;
            return Ok((rootfs_attributes(self.inodes.number(node), &found), ALWAYS));
        }
        if let Node::Names(Side::Rootfs, store, _) = node {
            // The kernel keeps these listings for as long as the time stays the same.
            let changed = self.view(*store)?.changed();
            return Ok((self.folder(node, 0o555, changed), SOON));
        }
        Ok(self.describe_now(node))
    }

    /// The attributes as far as they are known without waiting. A validity of zero says that the
    /// size has yet to be asked for.
    pub(super) fn describe_now(&self, node: &Node) -> (Attributes, Duration) {
        match node {
            Node::Fixed(Fixed::Readme) => (
                self.file(node, 0o444, README.len() as u64, self.started),
                ALWAYS,
            ),
            Node::Fixed(Fixed::Status) => (
                self.file(
                    node,
                    0o444,
                    self.status.render(self.gauges()).len() as u64,
                    SystemTime::now(),
                ),
                Duration::ZERO,
            ),
            Node::Fixed(_) => (self.folder(node, 0o555, self.started), ALWAYS),
            Node::Names(Side::Images, ..) => (self.folder(node, 0o755, self.started), SOON),
            Node::Names(Side::Rootfs, ..) => {
                (self.folder(node, 0o555, self.started), Duration::ZERO)
            }
            Node::Image(key) | Node::Part(key, Part::Blobs | Part::Sha256) => {
                (self.folder(node, 0o755, since_1970(key.created)), SOON)
            }
            Node::Part(key, Part::Marker) => {
                let size = pcocc_image::layout::MARKER.len() as u64;
                (self.file(node, 0o444, size, since_1970(key.created)), SOON)
            }
            Node::Part(key, part) => {
                let view = self.images.peek(key);
                let size = view.as_ref().and_then(|view| view.size(*part));
                let validity = match view {
                    Some(view) if view.is_final() => SOON,
                    _ => Duration::ZERO,
                };
                let modified = since_1970(key.created);
                (
                    self.file(node, 0o444, size.unwrap_or(0), modified),
                    validity,
                )
            }
            Node::RootfsImage(key) => {
                let open = self.rootfs.peek(key);
                let found = open.and_then(|open| open.squashfs.attributes(open.top).ok());
                let created = since_1970(key.created);
                let mut attributes = match &found {
                    Some(found) => rootfs_attributes(self.inodes.number(node), found),
                    // Nearly always right, and not cached: nobody makes a root file system to list names.
                    None => Attributes {
                        owner: (0, 0),
                        ..self.folder(node, 0o755, created)
                    },
                };
                // A tool that looks before it opens and once more when it is through (tar) sees no change.
                (attributes.size, attributes.changed) = (0, created);
                (
                    attributes,
                    if found.is_some() {
                        SOON
                    } else {
                        Duration::ZERO
                    },
                )
            }
            Node::RootfsFile(..) => (self.file(node, 0, 0, self.started), Duration::ZERO),
            Node::StagedDir(image, _) => {
                let modified = image.state().modified;
                (self.folder(node, 0o755, modified), Duration::ZERO)
            }
            Node::StagedFile(_, file) => (
                self.file(node, 0o644, file.size(), file.modified()),
                Duration::ZERO,
            ),
        }
    }

    fn folder(&self, node: &Node, mode: u16, modified: SystemTime) -> Attributes {
        Attributes {
            number: self.inodes.number(node),
            kind: Kind::Directory,
            mode,
            owner: self.owner,
            size: 0,
            blocks: 0,
            // One link says that the number of folders inside is not told.
            links: 1,
            device: 0,
            modified,
            changed: modified,
        }
    }

    fn file(&self, node: &Node, mode: u16, size: u64, modified: SystemTime) -> Attributes {
        Attributes {
            kind: Kind::Regular,
            size,
            blocks: size.div_ceil(512),
            ..self.folder(node, mode, modified)
        }
    }

    /// Names of the extended attributes of an inode, each ended by a zero byte.
    pub fn attribute_names(&self, number: u64) -> Result<Vec<u8>, Errno> {
        let mut names = Vec::new();
        for (name, _) in self.extended(number)? {
            names.extend_from_slice(&name);
            names.push(0);
        }
        Ok(names)
    }

    /// Value of an extended attribute.
    pub fn attribute(&self, number: u64, name: &OsStr) -> Result<Vec<u8>, Errno> {
        if is_unsupported(name) {
            return Err(Errno::OPNOTSUPP);
        }
        self.extended(number)?
            .into_iter()
            .find_map(|(known, value)| (known == name.as_bytes()).then_some(value))
            .ok_or(Errno::NODATA)
    }

    fn extended(&self, number: u64) -> Result<Vec<Extended>, Errno> {
        let error = |label: &str, image: Option<&str>| {
            self.status
                .last_error(label, image)
                .map(|text| vec![(ERROR_ATTRIBUTE.as_bytes().to_vec(), text.into_bytes())])
                .unwrap_or_default()
        };
        match self.node(number)? {
            Node::RootfsFile(system, inode) => self
                .rootfs
                .get(system)?
                .squashfs
                .xattrs(inode)
                .map_err(|error| errno_of(&error.into())),
            Node::Names(Side::Images, store, path) if path.is_empty() => {
                Ok(error(&self.view(store)?.label, None))
            }
            Node::StagedDir(image, _) => {
                let view = self.view(image.store())?;
                let name = view.notation.name_of(&image.state().path);
                Ok(error(&view.label, name.as_deref()))
            }
            _ => Ok(Vec::new()),
        }
    }

    /// Content of the fixed files.
    pub(super) fn fixed_content(&self, fixed: Fixed) -> Option<Vec<u8>> {
        match fixed {
            Fixed::Readme => Some(README.into()),
            Fixed::Status => Some(self.status.render(self.gauges())),
            _ => None,
        }
    }

    /// Target of a symbolic link.
    pub fn read_link(&self, number: u64) -> Result<Vec<u8>, Errno> {
        match self.node(number)? {
            Node::RootfsFile(system, inode) => self
                .rootfs
                .get(system)?
                .squashfs
                .read_link(inode)
                .map_err(|error| errno_of(&error.into())),
            _ => Err(Errno::INVAL),
        }
    }
}

/// Whether no file here can have such an attribute. Access control lists are asked for file by file by `ls -l`,
/// until a file system says that it has none.
pub(crate) fn is_unsupported(name: &OsStr) -> bool {
    name.as_bytes().starts_with(b"system.")
}

/// The node of a listed image.
pub(super) fn image_node(side: Side, store: StoreId, entry: &Entry) -> Node {
    let key = image_key(store, entry);
    match side {
        Side::Images => Node::Image(key),
        Side::Rootfs => Node::RootfsImage(key),
    }
}

/// The key of a listed image.
pub(super) fn image_key(store: StoreId, entry: &Entry) -> ImageKey {
    ImageKey {
        store,
        name: entry.name.as_str().into(),
        id: entry.id,
        created: entry
            .created
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs()),
    }
}

pub(super) fn since_1970(seconds: u64) -> SystemTime {
    UNIX_EPOCH
        .checked_add(Duration::from_secs(seconds))
        .unwrap_or(UNIX_EPOCH)
}

/// What `stat` tells of a file in an image.
pub(crate) fn rootfs_attributes(number: u64, found: &squashfs::Attributes) -> Attributes {
    Attributes {
        number,
        kind: found.file_type,
        mode: found.mode,
        owner: (found.uid, found.gid),
        size: found.size,
        blocks: found.blocks,
        links: found.nlink,
        device: found.rdev,
        modified: since_1970(found.mtime.into()),
        changed: since_1970(found.mtime.into()),
    }
}
