use std::io::{Read, Write};
use std::process::{Command, Stdio};

use proptest::prelude::*;

use super::matches::WINDOW;
use super::*;

/// Deflates `piece` and sees that libdeflate and zlib-rs inflate it again, and that it is no longer than
/// promised.
fn round_trip(deflater: &mut Deflater, piece: &[u8]) -> Vec<u8> {
    let mut stream = Vec::new();
    deflater.deflate(piece, &mut stream);
    let blocks = piece.len().div_ceil(BLOCK).max(1);
    assert!(stream.len() <= piece.len() + 6 * blocks);
    let mut plain = vec![0; piece.len()];
    let inflated = libdeflater::Decompressor::new().deflate_decompress(&stream, &mut plain);
    assert_eq!(inflated, Ok(piece.len()));
    assert!(plain == piece, "libdeflate inflates something else");
    plain.clear();
    let mut decoder = flate2::read::DeflateDecoder::new(&stream[..]);
    decoder.read_to_end(&mut plain).unwrap();
    assert_eq!(decoder.total_in(), stream.len() as u64);
    assert!(plain == piece, "zlib-rs inflates something else");
    stream
}

/// Bytes without any pattern, the same for the same seed.
fn noise(mut seed: u64, length: usize) -> Vec<u8> {
    let step = |_| {
        seed = seed
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (seed >> 56) as u8
    };
    (0..length).map(step).collect()
}

#[test]
fn pieces_of_every_kind_come_back() {
    let deflater = &mut Deflater::new();
    let words = |length: usize| {
        let pick = |byte: &u8| {
            [&b"layer "[..], b"image ", b"config\n", b"\0\0\0\0"][usize::from(byte % 4)]
        };
        let mut words: Vec<u8> = noise(1, length).iter().flat_map(pick).copied().collect();
        words.truncate(length);
        words
    };
    let numbers = (0..PIECE as u32 / 4).flat_map(u32::to_le_bytes).collect();
    for piece in [
        noise(1, PIECE),
        words(PIECE),
        vec![0; PIECE],
        vec![0xff; PIECE],
        numbers,
    ] {
        for length in [
            0,
            1,
            2,
            3,
            15,
            16,
            17,
            300,
            BLOCK - 1,
            BLOCK,
            BLOCK + 1,
            PIECE - 1,
            PIECE,
        ] {
            round_trip(deflater, &piece[..length]);
        }
    }
    assert!(round_trip(deflater, &[0; PIECE]).len() < PIECE / 700);
    assert!(round_trip(deflater, &words(PIECE)).len() < PIECE / 3);
}

#[test]
fn matches_reach_as_far_back_as_the_window_and_no_further() {
    let deflater = &mut Deflater::new();
    let repeated = 300;
    for distance in [
        1,
        2,
        3,
        4,
        7,
        8,
        9,
        255,
        256,
        257,
        WINDOW - 1,
        WINDOW,
        WINDOW + 1,
    ] {
        let mut piece = noise(7, distance);
        for at in 0..repeated {
            piece.push(piece[at]);
        }
        piece.extend(noise(8, 50));
        let stream = round_trip(deflater, &piece);
        let saved = piece.len().saturating_sub(stream.len());
        let in_reach = distance <= WINDOW;
        assert_eq!(
            saved > repeated / 2,
            in_reach,
            "{distance}: {saved} bytes saved"
        );
    }
}

#[test]
fn a_match_crosses_the_end_of_a_block() {
    let deflater = &mut Deflater::new();
    for before in 0..300 {
        let mut piece = noise(3, BLOCK - before);
        piece.extend_from_within(BLOCK - 1000..BLOCK - 700);
        piece.extend(noise(4, 1000));
        round_trip(deflater, &piece);
    }
}

#[test]
fn a_piece_does_not_depend_on_those_before() {
    let piece = [noise(5, 5000), noise(6, 3000).repeat(3), vec![3; 70_000]].concat();
    let fresh = round_trip(&mut Deflater::new(), &piece);
    let deflater = &mut Deflater::new();
    for before in [noise(9, PIECE), vec![3; PIECE], piece.repeat(3)] {
        round_trip(deflater, &before);
        assert_eq!(round_trip(deflater, &piece), fresh);
    }
}

#[test]
fn frequencies_that_ask_for_long_codes() {
    // Byte n as often as the nth Fibonacci number, in an order without matches.
    let (mut bytes, mut pair) = (Vec::new(), (1, 1));
    for byte in 0..22u8 {
        bytes.extend(std::iter::repeat_n(byte, pair.0));
        pair = (pair.1, pair.0 + pair.1);
    }
    let order = noise(11, 4 * bytes.len());
    for (at, random) in order.as_chunks::<4>().0.iter().enumerate() {
        bytes.swap(at, u32::from_le_bytes(*random) as usize % order.len() / 4);
    }
    round_trip(&mut Deflater::new(), &bytes);
}

#[test]
fn gzip_and_python_inflate_it() {
    let piece = [
        b"some words, ".repeat(5000),
        noise(2, 70_000),
        vec![0; 90_000],
    ]
    .concat();
    let stream = round_trip(&mut Deflater::new(), &piece);
    let mut gzip = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
    gzip.extend_from_slice(&stream);
    gzip.extend_from_slice(&libdeflater::crc32(&piece).to_le_bytes());
    gzip.extend_from_slice(&(piece.len() as u32).to_le_bytes());
    let python = "import sys,zlib; d=zlib.decompressobj(-15); sys.stdout.buffer.write(\
                  d.decompress(sys.stdin.buffer.read())); assert d.eof and not d.unused_data";
    for (command, input, output) in [
        (&["gzip", "-t"][..], &gzip, &[][..]),
        (&["gzip", "-dc"], &gzip, &piece),
        (&["python3", "-c", python], &stream, &piece),
    ] {
        let mut child = Command::new(command[0])
            .args(&command[1..])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let found = std::thread::scope(|scope| {
            scope.spawn(move || stdin.write_all(input).unwrap());
            child.wait_with_output().unwrap()
        });
        assert!(found.status.success(), "{command:?}");
        assert!(found.stdout == output, "{command:?}");
    }
}

/// Runs of noise, of one byte, and copies of what was there before.
fn structured() -> impl Strategy<Value = Vec<u8>> {
    let part = (0..3u8, any::<u64>(), 1..3000usize);
    proptest::collection::vec(part, 0..60).prop_map(|parts| {
        let mut piece = Vec::new();
        for (kind, seed, length) in parts {
            match kind {
                0 => piece.extend(noise(seed, length)),
                1 => piece.extend(std::iter::repeat_n(seed as u8, length)),
                _ => {
                    let from = seed as usize % (piece.len() + 1);
                    piece.extend_from_within(from..piece.len().min(from + length));
                }
            }
        }
        piece
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn anything_comes_back(bytes: Vec<u8>, structured in structured(), few in 1..6u8) {
        let deflater = &mut Deflater::new();
        round_trip(deflater, &bytes);
        round_trip(deflater, &structured);
        // Of few different bytes: many short matches.
        let bytes: Vec<u8> = structured.iter().map(|byte| byte % few).collect();
        round_trip(deflater, &bytes);
    }
}
