//! Archives and files that lie.

use proptest::prelude::*;

use super::*;

/// The error a layer gives.
fn refused(tar: Vec<u8>) -> String {
    match pack(&[tar]) {
        Ok(_) => panic!("was accepted"),
        Err(error @ Error::Invalid { .. }) => error.to_string(),
        Err(error) => panic!("wrong kind of error: {error:?}"),
    }
}

fn with(build: impl FnOnce(&mut Archive)) -> Vec<u8> {
    let mut tar = Archive::new();
    build(&mut tar);
    tar.build()
}

#[test]
fn entries_that_cannot_be_kept_are_refused_with_layer_entry_and_reason() {
    let long = "n".repeat(256);
    let deep = "d/".repeat(2100);
    type Build<'b> = Box<dyn Fn(&mut Archive) + 'b>;
    let cases: Vec<(Build<'_>, &str, &str)> = vec![
        (
            Box::new(|t| {
                t.file("../x", b"");
            }),
            "../x",
            "leaves the image's root",
        ),
        (
            Box::new(|t| {
                t.file("a/../../x", b"");
            }),
            "a/../../x",
            "leaves the image's root",
        ),
        (
            Box::new(|t| {
                t.link("l", "nowhere");
            }),
            "nowhere",
            "not a file of this layer",
        ),
        (
            Box::new(|t| {
                t.link("l", "../out");
            }),
            "l",
            "leaves the image's root",
        ),
        (
            Box::new(|t| {
                t.link("l", "l");
            }),
            "l",
            "hard link to itself",
        ),
        (
            Box::new(|t| {
                t.dir("d/", 0o755).link("l", "d");
            }),
            "l",
            "hard link to a directory",
        ),
        (
            Box::new(|t| {
                t.file("f", b"").file("f/x", b"");
            }),
            "f/x",
            "not a directory",
        ),
        (
            Box::new(|t| {
                t.symlink("s", "gone").file("s/x", b"");
            }),
            "s/x",
            "symbolic link to gone",
        ),
        (
            Box::new(|t| {
                t.symlink("s", "s").file("s/x", b"");
            }),
            "s/x",
            "too many symbolic",
        ),
        (
            Box::new(|t| {
                t.file(&long, b"");
            }),
            "nnnn",
            "longer than 255",
        ),
        (
            Box::new(|t| {
                t.file(&deep, b"");
            }),
            "d/d",
            "longer than 4095",
        ),
        (
            Box::new(|t| {
                t.symlink("s", &deep);
            }),
            "s",
            "longer than 4095",
        ),
        (
            Box::new(|t| {
                t.symlink("s", "");
            }),
            "s",
            "link to nothing",
        ),
        (
            Box::new(|t| {
                t.file("f", b"").owner(1 << 32, 0);
            }),
            "f",
            "no 32-bit ID",
        ),
        (
            Box::new(|t| {
                t.file("f", b"").pax(&[("uid", b"-1")]);
            }),
            "f",
            "no 32-bit ID",
        ),
        (
            Box::new(|t| {
                t.file("f", b"").pax(&[("path", b"a\0b")]);
            }),
            "a\\0b",
            "zero byte",
        ),
        (
            Box::new(|t| {
                t.entry(b'Z', "f", "", b"");
            }),
            "f",
            "unknown type 'Z'",
        ),
        (
            Box::new(|t| {
                t.symlink("/", "x");
            }),
            "/",
            "replace the root",
        ),
        (
            Box::new(|t| {
                t.file(".wh.", b"");
            }),
            ".wh.",
            "whiteout of nothing",
        ),
        (
            Box::new(|t| {
                t.file(".wh.a/b", b"");
            }),
            ".wh.a/b",
            "inside a whiteout",
        ),
        (
            Box::new(|t| {
                t.node(b'3', "c", (1 << 13, 0));
            }),
            "c",
            "device number",
        ),
        (
            Box::new(|t| {
                t.file("f", b"").pax(&[("size", b"9999")]);
            }),
            "",
            "truncated",
        ),
        (
            Box::new(|t| {
                t.file("f", b"").pax(&[("size", b"x")]);
            }),
            "",
            "broken number",
        ),
        (
            Box::new(|t| {
                t.entry(b'x', "p", "", b"9 a=b\n");
            }),
            "",
            "broken pax record",
        ),
        (
            Box::new(|t| {
                t.entry(b'x', "p", "", b"6 a=b\n");
            }),
            "",
            "ends after an extension",
        ),
        (
            Box::new(|t| {
                t.entry(b'L', "p", "", &vec![b'n'; 2 << 20]);
            }),
            "",
            "longer than 1 MiB",
        ),
    ];
    for (build, entry, why) in cases {
        let tar = with(&*build);
        let error = refused(tar);
        assert!(error.contains(entry) && error.contains(why), "{error}");
        assert!(error.contains("layer 0"), "{error}");
    }
}

