//! The inside of a docker VM: its init and agent, and the protocol that the agent and its host speak.
//!
//! Clients use [`protocol`] alone. [`layers`] is the agent's; it is here to be tested against other daemons, too.
#![cfg_attr(not(test), deny(clippy::expect_used, clippy::unwrap_used))]

pub mod layers;
pub mod protocol;
