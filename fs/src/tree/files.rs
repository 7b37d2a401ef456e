//! Opening and reading files, and the table of handles.

use std::collections::HashMap;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use pcocc_layers::squashfs::InodeNo;

use crate::blob::BlobFile;
use crate::errno::{Errno, errno_of, errno_of_io};
use crate::process::Process;
use crate::staging::{Staged, StagedFile};
use crate::tree::Tree;
use crate::tree::images::Content;
use crate::tree::listing::Listing;
use crate::tree::node::{ImageKey, Node, Part};
use crate::tree::rootfs::OpenRootfs;

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
        self.open.lock().len()
    }

    pub(super) fn reserve(&self) -> u64 {
        self.last.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(super) fn insert(&self, number: u64, handle: Handle) {
        self.open.lock().insert(number, handle);
    }

    pub(super) fn add(&self, handle: Handle) -> u64 {
        let number = self.reserve();
        self.insert(number, handle);
        number
    }

    pub(super) fn get(&self, number: u64) -> Result<Handle, Errno> {
        self.open.lock().get(&number).cloned().ok_or(Errno::BADF)
    }

    fn remove(&self, number: u64) -> Option<Handle> {
        self.open.lock().remove(&number)
    }
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
                .map_err(|error| errno_of(&error.into())),
            Handle::Staged { file, .. } | Handle::Rewrite { file, .. } => file
                .read_at(buffer, offset)
                .map_err(|error| errno_of_io(&error)),
            Handle::Folder(_) => Err(Errno::ISDIR),
            Handle::Later(_) => Err(Errno::BADF),
        }
    }

    /// Reads a file that the kernel opened by itself: below `rootfs`.
    pub fn read_open(&self, number: u64, offset: u64, buffer: &mut [u8]) -> Result<usize, Errno> {
        match self.node(number)? {
            Node::RootfsFile(system, inode) => self
                .rootfs
                .get(system)?
                .squashfs
                .read_at(inode, offset, buffer)
                .map_err(|error| errno_of(&error.into())),
            _ => Err(Errno::ISDIR),
        }
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
