//! Images that are reached over a connection: docker daemons and registries, with what a Dockerfile
//! names of them.
//!
//! [`docker`] and [`registry`] are sources, sinks and stores of `pcocc_image::transfer`. This is the only
//! crate of images with a network client and an asynchronous runtime; both stay behind blocking calls.
#![cfg_attr(not(test), deny(clippy::expect_used, clippy::unwrap_used))]

pub mod docker;
pub mod dockerfile;
pub mod registry;
