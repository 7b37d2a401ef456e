//! An image folder while a tool writes it.
//!
//! [`StagedFolder`] is the folder with its names, [`StagedFile`] a file in it. [`layout_role`] says which paths
//! are allowed, and [`examine()`] says when the folder is an image. Locks: a folder's state, then a file's
//! data; never the other way round.

mod examine;
mod file;
mod folder;
mod id;
mod layout;
mod source;
#[cfg(test)]
mod tests;

pub use examine::{StagedImage, Verdict, examine};
pub use file::StagedFile;
pub use folder::{Item, Phase, StagedFolder, State};
pub use layout::{Role, layout_role};
pub use source::Source;
