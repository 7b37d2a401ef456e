//! Runs images without docker and without root.
//!
//! Data path: the image's config ([`config`]), the site's `containers.yaml`
//! ([`pcocc_core::containers::ContainerTemplates`]), what its generators print ([`generator`]), and the options make
//! a [`plan`], which is a function of these alone → [`sandbox::run`] gives every mount its place in the
//! image, starts a process in namespaces of its own, serves the image's squashfs to it, and waits for the
//! command's end. Through Slurm, the same happens on each node ([`slurm`]).
#![cfg_attr(not(test), deny(clippy::expect_used, clippy::unwrap_used))]

pub mod account;
pub mod config;
pub mod generator;
pub mod mount;
pub mod plan;
pub mod sandbox;
pub mod slurm;
pub mod variables;
