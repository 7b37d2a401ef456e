//! Names of images as paths of folders, and back.
//!
//! A docker name `ghcr.io/org/app:1` is the path `ghcr.io/org/app:1`: slashes are folders. The tag `latest` is
//! hidden, unless a folder of other images has the same path (`a:latest` beside `a/b:1`), and is always
//! accepted. A repository's names have no slash and are paths as they are. `centos@3` is shown if there is more
//! than one revision, and is always accepted.

use std::collections::BTreeMap;
use std::sync::Arc;

use pcocc_image::store::Entry;

/// Position of a store in the tree's list.
pub type StoreId = usize;

/// How the names of a store are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Notation {
    /// `host:port/path/name:tag`.
    Docker,
    /// A flat name, perhaps with `@REV`.
    Repository,
}

const LATEST: &str = ":latest";

impl Notation {
    /// The store's name for the image at `path`; `None` when no image can have this path.
    pub fn name_of(self, path: &str) -> Option<String> {
        let last = path.rsplit('/').next().unwrap_or(path);
        if last.is_empty() || last.starts_with('.') {
            return None;
        }
        match self {
            Self::Repository => (!path.contains('/')).then(|| path.to_owned()),
            Self::Docker if last.contains([':', '@']) => Some(path.to_owned()),
            Self::Docker => Some(format!("{path}{LATEST}")),
        }
    }

    /// The path of an image, if no folder has the same path.
    pub fn path_of(self, name: &str) -> &str {
        match self {
            Self::Repository => name,
            Self::Docker => name.strip_suffix(LATEST).unwrap_or(name),
        }
    }

    /// The image of which `name` is a revision.
    fn image_of_revision(self, name: &str) -> Option<&str> {
        match self {
            Self::Repository => name.rsplit_once('@').map(|(image, _)| image),
            Self::Docker => None,
        }
    }

    /// Whether an image's path may lie below another name.
    pub fn nests(self) -> bool {
        self == Self::Docker
    }
}

/// The kind of entry at a path of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shown {
    /// A folder of names.
    Folder,
    /// An image.
    Image(Arc<Entry>),
}

/// A store's listing as a tree of folders.
#[derive(Debug)]
pub struct Names {
    notation: Notation,
    folders: BTreeMap<String, BTreeMap<String, Shown>>,
    /// Images with one revision, by `NAME@REV`.
    unshown: BTreeMap<String, Arc<Entry>>,
}

impl Names {
    /// Arranges a listing.
    ///
    /// A name that cannot be a path is left out: no sane daemon has such a name, and it would spoil the listing
    /// of all others.
    pub fn new(notation: Notation, mut entries: Vec<Entry>) -> Self {
        entries.retain(|entry| entry.name.split('/').all(is_file_name));
        let mut folders: BTreeMap<String, BTreeMap<String, Shown>> = BTreeMap::new();
        folders.insert(String::new(), BTreeMap::new());
        for entry in &entries {
            for (slash, _) in entry.name.match_indices('/') {
                let (parent, child) = split(entry.name.split_at(slash).0);
                let children = folders.entry(parent.to_owned()).or_default();
                children.insert(child.to_owned(), Shown::Folder);
            }
        }
        let mut revisions: BTreeMap<String, usize> = BTreeMap::new();
        for entry in &entries {
            if let Some(image) = notation.image_of_revision(&entry.name) {
                *revisions.entry(image.to_owned()).or_default() += 1;
            }
        }
        let mut unshown = BTreeMap::new();
        for entry in entries {
            let entry = Arc::new(entry);
            let image = notation.image_of_revision(&entry.name);
            if image.is_some_and(|image| revisions.get(image) == Some(&1)) {
                unshown.insert(entry.name.clone(), entry);
                continue;
            }
            let (parent, shown) = split(notation.path_of(&entry.name));
            let full = split(&entry.name).1;
            let children = folders.entry(parent.to_owned()).or_default();
            let child = if children.get(shown) == Some(&Shown::Folder) {
                full
            } else {
                shown
            };
            children.insert(child.to_owned(), Shown::Image(Arc::clone(&entry)));
        }
        Self {
            notation,
            folders,
            unshown,
        }
    }

    /// The names in a folder; `None` when there is no such folder.
    pub fn children(&self, folder: &str) -> Option<&BTreeMap<String, Shown>> {
        self.folders.get(folder)
    }

