//! Docker VMs as jobs: allocated through Slurm or on the local machine, followed in a folder each.
//!
//! Data path: [`job`] is what every other part and every shell looks at, a folder with a record in it.
//! [`machine`] is one VM on one node.
#![cfg_attr(not(test), deny(clippy::expect_used, clippy::unwrap_used))]

pub mod job;
pub mod machine;
pub mod testing;
