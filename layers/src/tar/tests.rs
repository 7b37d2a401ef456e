//! Both fronts read the same entries, and agree on what is none.

pub(crate) mod archive;

use std::io::{self, Read};

use proptest::prelude::*;

use self::archive::{Archive, pax_record, push_raw};
use super::*;

/// Entries with their stored content.
type Found = Result<Vec<(Entry, Vec<u8>)>, String>;

struct Bytes<'a>(&'a [u8]);

impl ReadAt for Bytes<'_> {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let start = self.0.len().min(offset as usize);
        (&self.0[start..]).read(buffer)
    }
}

fn entries<F: decoder::Front>(mut tar: Decoder<F>, with_content: bool) -> Found {
    let mut found = Vec::new();
    while let Some(entry) = tar.next_entry().map_err(|error| error.to_string())? {
        let mut content = Vec::new();
        if with_content {
            let read = tar.read_to_end(&mut content).map_err(TarError::from);
            read.map_err(|error| error.to_string())?;
        }
        found.push((entry, content));
    }
    Ok(found)
}

/// What both fronts see, whether content is read or passed over.
fn both(bytes: &[u8]) -> Found {
    let input = Bytes(bytes);
    let read = entries(TarStream::new(bytes), true);
    assert_eq!(entries(TarFile::new(&input), true), read);
    let passed = entries(TarStream::new(bytes), false);
    assert_eq!(entries(TarFile::new(&input), false), passed);
    let bare = |found: &Found| match found {
        Ok(found) => Ok(found.iter().map(|(entry, _)| entry.clone()).collect()),
        Err(why) => Err::<Vec<_>, _>(why.clone()),
    };
    assert_eq!(bare(&read), bare(&passed));
    read
}

fn file(path: &str, content: &[u8]) -> Vec<u8> {
    let tar = Archive::new().file(path, content).build();
    tar[..tar.len() - 1024].to_vec()
}

fn raw(kind: u8, size: &[u8; 12], content: &[u8]) -> Vec<u8> {
    let mut tar = Vec::new();
    push_raw(&mut tar, kind, size, content);
    tar
}

/// A size in base 256.
fn binary(size: i64) -> [u8; 12] {
    let mut field = [if size < 0 { 0xff } else { 0 }; 12];
    field[4..].copy_from_slice(&size.to_be_bytes());
    field[0] |= 0x80;
    field
}

#[test]
fn where_readers_could_disagree_both_fronts_follow_go() {
    let zeros = |count: usize| vec![0; count];
    let a = || file("a", b"abc");
    let record = |text: &[u8]| raw(b'x', &binary(text.len() as i64), text);
    let long = |size: usize| raw(b'L', &binary(size as i64), &vec![b'n'; size]);
    let global = raw(b'g', &binary(10), &pax_record("path", b"b"));
    type Case = (
        &'static str,
        Vec<u8>,
        Result<&'static [&'static str], &'static str>,
    );
    let cases: Vec<Case> = vec![
        ("nothing", vec![], Ok(&[])),
        ("an end without zero blocks", a(), Ok(&["a"])),
        (
            "one zero block at the end",
            [a(), zeros(512)].concat(),
            Ok(&["a"]),
        ),
        (
            "bytes behind the end",
            [a(), zeros(1024), vec![7; 99]].concat(),
            Ok(&["a"]),
        ),
        ("no padding", a()[..515].to_vec(), Ok(&["a"])),
        (
            "a stray zero block",
            [zeros(512), a()].concat(),
            Err("stray zero block"),
        ),
        ("a cut header", a()[..100].to_vec(), Err("truncated")),
        ("cut content", a()[..514].to_vec(), Err("truncated")),
        ("no content", a()[..512].to_vec(), Err("truncated")),
        ("noise", vec![b'x'; 4096], Err("not a tar archive")),
        (
            "a size in base 256",
            raw(b'0', &binary(3), b"abc"),
            Ok(&["raw"]),
        ),
        (
            "a negative size",
            raw(b'0', &binary(-3), b"abc"),
            Err("negative size"),
        ),
        (
            "an absurd size",
            raw(b'0', &binary(i64::MAX), b""),
            Err("absurd size"),
        ),
        (
            "a size above 63 bits",
            raw(b'0', &[0xbf; 12], b""),
            Err("too large"),
        ),
        (
            "a size that is none",
            raw(b'0', b"12x\0\0\0\0\0\0\0\0\0", b""),
            Err("broken number"),
        ),
        ("global records", [global, a()].concat(), Ok(&["a"])),
        (
            "a pax path",
            [record(&pax_record("path", b"p")), a()].concat(),
            Ok(&["p"]),
        ),
        (
            "an empty pax path",
            [record(b"8 path=\n"), a()].concat(),
            Ok(&["a"]),
        ),
        (
            "a pax size",
            [record(b"9 size=1\n"), file("a", b"abc")].concat(),
            Ok(&["a"]),
        ),
        (
            "a pax record without end",
            [record(b"12 path=abc"), a()].concat(),
            Err("pax record"),
        ),
        (
            "a pax record of length 0",
            [record(b"0 a=b\n"), a()].concat(),
            Err("pax record"),
        ),
        (
            "a pax record too long",
            [record(b"99 a=b\n"), a()].concat(),
            Err("pax record"),
        ),
        (
            "a pax record without =",
            [record(b"5 ab\n"), a()].concat(),
            Err("pax record"),
        ),
        (
            "a pax record too short",
            [record(b"7 a=b\n"), a()].concat(),
            Err("pax record"),
        ),
        (
            "a pax size that is none",
            [record(b"9 size=x\n"), a()].concat(),
            Err("broken number"),
        ),
        ("a name of 1 MiB", [long(1 << 20), a()].concat(), Ok(&[""])),
        (
            "a name above 1 MiB",
            [long((1 << 20) + 1), a()].concat(),
            Err("longer than 1 MiB"),
        ),
        (
            "global records above 1 MiB",
            [raw(b'g', &binary(1 << 21), &vec![0; 1 << 21]), a()].concat(),
            Err("longer than 1 MiB"),
        ),
        (
            "five names of 1 MiB",
            [long(1 << 20).repeat(5), a()].concat(),
            Err("too many"),
        ),
        (
            "a name without a file",
            long(20),
            Err("ends after an extension"),
        ),
        (
            "a link with a size",
            [raw(b'2', &binary(9), b""), a()].concat(),
            Ok(&["raw", "a"]),
        ),
        (
            "a sparse file",
            Archive::gnu_sparse("s", &[(5, 1)], 9, b"x"),
            Ok(&["s"]),
        ),
        (
            "an odd type",
            [raw(b'Z', &binary(3), b"abc"), a()].concat(),
            Ok(&["raw", "a"]),
        ),
    ];
    for (name, bytes, expected) in cases {
        match (both(&bytes), expected) {
            (Ok(found), Ok(paths)) => {
                let found: Vec<_> = found.iter().map(|(entry, _)| &entry.path).collect();
                let is_long = found.iter().any(|path| path.len() == 1 << 20);
                let paths: Vec<_> = paths.iter().map(|path| path.as_bytes()).collect();
                assert!(is_long || found == paths, "{name}: {found:?}");
            }
            (Err(why), Err(words)) => assert!(why.contains(words), "{name}: {why}"),
            (found, _) => panic!("{name}: {found:?}"),
        }
    }
}

