//! What the pcocc crates share: config files, path templates, folders that others can write to,
//! atomic publishing, progress events and cancellation. Nothing here knows what an image is.
#![cfg_attr(not(test), deny(clippy::expect_used, clippy::unwrap_used))]

pub mod batch;
pub mod beneath;
pub mod cancel;
pub mod child;
pub mod containers;
pub mod durable;
pub mod file_error;
pub mod hex;
pub mod named;
pub mod process;
pub mod progress;
pub mod qcow2;
pub mod repos;
pub mod schema;
pub mod settings;
pub mod size;
pub mod template;
pub mod templates;
pub mod trust;
pub mod yaml;

pub use file_error::FileError;
pub use yaml::ConfigError;
