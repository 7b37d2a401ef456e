//! From version 1 to version 2: metadata moves from `meta/xx/<hash>` in YAML to `meta/NAME@REV` in JSON.
//!
//! Steps: write the new files beside the old folders → set version 2 in `.config` → convert files that a writer
//! has added meanwhile → move the old folders to `meta.old/`. At every instant one version is complete, and
//! readers of each version ignore the files of the other.

use std::fs;
use std::io::{self, Write};

use pcocc_core::publish;

use crate::error::{Error, Result};
use crate::repository::folder::Repository;
use crate::repository::temp;

impl Repository {
    pub(crate) fn upgrade(&self) -> Result<()> {
        self.convert_metas()?;
        let mut config = temp::file_in(&self.temp_dir(), 0o666).map_err(|e| self.write_error(e))?;
        config
            .write_all(b"version: 2\n")
            .and_then(|()| config.as_file().sync_all())
            .and_then(|()| publish::replace(config.path(), &self.path().join(".config")))
            .map_err(|e| self.write_error(e))?;
        self.finish_upgrade()
    }

    /// Completes an interrupted upgrade of any process; does nothing when there is none.
    pub(crate) fn finish_upgrade(&self) -> Result<()> {
        let folders = self.old_meta_folders()?;
        if folders.is_empty() {
            return Ok(());
        }
        self.convert_metas()?;
        let attic = self.path().join("meta.old");
        fs::create_dir_all(&attic).map_err(|e| self.write_error(e))?;
        for folder in folders {
            let from = self.meta_dir().join(&folder);
            match fs::rename(&from, attic.join(&folder)) {
                Ok(()) => {}
                // An earlier upgrade left this folder in `meta.old/`; the files are converted.
                Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
                    fs::remove_dir_all(&from).map_err(|e| self.write_error(e))?;
                }
                Err(error) => return Err(self.write_error(error)),
            }
        }
        Ok(())
    }

    /// Folders of version 1 in `meta/`.
    fn old_meta_folders(&self) -> Result<Vec<String>> {
        let mut folders = self.meta_files()?;
        folders.retain(|name| is_old_folder(name) && self.meta_dir().join(name).is_dir());
        Ok(folders)
    }

    fn convert_metas(&self) -> Result<()> {
        for path in self.hashed_meta_paths()? {
            let meta = self.read_meta(1, &path)?.canonical()?;
            let target = self.meta_path(2, meta.name(), meta.revision());
            let mut temp =
                temp::file_in(&self.temp_dir(), 0o666).map_err(|e| self.write_error(e))?;
            temp.write_all(meta.render().as_bytes())
                .and_then(|()| temp.as_file().sync_all())
                .map_err(|e| self.write_error(e))?;
            match publish::create_new(temp.path(), &target) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(Error::io("upgrade", &target)(error)),
            }
        }
        Ok(())
    }
}

/// Whether a name in `meta/` is a version 1 folder: two hex digits.
pub(crate) fn is_old_folder(name: &str) -> bool {
    name.len() == 2 && name.bytes().all(|b| b.is_ascii_hexdigit())
}
