//! Receiving an image into a folder of blobs, with its root filesystem as squashfs.
//!
//! Every [`crate::transfer::Receiver`] that writes blobs to disk consists of an [`Ingest`] and a [`BlobDir`]:
//! the repository, and the spool of a daemon's images.
//!
//! Data path of a layer (`receive.rs`): is the layer there, by diff ID or by blob digest? → if it is not, or if
//! only reading can tell, one pass over its stream (`pass.rs`) hashes both sides of the compression, stores the
//! layer in a temporary file and feeds the squashfs writer → the digests must be those of the offer → the file
//! becomes a blob. The receiver publishes names later, so blobs without an image do no harm. Layers that are
//! there are not stored again; the squashfs reads their blobs. Layers that the squashfs file of another image has are
//! copied from that file (`root.rs`), and the squashfs reads them nowhere else.

mod blob_dir;
mod channel;
mod options;
mod output;
mod pass;
mod receive;
mod root;
mod runtime_config;
#[cfg(test)]
mod tests;

pub use blob_dir::BlobDir;
pub use options::Options;
pub use receive::{Ingest, Rootfs};
pub use root::Base;
pub use runtime_config::runtime_config;
