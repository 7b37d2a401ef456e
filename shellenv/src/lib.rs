//! The docker environment of a job as shell code, prompt hooks, and the user's own shell.
#![cfg_attr(not(test), deny(clippy::expect_used, clippy::unwrap_used))]

mod dialect;
mod quote;

pub use dialect::Dialect;
pub use quote::{set, unset};
