//! What docs/SEMANTICS.md promises of the mounted tree, section by section.

mod completion;
mod copiers;
mod counting;
mod failures;
mod hello;
mod life;
mod names;
mod refusals;
mod removing;
mod rootfs;
mod spool;
mod stopping;
mod tools;
mod tree;
mod waiting;
