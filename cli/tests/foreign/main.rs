//! Text of others: what a registry, a daemon, an image or a writer of a shared repository calls something.

#[path = "../sandbox/mod.rs"]
mod sandbox;

mod completion;
mod daemon;
mod files;
mod terminal;
