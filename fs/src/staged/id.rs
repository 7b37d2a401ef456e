//! What tells staged files and folders apart: two with the same content are not the same.

use std::sync::atomic::{AtomicU64, Ordering};

/// Identity of a staged file or folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct StagedId(u64);

impl StagedId {
    pub(super) fn next() -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        Self(LAST.fetch_add(1, Ordering::Relaxed))
    }
}

/// Compares values by their field `id`.
macro_rules! compare_by_id {
    ($type:ty) => {
        impl PartialEq for $type {
            fn eq(&self, other: &Self) -> bool {
                self.id == other.id
            }
        }

        impl Eq for $type {}

        impl std::hash::Hash for $type {
            fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
                std::hash::Hash::hash(&self.id, state);
            }
        }
    };
}

pub(super) use compare_by_id;
