//! Reads tar archives entry by entry, with every extension applied and bounded.
//!
//! The crate `tar` decodes header blocks. The walk is ours, because an archive is hostile input: the crate's
//! iterator reads a pax or long-name record of any length into memory, takes an early end for the end, knows no
//! pax sparse files, and expands sparse files to zeros.
//!
//! Data path: header blocks and extension records ([`header`], [`pax`], [`sparse`]) → [`Entry`] → the caller
//! reads the content straight from the archive. One [`Decoder`] serves two fronts: [`TarStream`] reads front to
//! back, [`TarFile`] reads headers at offsets and skips content. Where the formats leave a choice, the rules
//! are those of Go's `archive/tar`, which the daemon uses: global pax records are skipped, an end without zero
//! blocks is an end, a single zero block is an error.

mod decoder;
mod entry;
mod error;
mod front;
mod header;
mod pax;
mod sparse;

#[cfg(test)]
pub(crate) mod tests;

pub use decoder::Decoder;
pub use entry::Entry;
pub use error::TarError;
pub use front::{ReadAt, TarFile, TarStream};
pub use tar::EntryType;
