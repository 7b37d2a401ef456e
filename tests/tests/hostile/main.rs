//! Bad input to `pcocc`, of every kind: a word on why, a failing exit status, and nothing changed.
//!
//! Each case runs `pcocc` on a repository that holds a good image. Afterwards the repository is the
//! same byte for byte, verifies clean, and holds no unfinished work.

mod entries;
mod formats;
mod image;
mod names;
mod network;
mod repositories;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use pcocc_tests::{Outcome, Pcocc, leaks};

use image::{Image, file_layer, hex};

/// Paths, modes and contents below a folder; times are left out.
pub(crate) fn snapshot(folder: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        let metadata = fs::symlink_metadata(&path).unwrap();
        let mode = metadata.permissions().mode();
        let content = if metadata.is_dir() {
            found.extend(snapshot(&path));
            "folder".to_owned()
        } else if metadata.is_file() {
            hex(&fs::read(&path).unwrap())
        } else {
            "special".to_owned()
        };
        found.insert(path, format!("{mode:o} {content}"));
    }
    found
}

/// A home folder whose repository holds the good image `there`.
pub(crate) struct Bed {
    pub(crate) pcocc: Pcocc,
    pub(crate) before: BTreeMap<PathBuf, String>,
    cached: BTreeMap<PathBuf, String>,
}

impl Bed {
    pub(crate) fn new() -> Self {
        let pcocc = Pcocc::new();
        Image::new(&[file_layer("good", b"good")]).write(&pcocc.home().join("good"));
        pcocc.run(&["image", "import", "oci:good", "there"]);
        let before = snapshot(&pcocc.repository());
        let cached = snapshot(&pcocc.cache());
        assert!(cached.len() > 1, "the good image has no root filesystem");
        Self {
            pcocc,
            before,
            cached,
        }
    }

    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.pcocc.home().join(name)
    }

    /// Checks that a command failed with these words, and that the repository is what it was.
    #[track_caller]
    pub(crate) fn unchanged(&self, outcome: &Outcome, words: &str) {
        let said = outcome.failed();
        assert!(!words.is_empty(), "which words?\n{outcome}");
        assert!(said.contains(words), "'{words}' is not in:\n{outcome}");
        assert!(said.len() < 4000, "a flood of words:\n{outcome}");
        assert!(!said.contains("RUST_BACKTRACE"), "{outcome}");
        assert!(outcome.stdout.is_empty(), "{outcome}");
        let after = snapshot(&self.pcocc.repository());
        assert_eq!(after, self.before, "the repository changed:\n{outcome}");
        let cached = snapshot(&self.pcocc.cache());
        assert_eq!(cached, self.cached, "the cache changed:\n{outcome}");
        let unfinished = leaks::unfinished_in(&self.pcocc.repository());
        assert_eq!(unfinished, Vec::<String>::new(), "{outcome}");
    }

    /// Imports what must be refused with these words.
    #[track_caller]
    pub(crate) fn refuses(&self, source: &str, words: &str) {
        let outcome = self.pcocc.try_run(&["image", "import", source, "bad"]);
        self.unchanged(&outcome, words);
    }

    /// Writes an image as a layout and imports it, which must be refused with these words.
    #[track_caller]
    pub(crate) fn refuses_image(&self, image: &Image, words: &str) {
        let folder = self.at("bad-layout");
        let _ = fs::remove_dir_all(&folder);
        image.write(&folder);
        self.refuses("oci:bad-layout", words);
    }

    /// Checks at the end that the good image is still good.
    pub(crate) fn end(self) {
        self.pcocc.verify();
        self.pcocc.run(&["image", "copy", "there", "copied"]);
        self.pcocc.verify();
    }
}
