//! Images, the stores that hold them, and the one transfer path between stores.
//!
//! Read [`transfer`] first: every verb that moves an image ends in [`transfer::copy`]. [`oci`] says what an
//! image is. The stores of this crate are the repository on disk, OCI layout folders, docker archives and the
//! spool. Docker daemons and registries are stores of the crate `pcocc-remote`.
#![cfg_attr(not(test), deny(clippy::expect_used, clippy::unwrap_used))]

pub mod archive;
pub mod error;
pub mod formats;
pub mod ingest;
pub mod layout;
pub mod meter;
mod new_file;
pub mod oci;
pub mod origin;
pub mod reference;
pub mod repository;
pub mod spool;
pub mod store;
pub mod stream;
pub mod testing;
pub mod transfer;
pub mod vmdisk;

pub use error::{Error, Result};
