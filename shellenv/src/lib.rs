//! The docker environment of a job as shell code, prompt hooks, and the user's own shell.
#![cfg_attr(not(test), deny(clippy::expect_used, clippy::unwrap_used))]

mod dialect;
mod environment;
pub mod parent;
mod quote;
mod saved;

pub use dialect::Dialect;
pub use environment::{Changes, DockerEnvironment, JOB, PROMPT, SAVED, Variables, leave, touched};
pub use quote::{set, unset};