#[test]
fn the_seeking_front_tells_where_content_lies() {
    let bytes = [file("a", b""), file("b", b"content"), file("c", &[7; 600])].concat();
    let input = Bytes(&bytes);
    let mut tar = TarFile::new(&input);
    for content in [&b""[..], b"content", &[7; 600]] {
        assert_eq!(
            tar.next_entry().unwrap().unwrap().size,
            content.len() as u64
        );
        let start = tar.offset() as usize;
        assert_eq!(&bytes[start..start + content.len()], content);
    }
    assert!(tar.next_entry().unwrap().is_none());
}

const KEYS: &[&str] = &[
    "path",
    "size",
    "mtime",
    "uid",
    "SCHILY.xattr.a",
    "GNU.sparse.map",
    "x",
];

/// One of some kinds of entries, with names short and long, attributes and content.
fn any_entry() -> impl Strategy<Value = Archive> {
    let name = prop_oneof!["[a-z/.]{1,20}", "[a-z]{90,130}", "[a-z]{600}"];
    let link = prop_oneof!["[a-z/]{0,9}", "[a-z]{90,130}"];
    let kind = prop::sample::select(b"0012567SZ".as_slice());
    let content = prop::collection::vec(any::<u8>(), 0..1200);
    let pax = (prop::sample::select(KEYS), "[0-9a-z,]{0,6}");
    let pax = prop::collection::vec(pax, 0..2);
    (kind, name, link, content, pax).prop_map(|(kind, name, link, content, pax)| {
        let mut tar = Archive::new();
        let content = match kind {
            b'0' | b'7' | b'S' | b'Z' => content,
            _ => Vec::new(),
        };
        tar.entry(kind, &name, &link, &content);
        for (key, value) in &pax {
            tar.pax(&[(key, value.as_bytes())]);
        }
        tar
    })
}

proptest! {
    #[test]
    fn both_fronts_agree_on_any_archive(
        parts in prop::collection::vec(any_entry(), 0..6),
        end in prop::sample::select([0usize, 512, 1024].as_slice()),
        damage in prop::option::of((any::<prop::sample::Index>(), any::<u8>())),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes: Vec<u8> = parts
            .iter()
            .flat_map(|part| {
                let tar = part.build();
                tar[..tar.len() - 1024].to_vec()
            })
            .collect();
        bytes.resize(bytes.len() + end, 0);
        if let Some((at, byte)) = damage
            && !bytes.is_empty()
        {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len() + 1));
        }
        let _ = both(&bytes);
    }
}
