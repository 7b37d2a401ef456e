//! What pcocc 0.7 writes is read here, and the reverse.

use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::time::{Duration, UNIX_EPOCH};

use proptest::prelude::*;

use super::*;
use crate::origin::Origin;
use crate::transfer::{Context, Layout};

fn written_by_pcocc07(version: &str) -> Site {
    let site = Site::new(&["user"]);
    let path = site.repo().path();
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    pcocc07(&[OsStr::new("write"), path.as_os_str(), OsStr::new(version)]);
    site
}

fn check_content(repository: &Arc<Repository>) {
    let listing = repository.list().unwrap();
    assert!(listing.bad.is_empty(), "{:?}", listing.bad);
    let names: Vec<_> = listing
        .metas
        .iter()
        .map(|meta| (meta.name(), meta.revision(), meta.kind()))
        .collect();
    assert_eq!(
        names,
        [
            ("cont-busybox", 0, Kind::Container),
            ("vm-7.2", 0, Kind::VirtualMachine),
            ("vm-7.2", 1, Kind::VirtualMachine),
        ]
    );
    assert_eq!(listing.latest().count(), 2);
    let meta = repository.meta("cont-busybox", None).unwrap();
    assert_eq!(meta.owner(), "josé");
    assert_eq!(meta.timestamp(), 1541000000.1234567);
    assert_eq!(meta.data_blobs().len(), 3);
    let image = repository.image(&meta).unwrap();
    assert_eq!(meta.data_blobs()[2], image.id());
    assert_eq!(image.layers().len(), 1);
    let layout = RepositoryImage::new(Arc::clone(repository), meta);
    let mut content = String::new();
    layout
        .open_layer(&image.layers()[0])
        .unwrap()
        .read_to_string(&mut content)
        .unwrap();
    assert_eq!(content, "layer content stands for a tar");
    assert_eq!(repository.revisions("vm-7.2").unwrap(), [0, 1]);
    assert_eq!(repository.meta("vm-7.2", None).unwrap().revision(), 1);
    assert_eq!(
        repository
            .meta("vm-7.2", Some(0))
            .unwrap()
            .data_blobs()
            .len(),
        1
    );
    assert_eq!(repository.recall(image.id()).unwrap().unwrap(), image);
    let verified = repository.verify(&Context::silent()).unwrap();
    assert!(verified.problems.is_empty(), "{:?}", verified.problems);
    assert_eq!((verified.images, verified.blobs), (3, 5));
}

#[test]
fn reads_version_2() {
    let site = written_by_pcocc07("2");
    check_content(site.repo());
    // Nothing but the bytes pcocc 0.7 wrote comes out again.
    for meta in site.repo().list().unwrap().metas {
        let file = site
            .repo()
            .path()
            .join(format!("meta/{}@{}", meta.name(), meta.revision()));
        assert_eq!(meta.render(), fs::read_to_string(file).unwrap());
    }
}

#[test]
fn reads_and_upgrades_version_1() {
    let site = written_by_pcocc07("1");
    let repository = site.repo();
    assert_eq!(repository.version().unwrap(), 1);
    check_content(repository);
    // Written and deleted in its own form, too.
    put_image(repository, "new", &[b"x"]);
    put_image(repository, "gone", &[b"x"]);
    repository.delete("gone", None).unwrap();
    assert_eq!(repository.revisions("new").unwrap(), [0]);
    repository.delete("new", None).unwrap();
    let collected = repository
        .collect(GcOptions::default(), &Context::silent())
        .unwrap();
    assert!(collected.upgraded);
    assert_eq!(repository.version().unwrap(), 2);
    assert!(repository.path().join("meta.old").is_dir());
    let options = GcOptions {
        grace: Duration::ZERO,
    };
    repository.collect(options, &Context::silent()).unwrap();
    check_content(repository);
    pcocc07(&[OsStr::new("check"), repository.path().as_os_str()]);
}

