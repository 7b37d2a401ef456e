//! An image folder while a tool writes it.
//!
//! [`StagedFolder`] is the folder with its names, [`StagedFile`] a file in it. [`layout_role`] says which paths
//! are allowed, and [`examine()`] says when the folder is an image. Locks: a folder's state, then a file's
//! data; never the other way round.

mod examine;
mod file;
mod folder;
mod layout;
mod source;
#[cfg(test)]
mod tests;

use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};

pub use examine::{StagedImage, Verdict, examine};
pub use file::StagedFile;
pub use folder::{Item, Phase, StagedFolder, State};
pub use layout::{Role, layout_role};
pub use source::Source;

/// Identity of a staged file or folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct StagedId(u64);

impl StagedId {
    fn next() -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        Self(LAST.fetch_add(1, Ordering::Relaxed))
    }
}

macro_rules! compare_by_id {
    ($type:ty) => {
        impl PartialEq for $type {
            fn eq(&self, other: &Self) -> bool {
                self.id == other.id
            }
        }

        impl Eq for $type {}

        impl Hash for $type {
            fn hash<H: Hasher>(&self, state: &mut H) {
                self.id.hash(state);
            }
        }
    };
}

compare_by_id!(StagedFile);
compare_by_id!(StagedFolder);
