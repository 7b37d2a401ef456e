//! Docker VMs as jobs: allocated through Slurm or on the local machine, followed in a folder each.
//!
//! Data path: [`job`] is what every other part and every shell looks at, a folder with a record in it.
//! [`options`] tells the scheduler's options from our own; [`slurm`] runs the scheduler's commands. Beside the VM, [`launcher`]
//! makes certificates ([`tls`]), starts the [`machine`], and records each step; the command that asked for the VM holds the
//! launcher by its [`lifeline`] and receives its [`report`]s.
#![cfg_attr(not(test), deny(clippy::expect_used, clippy::unwrap_used))]

pub mod clock;
pub mod forward;
pub mod guest_image;
pub mod job;
pub mod launcher;
pub mod lifeline;
pub mod machine;
pub mod options;
mod program;
pub mod qemu;
pub mod report;
pub mod service;
pub mod shell;
pub mod slurm;
pub mod testing;
pub mod tls;
