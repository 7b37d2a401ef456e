//! Allocation of docker VMs through Slurm or on the local machine.
#![cfg_attr(not(test), deny(clippy::expect_used, clippy::unwrap_used))]

pub mod machine;
pub mod testing;
