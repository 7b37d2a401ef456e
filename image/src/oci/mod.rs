//! The OCI image model: a manifest, a config whose bytes are never rewritten, and layers.
//!
//! Follows the OCI image spec 1.1 (manifest, config, index) and reads docker's schema 2 as well, which
//! differs in media types only. OCI media types are written, docker's only for a registry that refuses those. The image ID is the digest of the
//! config's bytes. [`Documents`] leads from an index to the [`Image`] for this machine.

mod config;
mod descriptor;
mod documents;
mod image;
mod index;
mod layer;
pub mod lenient;
mod manifest;
mod media_types;
mod platform;
#[cfg(test)]
mod tests;

pub use config::diff_ids;
pub use descriptor::MAX_DOCUMENT;
pub use documents::{Documents, MAX_NESTING};
pub use image::Image;
pub use index::{ManifestDescriptor, REF_NAME, parse_index, select_manifest};
pub use layer::Layer;
pub use manifest::{MAX_LAYERS, config_of, is_index};
pub use media_types::{DOCKER_MANIFEST, OCI_MANIFEST};
pub use platform::Platform;
