//! Requests about one inode or handle: each finds the node or the open file and calls its method.

use std::ffi::OsStr;
use std::time::Duration;

use crate::attributes::{Attributes, is_unsupported, names_of, value_of};
use crate::errno::{Errno, Result};
use crate::tree::Tree;
use crate::tree::nodes::{Node, Renamed, Stat};
use crate::tree::open_file::Caching;

/// Result of a lookup, with its validity.
#[derive(Clone, Copy, Debug)]
pub enum Lookup {
    /// The name exists. The kernel has one more reference to the inode.
    Found(Attributes, Duration),
    /// The name does not exist; the kernel need not ask again for this time.
    Missing(Duration),
}

/// Room for images being copied in, in blocks.
#[derive(Clone, Copy, Debug)]
pub struct Space {
    /// All blocks.
    pub blocks: u64,
    /// Free blocks.
    pub free: u64,
    /// Bytes in a block.
    pub block_size: u32,
}

/// Finding and describing.
impl Tree {
    /// Whether a request on this inode may wait for a store, and so needs a worker.
    pub fn may_wait(&self, number: u64) -> bool {
        let node = self.inodes.get(number);
        node.is_some_and(|node| node.operations().may_wait(self))
    }

    /// Finds a name in a folder.
    pub fn lookup(&self, parent: u64, name: &OsStr) -> Result<Lookup> {
        let parent = self.node(parent)?;
        let parent = parent.operations();
        match parent.lookup(self, name)? {
            Some(child) => {
                let (found, validity) = self.remembered(&child)?;
                Ok(Lookup::Found(found, validity))
            }
            None => Ok(Lookup::Missing(parent.missing_validity())),
        }
    }

    /// The attributes of an inode, and their validity.
    pub fn attributes(&self, number: u64) -> Result<Stat> {
        let (found, validity) = self.node(number)?.operations().attributes(self)?;
        // A node may have two numbers; the answer has the requested one.
        Ok((found.numbered(number), validity))
    }

    /// The attributes of a node that the kernel gets a reference to.
    fn remembered(&self, node: &Node) -> Result<Stat> {
        let (found, validity) = node.operations().attributes(self)?;
        Ok((found.numbered(self.remember(node)), validity))
    }

    /// Names of the extended attributes of an inode, each ended by a zero byte.
    pub fn attribute_names(&self, number: u64) -> Result<Vec<u8>> {
        Ok(names_of(self.node(number)?.operations().xattrs(self)?))
    }

    /// Value of an extended attribute.
    pub fn attribute(&self, number: u64, name: &OsStr) -> Result<Vec<u8>> {
        if is_unsupported(name) {
            return Err(Errno::OPNOTSUPP);
        }
        let found = self.node(number)?.operations().xattrs(self)?;
        value_of(found, name).ok_or(Errno::NODATA)
    }

    /// Fails unless extended attributes can be set on this inode; they are accepted and not kept.
    pub fn accepts_attributes(&self, number: u64) -> Result<()> {
        self.node(number)?.operations().accepts_xattrs(self)
    }

    /// Target of a symbolic link.
    pub fn read_link(&self, number: u64) -> Result<Vec<u8>> {
        self.node(number)?.operations().read_link(self)
    }

    /// The room for copies: tools ask before they copy.
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

/// Making, renaming and removing names.
impl Tree {
    /// Makes a folder: a new image, or a part of an image.
    pub fn make_dir(&self, parent: u64, name: &OsStr, thread: u32) -> Result<Stat> {
        let name = utf8(name)?;
        let made = self
            .node(parent)?
            .operations()
            .make_dir(self, name, thread)?;
        self.remembered(&made)
    }

    /// Makes and opens a file.
    pub fn create(
        &self,
        parent: u64,
        name: &OsStr,
        thread: u32,
    ) -> Result<(Attributes, Duration, u64)> {
        let name = utf8(name)?;
        let handle = self.handles.reserve();
        let parent = self.node(parent)?;
        let (node, file) = parent.operations().create(self, name, handle, thread)?;
        self.handles.insert_file(handle, file);
        let (found, validity) = self.remembered(&node)?;
        Ok((found, validity, handle))
    }

