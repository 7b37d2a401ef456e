//! The layers of docker's images, read out of the files that docker keeps.
//!
//! Data path of a layer: its chain ID → docker's notes about it ([`GraphDriver`]) → the tar without the content of
//! files ([`tar_split`]), into which the content goes from the folder in which docker unpacked the layer → the very
//! bytes of the tar. A docker with containerd's image store has blobs instead ([`ContentStore`]).
//!
//! Nothing is written, and no lock of docker's is taken. A layer whose image is removed meanwhile ends with an error.
//! Nothing here is believed by who asks: the digest of the bytes tells.

mod beneath;
mod content_store;
mod error;
mod graph_driver;
pub mod tar_split;
#[cfg(test)]
mod tests;

pub use content_store::{Blob, ContentStore};
pub use error::Error;
pub use graph_driver::{GraphDriver, Layer, Stretch, Take};
