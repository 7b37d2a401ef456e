//! Image repositories on disk, in the format of pcocc 0.7, and the cache beside them.
//!
//! Disk layout of one repository ([`Repository`]):
//!
//! ```text
//! REPO/.config           "version: 2\n"
//! REPO/meta/NAME@REV     JSON, see [`Meta`]; version 1 has meta/xx/<sha256 of "NAME\nREV">, in YAML
//! REPO/data/xx/<hex>     blobs by sha256, mode 0444
//! REPO/.tmp/             work in progress, named HOST.PID.RANDOM
//! ```
//!
//! Data path of an import: [`RepositorySink`] checks the name → layers stream into temporary files → blobs are
//! flushed and linked into `data/` → the metadata is linked into `meta/`, last, and never over an existing
//! file. Reading goes from `meta/` through the OCI index in the metadata to the blobs, which are all verified.
//!
//! There are no locks, so that many machines can share a repository on NFS or Lustre. Deleting an image removes
//! only its metadata. [Garbage collection](Repository::collect) deletes the blobs; it spares young blobs and
//! reads the metadata again before each batch.

mod blobs;
mod cache;
mod cache_gc;
mod cache_layers;
mod changes;
mod disks;
mod folder;
mod gc;
mod images;
mod layer_index;
mod listing;
mod meta;
mod python_json;
mod rootfs;
mod set;
mod sink;
mod store;
mod temp;
mod upgrade;
mod verify;

pub use cache::{Cache, CacheEntry, CacheKey};
pub use cache_gc::CacheCollected;
pub use folder::Repository;
pub use gc::{Collected, GcOptions};
pub use images::RepositoryImage;
pub use listing::{BadMeta, Listing};
pub use meta::{Kind, Meta};
pub use set::Repositories;
pub use sink::RepositorySink;
pub use store::RepositoryStore;
pub use verify::Verified;

pub use temp::{is_abandoned, prefix as process_prefix};

#[cfg(test)]
mod tests;
