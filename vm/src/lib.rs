//! Allocation of docker VMs, through Slurm or on the local machine. Nothing is built yet: the crate holds its place among the arrows of `docs/ARCHITECTURE.md`.
#![cfg_attr(not(test), deny(clippy::expect_used, clippy::unwrap_used))]
