//! Disks of virtual machines: the chain of qcow2 blobs that an image's metadata names.

use std::fs::File;
use std::io::{self, Seek as _};
use std::path::Path;

use pcocc_core::beneath::Found;
use pcocc_core::trust;

use crate::error::{Error, Result};
use crate::repository::folder::Repository;
use crate::repository::meta::{Kind, Meta};
use crate::transfer::Context;
use crate::vmdisk::Disk;
use pcocc_layers::Digest;
use pcocc_layers::digest::Hashing;

impl Repository {
    /// Opens the disk of the virtual machine's image `meta`: its last blob, and those blobs of `meta` that it holds only the
    /// differences to.
    ///
    /// A blob that somebody else can write to is verified and copied to a nameless file in the folder `temporary` first: its
    /// header might change after it was looked at.
    ///
    /// Fails with [`Error::Invalid`] when a blob would have QEMU read anything but blobs of `meta`.
    pub fn disk(&self, meta: &Meta, temporary: &Path, context: &Context) -> Result<Disk> {
        let what = format!("image {}:{}@{}", self.name(), meta.name(), meta.revision());
        if meta.kind() != Kind::VirtualMachine {
            return Err(Error::invalid(what, "is not a virtual machine's"));
        }
        let blobs = meta.data_blobs().iter().rev();
        let open = |digest: &Digest| -> Result<(Digest, File)> {
            let file = self.open_blob(*digest)?;
            let found = Found::of_file(&file).map_err(self.on_blob("look at", *digest))?;
            let file = match trust::is_trusted(&found) {
                true => file,
                false => self.own_copy(*digest, file, temporary, context)?,
            };
            Ok((*digest, file))
        };
        Disk::chain(what, blobs.map(open))
    }

    fn own_copy(
        &self,
        digest: Digest,
        blob: File,
        temporary: &Path,
        context: &Context,
    ) -> Result<File> {
        context.progress.stage("Copying a disk of another user ...");
        let failed = |error| Error::io("write a temporary file in", temporary)(error);
        let mut copy = tempfile::tempfile_in(temporary).map_err(failed)?;
        let mut blob = Hashing::new(blob);
        io::copy(&mut blob, &mut copy).map_err(failed)?;
        copy.rewind().map_err(failed)?;
        let (found, size, _) = blob.finish();
        match found == digest {
            true => Ok(copy),
            false => Err(Error::Corrupt {
                expected: digest,
                found: format!(
                    "{found} of {size} bytes, in {}",
                    self.blob_path(digest).display()
                ),
            }),
        }
    }
}
