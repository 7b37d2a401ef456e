//! Archives as `docker save` writes them (`docker-archive:PATH`).
//!
//! Data path of reading ([`ArchiveFile`]): the index notes the offset of every entry, in one pass over the tar
//! headers → `manifest.json` names configs and layers → the image of the wanted name is picked → layers are
//! offered in the file's order, each a stretch of the file. An archive that is compressed as a whole (`docker
//! save | gzip`) is read by a decompressor that only goes forward: nothing is unpacked to disk. Docker before
//! and after version 25, podman and skopeo name their entries differently; only `manifest.json` counts.
//! [`ArchiveSink`] writes.

mod file;
mod index;
mod manifest;
mod packing;
mod sink;
mod stretch;
#[cfg(test)]
mod tests;

pub use file::{ArchiveFile, looks_like};
pub use index::fold;
pub use sink::ArchiveSink;