    /// The entry at `path`, which may have the hidden tag.
    pub fn resolve(&self, path: &str) -> Option<Shown> {
        if path.is_empty() {
            return Some(Shown::Folder);
        }
        let (parent, child) = split(path);
        let children = self.folders.get(parent)?;
        if let Some(found) = children.get(child) {
            return Some(found.clone());
        }
        // The path is "bb:latest", and "bb" is shown.
        if self.notation == Notation::Docker
            && let Some(shown) = child.strip_suffix(LATEST)
            && let Some(image @ Shown::Image(entry)) = children.get(shown)
            && entry.name == path
        {
            return Some(image.clone());
        }
        self.unshown.get(path).cloned().map(Shown::Image)
    }

    /// The image with this full name.
    pub fn image(&self, name: &str) -> Option<Arc<Entry>> {
        let shown = self.notation.path_of(name);
        [shown, name]
            .into_iter()
            .find_map(|path| match self.resolve(path) {
                Some(Shown::Image(entry)) if entry.name == name => Some(entry),
                _ => None,
            })
    }
}

/// Whether a folder may list this name.
fn is_file_name(name: &str) -> bool {
    const LONGEST: usize = 255;
    !matches!(name, "" | "." | "..") && name.len() <= LONGEST && !name.contains('\0')
}

/// Splits a path into its folder (empty at the top) and its last name.
pub fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

/// Joins a folder (empty at the top) and a name.
pub fn join(folder: &str, name: &str) -> String {
    if folder.is_empty() {
        name.to_owned()
    } else {
        format!("{folder}/{name}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::SystemTime;

    fn names(list: &[&str]) -> Names {
        named(Notation::Docker, list)
    }

    fn named(notation: Notation, list: &[&str]) -> Names {
        let entries = list
            .iter()
            .map(|name| Entry {
                name: (*name).to_owned(),
                id: None,
                size: 0,
                created: SystemTime::UNIX_EPOCH,
            })
            .collect();
        Names::new(notation, entries)
    }

    fn listing(names: &Names, folder: &str) -> Vec<String> {
        names
            .children(folder)
            .map(|children| children.keys().cloned().collect())
            .unwrap_or_default()
    }

    #[test]
    fn the_tag_latest_is_hidden_but_accepted() {
        let names = names(&["bb:latest", "debian:12"]);
        assert_eq!(listing(&names, ""), ["bb", "debian:12"]);
        for path in ["bb", "bb:latest"] {
            assert!(matches!(names.resolve(path), Some(Shown::Image(e)) if e.name == "bb:latest"));
        }
        assert_eq!(names.resolve("debian"), None);
        assert_eq!(names.resolve("debian:12:latest"), None);
        assert!(names.image("bb:latest").is_some());
    }

    #[test]
    fn slashes_are_folders_also_beside_an_image_of_the_same_name() {
        let names = names(&["a:latest", "a/b:1", "localhost:5000/x/y:latest", "a:2"]);
        assert_eq!(
            listing(&names, ""),
            ["a", "a:2", "a:latest", "localhost:5000"]
        );
        assert_eq!(names.resolve("a"), Some(Shown::Folder));
        assert_eq!(listing(&names, "a"), ["b:1"]);
        assert_eq!(listing(&names, "localhost:5000/x"), ["y"]);
        assert!(names.image("a:latest").is_some());
        assert!(names.image("localhost:5000/x/y:latest").is_some());
    }

    #[test]
    fn names_that_are_no_paths_are_left_out() {
        let long = "x".repeat(256);
        let list = ["/a", "a//b", "../b", "a/..", ".", "", "a\0b", &long];
        let mut all = list.to_vec();
        all.push("good:1");
        let names = names(&all);
        assert_eq!(listing(&names, ""), ["good:1"]);
        assert_eq!(names.children("a"), None);
    }

    #[test]
    fn revisions_are_shown_where_there_are_several_and_always_accepted() {
        let list = ["one", "one@0", "two", "two@0", "two@10"];
        let names = named(Notation::Repository, &list);
        assert_eq!(listing(&names, ""), ["one", "two", "two@0", "two@10"]);
        for name in list {
            assert!(matches!(names.resolve(name), Some(Shown::Image(e)) if e.name == name));
        }
        assert_eq!(names.resolve("one@1"), None);
    }

    #[test]
    fn paths_and_names_agree() {
        for (path, name) in [
            ("bb", Some("bb:latest")),
            ("bb:1", Some("bb:1")),
            ("localhost:5000/x", Some("localhost:5000/x:latest")),
            (".hidden", None),
            ("a/.hidden", None),
        ] {
            assert_eq!(Notation::Docker.name_of(path).as_deref(), name);
        }
        assert_eq!(Notation::Repository.name_of("a@3").as_deref(), Some("a@3"));
        assert_eq!(Notation::Repository.name_of("a/b"), None);
    }
}
