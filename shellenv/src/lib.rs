//! The docker environment of a job as shell code, prompt hooks, and the user's own shell.
//!
//! [`DockerEnvironment`] and the variables that are set now give [`Changes`]; those are written as code
//! for a [`Dialect`], or made in the environment of a child. [`hook()`] gives what a shell evaluates once to
//! show the job in its prompt; [`spawn`] starts the user's own shell with both.
#![cfg_attr(not(test), deny(clippy::expect_used, clippy::unwrap_used))]

mod dialect;
mod environment;
mod hook;
pub mod parent;
mod quote;
mod saved;
pub mod spawn;

pub use dialect::Dialect;
pub use environment::{Changes, DockerEnvironment, JOB, PROMPT, SAVED, Variables, leave, touched};
pub use hook::{filled, hook};
pub use quote::{set, unset};
