//! Images behind a connection: docker daemons and registries, and the images that a Dockerfile names.
//!
//! [`docker`] and [`registry`] are sources, sinks and stores of `pcocc_image::transfer`. Among the crates of
//! images, this is the only one with a network client and an asynchronous runtime; both are behind blocking
//! calls.
#![cfg_attr(not(test), deny(clippy::expect_used, clippy::unwrap_used))]

pub mod docker;
pub mod dockerfile;
pub mod registry;
