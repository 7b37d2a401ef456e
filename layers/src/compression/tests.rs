use std::io::{self, Read, Seek, Write};

use flate2::read::MultiGzDecoder;

use super::*;
use crate::compression::Compression;
use crate::digest::Digest;
use crate::error::{Error, Result};

fn gzip(plain: &[u8], chunk: usize, threads: usize) -> Vec<u8> {
    let mut writer = GzipWriter::new(Vec::new(), threads);
    for part in plain.chunks(chunk.max(1)) {
        writer.write_all(part).unwrap();
        writer.flush().unwrap();
    }
    writer.finish().unwrap()
}

fn inflate_limited(compression: Compression, blob: &[u8], limits: Limits) -> Result<Vec<u8>> {
    let mut plain = Vec::new();
    open(compression, blob, 2, limits)?
        .read_to_end(&mut plain)
        .map_err(Error::io("inflate", "layer"))?;
    Ok(plain)
}

fn inflate(compression: Compression, blob: &[u8]) -> Result<Vec<u8>> {
    inflate_limited(compression, blob, Limits::default())
}

/// Bytes that compress somewhat, the same at every run.
fn text(length: usize) -> Vec<u8> {
    let mut state = 1u64;
    (0..length)
        .map(|_| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1);
            b"pcocc layer tar\n"[(state >> 60) as usize]
        })
        .collect()
}

fn foreign(plain: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

fn file(content: &[u8]) -> std::fs::File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(content).unwrap();
    file.rewind().unwrap();
    file
}

#[test]
fn blobs_are_deterministic_and_plain_gzip_to_others() {
    for length in [0, 1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE + 77] {
        let plain = text(length);
        let blob = gzip(&plain, 1000, 1);
        assert_eq!(blob, gzip(&plain, PIECE + 3, 4), "{length}");
        let mut other = Vec::new();
        MultiGzDecoder::new(&blob[..])
            .read_to_end(&mut other)
            .unwrap();
        assert_eq!(Digest::of(&other), Digest::of(&plain), "{length}");
        assert_eq!(inflate(Compression::Gzip, &blob).unwrap(), plain);
        assert_eq!(
            plain_size(&file(&blob), Compression::Gzip).unwrap(),
            PlainSize::Exact(length as u64)
        );
    }
}

#[test]
fn gunzip_and_python_read_our_blobs() {
    let plain = text(2 * PIECE + 5);
    let blob = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(blob.path(), gzip(&plain, PIECE, 2)).unwrap();
    let python = "import gzip,sys; sys.stdout.buffer.write(gzip.open(sys.argv[1]).read())";
    for command in [&["gzip", "-dc"][..], &["python3", "-c", python]] {
        let output = std::process::Command::new(command[0])
            .args(&command[1..])
            .stdin(std::fs::File::open(blob.path()).unwrap())
            .arg(if command[0] == "gzip" {
                "-"
            } else {
                blob.path().to_str().unwrap()
            })
            .output()
            .unwrap();
        assert!(output.status.success(), "{command:?}");
        assert_eq!(output.stdout, plain, "{command:?}");
    }
}

#[test]
fn blobs_of_others_inflate() {
    let plain = text(PIECE + 99);
    let zstd = zstd::encode_all(&plain[..], 3).unwrap();
    assert_eq!(inflate(Compression::None, &plain).unwrap(), plain);
    assert_eq!(inflate(Compression::Zstd, &zstd).unwrap(), plain);
    assert_eq!(inflate(Compression::Gzip, &foreign(&plain)).unwrap(), plain);
    // Two frames, two members, ours followed by another's.
    let twice = [&plain[..], &plain[..]].concat();
    assert_eq!(inflate(Compression::Zstd, &zstd.repeat(2)).unwrap(), twice);
    assert_eq!(
        inflate(Compression::Gzip, &foreign(&plain).repeat(2)).unwrap(),
        twice
    );
    let mixed = [gzip(&plain, PIECE, 2), foreign(&plain)].concat();
    assert_eq!(inflate(Compression::Gzip, &mixed).unwrap(), twice);
    assert_eq!(
        count_plain(Compression::Gzip, &mixed[..], 1, Limits::default()).unwrap(),
        twice.len() as u64
    );
}

#[test]
fn sizes_are_told_as_far_as_they_are_known() {
    let plain = text(5000);
    let size = |blob: &[u8], compression| plain_size(&file(blob), compression).unwrap();
    let zstd = zstd::bulk::compress(&plain, 3).unwrap();
    assert_eq!(size(&plain, Compression::None), PlainSize::Exact(5000));
    assert_eq!(
        size(&foreign(&plain), Compression::Gzip),
        PlainSize::Guess(5000)
    );
    assert_eq!(size(&zstd, Compression::Zstd), PlainSize::Guess(5000));
    let ours = gzip(&plain, PIECE, 1);
    let mixed = [ours.clone(), foreign(&plain)].concat();
    for (blob, compression) in [
        (&mixed[..], Compression::Gzip),
        (&ours[..ours.len() - 1], Compression::Gzip),
        (b"", Compression::Gzip),
        (b"", Compression::Zstd),
        (&[b'x'; 100], Compression::Gzip),
    ] {
        assert_eq!(size(blob, compression), PlainSize::Unknown);
    }
}

