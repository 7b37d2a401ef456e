//! Compressed layers.

use std::io::{Read, Write};

use pcocc_layers::Compression;
use pcocc_layers::compression::{GzipWriter, Limits, PlainSize, count_plain, open, plain_size};

/// More than this no input is inflated to.
const LIMITS: Limits = Limits {
    max_plain: 16 << 20,
    max_ratio: 1100,
};

/// A layer compressed by gzip, in members of our own or of others. As a plain layer, it survives our own compression.
pub fn gzip(data: &[u8]) {
    compressed(Compression::Gzip, data);
    let mut writer = GzipWriter::new(Vec::new(), 1);
    writer.write_all(data).expect("compress");
    let packed = writer.finish().expect("compress");
    assert_eq!(inflated(Compression::Gzip, &packed).as_deref(), Some(data));
    assert_eq!(
        claimed(Compression::Gzip, &packed),
        PlainSize::Exact(data.len() as u64)
    );
}

/// A layer compressed by zstd.
pub fn zstd(data: &[u8]) {
    compressed(Compression::Zstd, data);
}

fn compressed(compression: Compression, data: &[u8]) {
    let plain = inflated(compression, data);
    let counted = count_plain(compression, data, 1, LIMITS).ok();
    assert_eq!(counted, plain.as_ref().map(|plain| plain.len() as u64));
    if let (PlainSize::Exact(size), Some(plain)) = (claimed(compression, data), plain) {
        assert_eq!(size, plain.len() as u64);
    }
}

fn inflated(compression: Compression, data: &[u8]) -> Option<Vec<u8>> {
    let mut plain = Vec::new();
    let mut reader = open(compression, data, 1, LIMITS).ok()?;
    reader.read_to_end(&mut plain).ok().map(|_| plain)
}

fn claimed(compression: Compression, data: &[u8]) -> PlainSize {
    let mut file = tempfile::tempfile().expect("make a file");
    file.write_all(data).expect("write a file");
    plain_size(&file, compression).unwrap_or(PlainSize::Unknown)
}
