//! From version 1 to version 2: metadata moves from `meta/xx/<hash>` in YAML to `meta/NAME@REV` in JSON.
//!
//! Steps: write the new files beside the old folders → set version 2 in `.config` → convert files that a writer
//! has added meanwhile → move the old folders to `meta.old/`. At every instant one version is complete, and
//! readers of each version ignore the files of the other.

use std::io::{self, Write};
use std::path::Path;

use crate::error::{Error, Result};
use crate::repository::folder::{META, Repository};

/// Directory for the metadata of version 1.
const ATTIC: &str = "meta.old";

impl Repository {
    pub(crate) fn upgrade(&self) -> Result<()> {
        self.convert_metas()?;
        let root = self.root()?;
        let mut config = self.temp(0o666)?;
        config
            .write_all(b"version: 2\n")
            .and_then(|()| config.replace(&root, ".config"))
            .map_err(|error| self.write_error(".config", error))?;
        self.finish_upgrade()
    }

    /// Completes an interrupted upgrade of any process; does nothing when there is none.
    pub(crate) fn finish_upgrade(&self) -> Result<()> {
        let folders = self.old_meta_folders()?;
        if folders.is_empty() {
            return Ok(());
        }
        self.convert_metas()?;
        let attic = self.root()?.folder_or_new(ATTIC, 0o777);
        let attic = attic.map_err(|error| self.write_error(ATTIC, error))?;
        let metas = self.metas()?;
        for folder in folders {
            let failed = |error| self.write_error(Path::new(META).join(&folder), error);
            match metas.rename(&folder, &attic, &folder) {
                Ok(()) => {}
                // An earlier upgrade left this folder in `meta.old/`; the files are converted.
                Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
                    metas.remove_all(&folder).map_err(failed)?;
                }
                Err(error) => return Err(failed(error)),
            }
        }
        Ok(())
    }

    /// Folders of version 1 in `meta/`.
    fn old_meta_folders(&self) -> Result<Vec<String>> {
        let metas = self.metas()?;
        let mut folders = self.meta_files()?;
        let is_folder = |name: &String| metas.stat(name).is_ok_and(|found| found.is_folder());
        folders.retain(|name| is_old_folder(name) && is_folder(name));
        Ok(folders)
    }

    fn convert_metas(&self) -> Result<()> {
        let metas = self.metas()?;
        for name in self.hashed_meta_names()? {
            let meta = self.read_meta(1, &metas, Path::new(&name))?.canonical()?;
            let new = Self::meta_name(2, meta.name(), meta.revision());
            let mut temp = self.temp(0o644)?;
            let written = temp.write_all(meta.render().as_bytes());
            match written.and_then(|()| temp.create_new(&metas, &new)) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(Error::io("upgrade", metas.path().join(&new))(error)),
            }
        }
        Ok(())
    }
}

/// Whether a name in `meta/` is a version 1 folder: two hex digits.
pub(crate) fn is_old_folder(name: &str) -> bool {
    name.len() == 2 && name.bytes().all(|b| b.is_ascii_hexdigit())
}
