//! Candidates for tab completion, from local state or from a recent answer of an outside system.
//!
//! Nothing here fails: an error gives no candidates.
#![cfg_attr(not(test), deny(clippy::expect_used, clippy::unwrap_used))]

mod candidate;
pub mod images;
pub mod jobs;
mod recent;
pub mod scheduler;

pub use candidate::Candidate;
pub use recent::Recent;
