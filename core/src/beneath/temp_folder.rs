//! A folder in the making, and how it gets its name.
//!
//! Phases: [`OpenFolder::temp_folder`] → fill → [`TempFolder::create_new`] or [`TempFolder::replace_empty`], which flush the
//! new name to disk; what is in the folder is the caller's to flush. Lost replies of NFS servers are told from the truth as
//! in `temp.rs`.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::Path;

use rustix::fs::{Mode, RenameFlags};
use rustix::io::Errno;
use rustix::process::geteuid;

use super::temp::named;
use super::{Found, OpenFolder, calls, resolve};

/// A folder under a temporary name, which goes with all in it when this is dropped unless it was published or kept.
#[derive(Debug)]
pub struct TempFolder {
    parent: OpenFolder,
    name: OsString,
    folder: OpenFolder,
    is_named: bool,
}

impl OpenFolder {
    /// Makes a folder named `prefix` and a random number, with the permission bits `mode` as the umask allows.
    pub fn temp_folder(&self, prefix: &str, mode: u32) -> io::Result<TempFolder> {
        let mode = Mode::from_raw_mode(mode);
        let make = |name: &OsString| match calls::mkdir(self.as_fd(), Path::new(name), mode) {
            // Nobody guesses such a name: the reply to our own call was lost.
            Err(Errno::EXIST) if self.is_new(name) => Ok(()),
            result => Ok(result?),
        };
        let (name, ()) = named(prefix, make)?;
        let folder = self.folder(&name)?;
        Ok(TempFolder {
            parent: self.clone(),
            name,
            folder,
            is_named: true,
        })
    }

    /// Whether `name` is an empty folder of this user.
    fn is_new(&self, name: &OsString) -> bool {
        let folder = self.folder(name);
        folder.is_ok_and(|folder| {
            Found::of_file(folder.as_fd()).is_ok_and(|found| found.uid == geteuid().as_raw())
                && folder.names().is_ok_and(|names| names.is_empty())
        })
    }
}

impl TempFolder {
    /// The folder.
    pub fn folder(&self) -> &OpenFolder {
        &self.folder
    }

    /// Its temporary name.
    pub fn name(&self) -> &OsStr {
        &self.name
    }

    /// Leaves the folder where it is; gives its name and the folder.
    pub fn keep(mut self) -> (OsString, OpenFolder) {
        self.is_named = false;
        (self.name.clone(), self.folder.clone())
    }

    /// Gives the folder the name `name` in `to` unless that name exists, and flushes the name.
    ///
    /// Fails with [`io::ErrorKind::AlreadyExists`] or [`io::ErrorKind::DirectoryNotEmpty`] when the name is taken. File
    /// systems that cannot tell give the folder the place of an empty one.
    pub fn create_new(&mut self, to: &OpenFolder, name: impl AsRef<Path>) -> io::Result<()> {
        match self.rename(to, name.as_ref(), RenameFlags::NOREPLACE) {
            Err(Errno::INVAL | Errno::NOSYS) => self.replace_empty(to, name),
            renamed => {
                renamed?;
                to.sync_folder_of(name)
            }
        }
    }

    /// Gives the folder the name `name` in `to`, in place of nothing or of an empty folder, and flushes the name.
    pub fn replace_empty(&mut self, to: &OpenFolder, name: impl AsRef<Path>) -> io::Result<()> {
        self.rename(to, name.as_ref(), RenameFlags::empty())?;
        to.sync_folder_of(name)
    }

    fn rename(
        &mut self,
        to: &OpenFolder,
        name: &Path,
        flags: RenameFlags,
    ) -> rustix::io::Result<()> {
        let errno = |error: io::Error| Errno::from_io_error(&error).unwrap_or(Errno::IO);
        let (parent, last) = resolve::parent(to.as_fd(), name).map_err(errno)?;
        let own = Path::new(&self.name);
        match calls::rename(self.parent.as_fd(), own, &parent, &last, flags) {
            Err(Errno::NOENT | Errno::EXIST) if self.is_at(to, name) => {}
            renamed => renamed?,
        }
        self.is_named = false;
        Ok(())
    }

    /// Whether `name` in `to` is this folder, and so its only name.
    fn is_at(&self, to: &OpenFolder, name: &Path) -> bool {
        let own = Found::of_file(self.folder.as_fd());
        own.is_ok_and(|own| to.is_at(name, &own))
    }
}

impl Drop for TempFolder {
    fn drop(&mut self) {
        if self.is_named
            && let Err(error) = self.parent.remove_all(&self.name)
        {
            let path = self.folder.path().display();
            tracing::debug!(%error, %path, "a temporary folder stays");
        }
    }
}
