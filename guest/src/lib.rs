//! The inside of a docker VM: its init and agent, and the protocol that the agent and its host speak.
#![cfg_attr(not(test), deny(clippy::expect_used, clippy::unwrap_used))]

pub mod protocol;