#[test]
fn an_interrupted_upgrade_is_completed() {
    let site = written_by_pcocc07("1");
    let repository = site.repo();
    // Killed right after the new version was written.
    let old = repository.path().join("meta");
    let kept = site.dir.path().join("kept");
    copy_folders(&old, &kept);
    repository.upgrade().unwrap();
    copy_folders(&kept, &old);
    check_content(repository);
    repository
        .collect(GcOptions::default(), &Context::silent())
        .unwrap();
    check_content(repository);
    pcocc07(&[OsStr::new("check"), repository.path().as_os_str()]);
}

fn copy_folders(from: &std::path::Path, to: &std::path::Path) {
    for folder in fs::read_dir(from).unwrap() {
        let folder = folder.unwrap();
        if !folder.path().is_dir() {
            continue;
        }
        let target = to.join(folder.file_name());
        fs::create_dir_all(&target).unwrap();
        for file in fs::read_dir(folder.path()).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), target.join(file.file_name())).unwrap();
        }
    }
}

#[test]
fn pcocc07_reads_what_is_written() {
    let site = Site::new(&["user"]);
    let repository = site.repo();
    put_image(repository, "one", &[b"a", b"b"]);
    put_image(repository, "same-layer-twice", &[b"a", b"a"]);
    put_image(repository, "no_layers.at-all", &[]);
    let origin = Origin {
        made_by: "pcocc docker edit".into(),
        daemon: Some("unix:///j\u{f6}rg.sock".into()),
        ..Origin::default()
    };
    let image = image_of(&[b"a", b"b"]);
    let now = SystemTime::now();
    let meta = Meta::container("edited", "doe", now, &image, Some(&origin)).unwrap();
    assert_eq!(meta.origin(), Some(origin));
    repository.publish(&meta).unwrap();
    assert_eq!(repository.image(&meta).unwrap(), image);
    let disk = put_blob(repository, b"QFI\xfb");
    let meta =
        Meta::virtual_machine("vm", 2, "j\u{f6}rg \"\\", SystemTime::now(), &[disk]).unwrap();
    repository.publish(&meta).unwrap();
    pcocc07(&[OsStr::new("check"), repository.path().as_os_str()]);
}

#[test]
fn cache_entries_have_the_same_names() {
    let site = written_by_pcocc07("2");
    let repository = site.repo();
    put_image(repository, "one", &[b"a"]);
    let cache = Cache::new("/c");
    let path = repository.path().as_os_str();
    let printed = pcocc07(&[OsStr::new("keys"), path, OsStr::new("user")]);
    assert_eq!(printed.lines().count(), 4);
    for line in printed.lines() {
        let [name, revision, hash] = line.split(' ').collect::<Vec<_>>()[..] else {
            panic!("{line}");
        };
        let meta = repository.meta(name, revision.parse().ok()).unwrap();
        let entry = cache.entry_path(&CacheKey::of_meta(&meta, "user"));
        assert_eq!(entry.to_str().unwrap(), format!("/c/{}/{hash}", &hash[..2]));
    }
}

/// Metadata and the names Python's json and hashlib give its cache entries in repository `user`.
const GOLDEN_KEYS: &[(&str, &str)] = &[
    (
        r#"{"name": "centos", "revision": 0, "kind": "ctr", "owner": "jos\u00e9", "timestamp": 1541000000.123456, "data_blobs": ["sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"], "custom_meta": {"oci_index": {"schemaVersion": 2, "manifests": [{"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "size": 348, "path": "/tmp/tmpq1w2e3/blobs/sha256/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}]}}}"#,
        "7e84b2454926ff3cfdbd9a8175a90e46daa4e79edaca318949ec508a080e474bc62e632c0470c48110d42d880e4ca14aaf0ebbd5685e68d69353a236268b4da1",
    ),
    (
        r#"{"name": "vm-7.2", "revision": 3, "kind": "vm", "owner": "root", "timestamp": 1500000000, "data_blobs": ["cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc"], "custom_meta": {}}"#,
        "c26204495f3170e6d683d7070721c607ebd090265201d9b83746f5d763d88cb49bd6492dc5b30d45c1705231850c726494e0d8e38e5512c5213099e2c5df8a93",
    ),
];