#[test]
fn what_is_cut_off_damaged_or_followed_by_garbage_is_refused() {
    let plain = text(PIECE + 1000);
    for (compression, blob) in [
        (Compression::Gzip, gzip(&plain, PIECE, 2)),
        (Compression::Gzip, foreign(&plain)),
        (Compression::Zstd, zstd::encode_all(&plain[..], 1).unwrap()),
    ] {
        for cut in [0, 1, 5, 17, 25, blob.len() / 2, blob.len() - 1] {
            let error = inflate(compression, &blob[..cut]).unwrap_err();
            assert!(
                matches!(error, Error::Invalid { .. }),
                "{compression:?} {cut}: {error}"
            );
        }
        for garbage in [&b"garbage"[..], &[0; 512], &b"\x1f\x8b"[..]] {
            let error = inflate(compression, &[&blob[..], garbage].concat()).unwrap_err();
            assert!(
                matches!(error, Error::Invalid { .. }),
                "{compression:?}: {error}"
            );
        }
    }
    // A member that lies about its length, in both directions.
    let blob = gzip(&plain, PIECE, 1);
    for lie in [0, 28, 29, 1000, u32::MAX] {
        let mut blob = blob.clone();
        blob[16..20].copy_from_slice(&u32::to_le_bytes(lie));
        // One that cannot be a length makes the member another's; it is a good one then.
        if let Ok(found) = inflate(Compression::Gzip, &blob) {
            assert_eq!(found, plain, "{lie}");
        }
    }
}

#[test]
fn errors_of_the_blobs_reader_come_out_as_they_are() {
    struct Failing;
    impl Read for Failing {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::from_raw_os_error(5))
        }
    }
    let plain = text(PIECE);
    for (compression, blob) in [
        (Compression::None, plain.clone()),
        (Compression::Gzip, gzip(&plain, PIECE, 1)),
        (Compression::Gzip, foreign(&plain)),
        (Compression::Zstd, zstd::encode_all(&plain[..], 1).unwrap()),
    ] {
        let half = blob[..blob.len() / 2].chain(Failing);
        let error = count_plain(compression, half, 2, Limits::default()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(5), "{compression:?}: {error}");
    }
}

#[test]
fn bombs_are_refused() {
    let blob = gzip(&vec![0; 4 * PIECE], PIECE, 2);
    let limits = Limits {
        max_plain: PIECE as u64,
        ..Limits::default()
    };
    let error = inflate_limited(Compression::Gzip, &blob, limits).unwrap_err();
    assert!(error.to_string().contains("more than the"), "{error}");
    // 1.25 GiB of zeros in some 40 kB of zstd.
    let zeros = io::repeat(0).take(5 << 28);
    let blob = zstd::encode_all(zeros, 1).unwrap();
    let error = count_plain(Compression::Zstd, &blob[..], 1, Limits::default()).unwrap_err();
    assert!(error.to_string().contains("attack"), "{error}");
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(24))]

    #[test]
    fn inflating_undoes_compressing(
        seed: Vec<u8>, repeat in 1..60_000usize, chunk in 1..(2 * PIECE), threads in 1..4usize,
    ) {
        let mut plain = seed.repeat(repeat);
        plain.truncate(5 * PIECE);
        let blob = gzip(&plain, chunk, threads);
        proptest::prop_assert!(inflate(Compression::Gzip, &blob).unwrap() == plain);
        let known = plain_size(&file(&blob), Compression::Gzip).unwrap();
        proptest::prop_assert_eq!(known, PlainSize::Exact(plain.len() as u64));
    }

    #[test]
    fn damage_never_passes(at: proptest::sample::Index, flip in 1..=255u8, ours: bool) {
        let plain = text(PIECE + 4321);
        let mut blob = if ours { gzip(&plain, PIECE, 1) } else { foreign(&plain) };
        let at = at.index(blob.len());
        blob[at] ^= flip;
        // What is not content (times, flags) may change; the content may not.
        if let Ok(found) = inflate(Compression::Gzip, &blob) {
            proptest::prop_assert!(found == plain);
        }
    }
}

#[test]
fn a_zstd_blob_is_good_or_bad_whatever_the_size_of_a_buffer() {
    // A frame that promises 256 bytes and has one empty block.
    let frame = b"\x28\xb5\x2f\xfd\x50\x2a\x00\x00\x01\x00\x00";
    let read = |size: usize| {
        let mut plain = open(Compression::Zstd, &frame[..], 1, Limits::default()).unwrap();
        let mut buffer = vec![0; size];
        plain.read(&mut buffer).is_ok()
    };
    for size in [1, 32, 255, 256, 8192, 1 << 20] {
        assert!(!read(size), "{size}");
    }
}
