//! Private parsers for the fuzzer in `fuzz/`.

/// The inside of a table of contents of a squashfs file, or a table as it is stored.
pub fn toc(data: &[u8]) {
    crate::squashfs::write::accepts(data);
    let _ = crate::squashfs::Toc::decode(data);
}