#[test]
fn archives_that_end_early_or_are_none_are_refused() {
    let whole = with(|tar| {
        tar.file("a", &noise(2000)).file("b", b"b");
    });
    for cut in [100, 512 + 100, 512 + 1999, 3000] {
        assert!(
            refused(whole[..cut].to_vec()).contains("truncated"),
            "{cut}"
        );
    }
    // Without the zero blocks at the end it is whole all the same, as for the daemon.
    pack(&[whole[..whole.len() - 1024].to_vec()]).unwrap();
    assert!(refused(noise(4096)).contains("not a tar archive"));
    let overlapping = Archive::gnu_sparse("s", &[(5, 3), (4, 2)], 1000, b"abcde");
    assert!(refused(overlapping).contains("overlap"));
    let outside = Archive::gnu_sparse("s", &[(998, 5)], 1000, b"abcde");
    assert!(refused(outside).contains("leave it"));
    let short = Archive::gnu_sparse("s", &[(0, 9)], 1000, b"abcde");
    assert!(refused(short).contains("does not match"));
}

#[test]
fn limits_stop_bombs() {
    let limited = |change: fn(&mut Options)| {
        let mut options = Options::default();
        change(&mut options);
        let tar = with(|tar| {
            tar.file("a", b"12345").file("b", b"12345").file("c", b"");
        });
        pack_with(options, &[tar]).unwrap_err().to_string()
    };
    assert!(limited(|options| options.max_bytes = 9).contains("limit of 9 bytes"));
    assert!(limited(|options| options.max_entries = 2).contains("limit of 2 entries"));
    assert!(limited(|options| options.max_names = 2).contains("limit of 2 bytes of names"));
    let bomb = Archive::gnu_sparse("s", &[], 8 << 40 >> 8, b"");
    let options = Options {
        max_bytes: 1 << 30,
        ..Options::default()
    };
    pack_with(options, &[bomb]).unwrap_err();
}

#[test]
fn too_many_owners_are_refused() {
    let tar = with(|tar| {
        for id in 0..33_000 {
            tar.file(&format!("d{}/f{id}", id / 100), b"")
                .owner(2 * id, 2 * id + 1);
        }
    });
    assert!(refused(tar).contains("65535 distinct owners"));
}

#[test]
fn times_are_kept_within_what_squashfs_can_say() {
    let tar = with(|tar| {
        tar.file("old", b"").pax(&[("mtime", b"-5.25")]);
        tar.file("new", b"").pax(&[("mtime", b"99999999999")]);
        tar.file("now", b"").pax(&[("mtime", b"1700000000.999")]);
    });
    let seen = image(&[tar]);
    assert_eq!(seen["/old"].attributes.mtime, 0);
    assert_eq!(seen["/new"].attributes.mtime, u32::MAX);
    assert_eq!(seen["/now"].attributes.mtime, 1_700_000_000);
}