    /// Gives a file or an image another name.
    pub fn rename(
        &self,
        from: (u64, &OsStr),
        to: (u64, &OsStr),
        replace: bool,
        thread: u32,
    ) -> Result<()> {
        let (old, name) = (utf8(from.1)?, utf8(to.1)?);
        let (from, to) = (self.node(from.0)?, self.node(to.0)?);
        let new = Renamed {
            name,
            replace,
            thread,
        };
        from.operations().rename(self, old, &to, &new)
    }

    /// Removes a file.
    pub fn unlink(&self, parent: u64, name: &OsStr, thread: u32) -> Result<()> {
        let name = utf8(name)?;
        self.node(parent)?.operations().unlink(self, name, thread)
    }

    /// Removes a folder; removing an image's folder removes the image.
    pub fn remove_dir(&self, parent: u64, name: &OsStr) -> Result<()> {
        let name = utf8(name)?;
        self.node(parent)?.operations().remove_dir(self, name)
    }

    /// Changes the length of a staged file, if `size` is given. Modes, owners and times are accepted and not
    /// kept.
    pub fn change(&self, number: u64, size: Option<u64>) -> Result<Stat> {
        self.node(number)?.operations().change(self, size)?;
        self.attributes(number)
    }
}

/// Opening, reading and writing files.
impl Tree {
    /// Opens a file.
    pub fn open(
        &self,
        number: u64,
        write: bool,
        truncate: bool,
        thread: u32,
    ) -> Result<(u64, Caching)> {
        let node = self.node(number)?;
        let (node, handle) = (node.operations(), self.handles.reserve());
        let (file, caching) = match write {
            true => node.open_write(self, handle, truncate, thread)?,
            false => node.open(self)?,
        };
        self.handles.insert_file(handle, file);
        Ok((handle, caching))
    }

    /// Whether a read through this handle may first find the content in a store.
    pub fn read_may_wait(&self, handle: u64) -> bool {
        let file = self.handles.file(handle);
        file.is_ok_and(|file| file.read_may_wait())
    }

    /// Reads from an open file into `buffer`; returns the number of bytes.
    pub fn read(&self, handle: u64, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        self.handles.file(handle)?.read(self, offset, buffer)
    }

    /// Reads a file below `rootfs`, which the kernel opens without asking.
    pub fn read_open(&self, number: u64, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let (file, _) = self.node(number)?.operations().open(self)?;
        file.read(self, offset, buffer)
    }

    /// Whether a write through this handle may first copy a referenced blob.
    pub fn write_may_wait(&self, handle: u64) -> bool {
        let file = self.handles.file(handle);
        file.is_ok_and(|file| file.write_may_wait())
    }

    /// Writes through an open handle.
    pub fn write(&self, handle: u64, offset: u64, bytes: &[u8]) -> Result<()> {
        self.handles.file(handle)?.write(handle, offset, bytes)
    }

    /// Copies between two open files; returns the number of bytes.
    pub fn copy_range(
        &self,
        from: u64,
        from_offset: u64,
        to: u64,
        to_offset: u64,
        length: u64,
    ) -> Result<u32> {
        // The reply has room for this length, in whole pages.
        const MOST: u64 = 0xffff_f000;
        let (target, source) = (self.handles.file(to)?, self.handles.file(from)?);
        let (source, to) = ((&*source, from_offset), (to, to_offset));
        target.copy_from(self, source, to, length.min(MOST))
    }

    /// Whether closing through this handle may complete a copy.
    pub fn flush_may_wait(&self, handle: u64) -> bool {
        let file = self.handles.file(handle);
        file.is_ok_and(|file| file.flush_may_wait())
    }

    /// A descriptor of the handle was closed: the copy may be complete.
    pub fn flush(&self, handle: u64, thread: u32) -> Result<()> {
        let file = self.handles.file(handle)?;
        file.flush(self, handle, thread)
    }

    /// Closes a handle for good.
    pub fn release(&self, handle: u64) {
        if let Some(file) = self.handles.remove(handle) {
            file.release(handle);
        }
    }
}

/// A name as text; image layouts and image names are ASCII.
fn utf8(name: &OsStr) -> Result<&str> {
    name.to_str().ok_or(Errno::INVAL)
}