#[test]
fn golden_cache_keys() {
    for (text, hash) in GOLDEN_KEYS {
        let meta = Meta::parse(text).unwrap();
        assert_eq!(&meta.render(), text);
        let entry = Cache::new("/c").entry_path(&CacheKey::of_meta(&meta, "user"));
        assert!(entry.ends_with(hash), "{}", entry.display());
    }
}

#[test]
fn metadata_that_is_not_pcoccs() {
    let good = r#"{"name":"a","revision":0,"kind":"ctr","owner":"o","timestamp":1,"data_blobs":[],"custom_meta":{}}"#;
    Meta::parse(good).unwrap();
    for (from, to, part) in [
        ("\"a\"", "\"a/../b\"", "name"),
        ("\"a\"", "3", "name"),
        ("\"name\":\"a\",", "", "name"),
        (":0", ":-1", "revision"),
        (":0", ":99999999999999999999", "revision"),
        (":0", ":0.5", "revision"),
        ("ctr", "iso", "kind"),
        ("[]", "[\"../../etc/passwd\"]", "digest"),
        ("[]", "[\"sha512:00\"]", "sha256"),
        ("[]", "[7]", "string"),
        ("[]", "null", "data_blobs"),
        (":1,", ":\"1\",", "timestamp"),
        ("{}", "[]", "custom_meta"),
        ("{}", "{},\"extra\":1", "extra"),
        ("}", "", "JSON"),
    ] {
        let error = Meta::parse(&good.replacen(from, to, 1)).unwrap_err();
        assert!(error.to_string().contains(part), "{part}: {error}");
    }
    assert!(Meta::parse("[]").is_err());
    assert!(Meta::parse(&format!("{good}{}", " ".repeat(9 << 20))).is_err());
}

#[test]
fn custom_metadata_stays_as_python_wrote_it() {
    let custom = r#""custom_meta": {"z": [18446744073709551616, -9223372036854775809, -0.0, 1e+16], "a": {"\u00e9": null}}}"#;
    let text = format!(
        r#"{{"name": "a", "revision": 0, "kind": "ctr", "owner": "o", "timestamp": 122.41629403378658, "data_blobs": [], {custom}"#
    );
    let meta = Meta::parse(&text).unwrap();
    assert_eq!(meta.render(), text);
    let renamed = meta.renamed("b", 1, "p", UNIX_EPOCH).unwrap();
    assert!(renamed.render().ends_with(custom), "{}", renamed.render());
    let sorted = text.replacen(
        r#""name": "a", "revision": 0"#,
        r#""revision": 0, "name": "a""#,
        1,
    );
    let sorted = Meta::parse(&sorted).unwrap();
    assert_eq!(sorted.canonical().unwrap(), meta);
    // The last of two keys counts, as in Python.
    let twice = text.replacen("{", r#"{"owner": "first", "#, 1);
    assert_eq!(Meta::parse(&twice).unwrap().owner(), "o");
    for odd in ["NaN", "-Infinity", "1e999", r#""\ud800""#] {
        assert!(Meta::parse(&text.replace("null", odd)).is_err(), "{odd}");
    }
}

proptest! {
    #[test]
    fn metadata_round_trips(
        name in "[A-Za-z0-9_-][A-Za-z0-9_.-]{0,30}",
        owner in ".{0,12}",
        nanos in 0u64..4_000_000_000_000_000_000,
        blobs in prop::collection::vec(prop::array::uniform8(any::<u8>()), 0..4),
    ) {
        let contents: Vec<&[u8]> = blobs.iter().map(|b| b.as_slice()).collect();
        let time = UNIX_EPOCH + Duration::from_nanos(nanos);
        let image = image_of(&contents);
        let meta = Meta::container(&name, &owner, time, &image, None).unwrap();
        let read = Meta::parse(&meta.render()).unwrap();
        prop_assert_eq!(&read, &meta);
        prop_assert_eq!(read.render(), meta.render());
        let renamed = meta.renamed("other", 0, &owner, time).unwrap();
        prop_assert_eq!(renamed.data_blobs(), meta.data_blobs());
        prop_assert_eq!(renamed.oci_index().unwrap(), meta.oci_index().unwrap());
    }
}
