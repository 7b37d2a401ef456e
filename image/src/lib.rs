//! Images, the stores that hold them, and the one transfer path between stores.
//!
//! Read [`transfer`] first: every verb that moves an image ends in [`transfer::copy`]. What an image
//! is stands in [`oci`]; the stores are the repository on disk, docker daemons, OCI layout folders,
//! docker archives and registries.
#![cfg_attr(not(test), deny(clippy::expect_used, clippy::unwrap_used))]

pub mod archive;
pub mod digest;
pub mod docker;
pub mod dockerfile;
pub mod error;
pub mod formats;
pub mod ingest;
pub mod layer;
pub mod layout;
#[cfg(test)]
mod memory;
pub mod oci;
pub mod origin;
pub mod reference;
pub mod registry;
pub mod repository;
pub mod spool;
pub mod squashfs;
pub mod store;
mod stream;
pub mod testing;
pub mod transfer;
pub mod vmdisk;

pub use digest::{ChainId, DiffId, Digest};
pub use error::{Error, Result};