#[test]
fn an_error_of_the_stream_comes_out_as_it_went_in() {
    struct Failing;
    impl Read for Failing {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(Error::invalid("blob", "is gone").into())
        }
    }
    let file = tempfile::tempfile().unwrap();
    let path = Path::new("x");
    let mut writer = RootfsWriter::create(file, path, Options::default()).unwrap();
    let error = writer.layer("0", &mut Failing, &Cancel::new()).unwrap_err();
    assert_eq!(error.to_string(), "blob is gone");
}

/// A small file with something of everything.
fn sample() -> Vec<u8> {
    let mut tar = Archive::new();
    tar.dir("d/", 0o755)
        .file("d/big", &noise(200_000))
        .file("d/s", b"small");
    tar.file("text", &b"text ".repeat(60_000))
        .symlink("l", "d/s")
        .link("h", "d/s");
    tar.file("x", b"").pax(&[("SCHILY.xattr.user.a", b"value")]);
    for number in 0..1200 {
        tar.file(&format!("many/file-{number}"), b"");
    }
    let options = Options {
        data: Data::Zstd(1),
        ..Options::default()
    };
    let (_, mut file) = pack_with(options, &[tar.build()]).unwrap();
    let mut bytes = Vec::new();
    std::io::Seek::rewind(&mut file).unwrap();
    file.read_to_end(&mut bytes).unwrap();
    bytes
}

fn survive(bytes: &[u8]) {
    let mut file = tempfile::tempfile().unwrap();
    std::io::Write::write_all(&mut file, bytes).unwrap();
    if let Ok(squashfs) = Squashfs::open(Arc::new(file), BlockCache::new(1 << 20)) {
        // Any answer will do, as long as it is one.
        let _ = walk_carelessly(&squashfs);
    }
}

/// Walks on after errors, in bounds that a lying file cannot widen.
fn walk_carelessly(squashfs: &Squashfs) -> usize {
    let mut pending = vec![squashfs.root()];
    let mut visited = 0;
    let mut buffer = vec![0; 300_000];
    while let Some(inode) = pending.pop() {
        visited += 1;
        if visited > 3000 {
            break;
        }
        let _ = squashfs.attributes(inode);
        let _ = squashfs.read_at(inode, 0, &mut buffer);
        let _ = squashfs.read_at(inode, 1 << 40, &mut buffer);
        let _ = squashfs.read_link(inode);
        let _ = squashfs.xattrs(inode);
        let _ = squashfs.lookup(inode, b"file-77");
        if let Ok(entries) = squashfs.read_dir(inode) {
            pending.extend(entries.into_iter().take(50).map(|entry| entry.inode));
        }
    }
    visited
}

#[test]
fn a_cut_off_file_gives_errors() {
    let bytes = sample();
    for length in (0..bytes.len()).step_by(bytes.len() / 50) {
        survive(&bytes[..length]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn a_damaged_file_gives_errors(
        damage in prop::collection::vec((any::<u64>(), any::<u8>()), 1..20),
    ) {
        thread_local! {
            static SAMPLE: Vec<u8> = sample();
        }
        SAMPLE.with(|sample| {
            let mut bytes = sample.clone();
            for (place, byte) in damage {
                // Half of the damage goes to the superblock, the rest to the tables at the end.
                let tables = bytes.len() as u64 / 4;
                let place = match place & 1 {
                    0 => place / 2 % 96,
                    _ => bytes.len() as u64 - 1 - place / 2 % tables,
                };
                bytes[place as usize] = byte;
            }
            survive(&bytes);
        });
    }
}

#[test]
fn extended_attributes_are_counted_by_their_names() {
    let records = |count: usize, names: usize| -> Vec<u8> {
        let keys: Vec<String> = (0..count)
            .map(|n| format!("SCHILY.xattr.user.n{}", n % names))
            .collect();
        let records: Vec<(&str, &[u8])> = keys.iter().map(|key| (&**key, &b"v"[..])).collect();
        with(|t| {
            t.file("x", b"").pax(&records);
        })
    };
    // Of equal names the last one counts.
    assert!(pack(&[records(3000, 1000)]).is_ok());
    let error = refused(records(1001, 1001));
    assert!(error.contains("too many extended attributes"), "{error}");
}
