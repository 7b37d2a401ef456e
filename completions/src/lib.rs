//! Candidates for tab completion. Nothing is built yet: the crate holds its place among the arrows of `docs/ARCHITECTURE.md`.
#![cfg_attr(not(test), deny(clippy::expect_used, clippy::unwrap_used))]
