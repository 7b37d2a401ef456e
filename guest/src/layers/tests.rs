//! A hand-made docker root, whole and damaged in every way.

use std::fs;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use super::{ContentStore, GraphDriver, Take};
use crate::protocol::Digest;

const CACHE_ID: &str = "0a1b2c";

/// A docker root with one image of one layer.
struct Docker {
    folder: tempfile::TempDir,
    /// The lines of `tar-split.json.gz`.
    lines: Vec<Value>,
    /// The tar they stand for.
    tar: Vec<u8>,
}

fn id(letter: char) -> Digest {
    let text = format!("sha256:{}", letter.to_string().repeat(64));
    text.try_into().unwrap()
}

fn segment(bytes: &[u8]) -> Value {
    json!({"type": 2, "payload": STANDARD.encode(bytes), "position": 0})
}

fn file(name: &str, size: i64) -> Value {
    json!({"type": 1, "name": name, "size": size, "payload": "AAAAAAAAAAA=", "position": 1})
}

impl Docker {
    fn new() -> Self {
        let docker = Self {
            folder: tempfile::tempdir().unwrap(),
            lines: Vec::new(),
            tar: Vec::new(),
        };
        for path in [
            "image/overlay2/imagedb/content/sha256".into(),
            docker.notes(),
            docker.diff("etc"),
        ] {
            fs::create_dir_all(docker.folder.path().join(path)).unwrap();
        }
        docker.write(&docker.notes().join("cache-id"), CACHE_ID.as_bytes());
        docker
    }

    fn notes(&self) -> PathBuf {
        Path::new("image/overlay2/layerdb/sha256").join(id('c').hex())
    }

    fn diff(&self, name: &str) -> PathBuf {
        Path::new("overlay2").join(CACHE_ID).join("diff").join(name)
    }

    fn write(&self, path: &Path, content: &[u8]) {
        fs::write(self.folder.path().join(path), content).unwrap();
    }

    /// Adds a file to the layer.
    fn add(&mut self, name: &[u8], content: &[u8]) {
        let path = Path::new(std::ffi::OsStr::from_bytes(name));
        self.write(&self.diff("").join(path), content);
        let header = [b'h'; 512];
        let padding = vec![0; content.len().next_multiple_of(512) - content.len()];
        let mut entry = file("", content.len().try_into().unwrap());
        match std::str::from_utf8(name) {
            Ok(name) => entry["name"] = name.into(),
            Err(_) => entry["name_raw"] = STANDARD.encode(name).into(),
        }
        self.lines
            .extend([segment(&header), entry, segment(&padding)]);
        for part in [&header[..], content, &padding] {
            self.tar.extend_from_slice(part);
        }
    }

    fn zip(lines: &str) -> Vec<u8> {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
        gzip.write_all(lines.as_bytes()).unwrap();
        gzip.finish().unwrap()
    }

    fn tar_split(&self) -> Vec<u8> {
        let lines: String = self.lines.iter().map(|line| format!("{line}\n")).collect();
        Self::zip(&lines)
    }

    /// What is handed out when `tar-split.json.gz` is `tar_split`.
    fn layer_of(&self, tar_split: &[u8]) -> Result<Vec<u8>, String> {
        self.write(&self.notes().join("tar-split.json.gz"), tar_split);
        self.layer()
    }

    fn layer(&self) -> Result<Vec<u8>, String> {
        let store = GraphDriver::open(self.folder.path()).unwrap();
        let layer = store
            .layer(&id('c'), Take::All)
            .map_err(|error| error.to_string())?;
        let (mut out, bytes) = (Vec::new(), layer.bytes());
        layer
            .write_to(&mut out)
            .map_err(|error| error.to_string())?;
        assert_eq!(out.len() as u64, bytes);
        Ok(out)
    }
}

/// A layer with a file `etc/motd` and one whose name is not UTF-8.
fn sample() -> Docker {
    let mut docker = Docker::new();
    docker.add(b"etc/motd", b"hello\n");
    docker.lines.push(file("etc/", 0));
    docker
        .lines
        .push(json!({"type": 1, "name": "empty", "payload": null, "position": 3}));
    docker.add(b"./etc/\xff&<", &[7; 300_000]);
    docker
}

#[test]
fn a_layer_is_the_very_tar_it_was() {
    let docker = sample();
    assert_eq!(docker.layer_of(&docker.tar_split()).unwrap(), docker.tar);
    // As Go writes names.
    let line = r#"{"type":1,"name":"etc/a\u0026b","size":1,"payload":"AAAAAAAAAAA=","position":0}"#;
    docker.write(&docker.diff("etc/a&b"), b"x");
    let zipped = Docker::zip(&format!("{line}\n"));
    assert_eq!(docker.layer_of(&zipped).unwrap(), b"x");
    assert_eq!(docker.layer_of(&Docker::zip("")).unwrap(), b"");
}

#[test]
fn the_entries_of_a_layer_are_its_tar_without_content() {
    let docker = sample();
    docker.layer_of(&docker.tar_split()).unwrap();
    let store = GraphDriver::open(docker.folder.path()).unwrap();
    let entries = store.layer(&id('c'), Take::Entries).unwrap();
    let (mut out, bytes) = (Vec::new(), entries.bytes());
    // Of the files nothing is opened.
    fs::remove_dir_all(docker.folder.path().join(docker.diff("etc"))).unwrap();
    entries.write_to(&mut out).unwrap();
    let content = b"hello\n".len() + 300_000;
    assert_eq!(bytes, (docker.tar.len() - content) as u64);
    let padding = [512 - 6, 300_000_usize.next_multiple_of(512) - 300_000];
    let header = [b'h'; 512];
    let expected = [
        &header[..],
        &vec![0; padding[0]],
        &header,
        &vec![0; padding[1]],
    ];
    assert_eq!(out, expected.concat());
}

#[test]
fn parts_of_files_are_handed_out() {
    let docker = sample();
    let store = GraphDriver::open(docker.folder.path()).unwrap();
    let read = |path: &[u8], offset, length| {
        let stretch = store.file(&id('c'), path, offset, length);
        let stretch = stretch.map_err(|error| error.to_string())?;
        let (mut out, bytes) = (Vec::new(), stretch.bytes());
        stretch
            .write_to(&mut out)
            .map_err(|error| error.to_string())?;
        assert_eq!(out.len() as u64, bytes);
        Ok::<_, String>(out)
    };
    assert_eq!(read(b"etc/motd", 0, u64::MAX).unwrap(), b"hello\n");
    assert_eq!(read(b"./etc/motd", 1, 3).unwrap(), b"ell");
    assert_eq!(read(b"etc/motd", 5, 3).unwrap(), b"\n");
    for offset in [6, 7, u64::MAX] {
        assert_eq!(read(b"etc/motd", offset, 3).unwrap(), b"");
    }
    assert_eq!(read(b"etc/\xff&<", 299_999, 2).unwrap(), [7]);
    symlink("motd", docker.folder.path().join(docker.diff("etc/link"))).unwrap();
    for path in [
        &b"etc/link"[..],
        b"etc",
        b"",
        b"/etc/motd",
        b"etc/../etc/motd",
        b"nothing",
        b"etc/motd\0",
    ] {
        assert!(read(path, 0, 1).is_err(), "{}", path.escape_ascii());
    }
    assert!(store.file(&id('d'), b"etc/motd", 0, 1).is_err());
}

#[test]
fn a_config_is_handed_out_as_it_is() {
    let docker = sample();
    let store = GraphDriver::open(docker.folder.path()).unwrap();
    let path = format!("image/overlay2/imagedb/content/sha256/{}", id('a').hex());
    docker.write(Path::new(&path), b"{ \"os\":\"linux\"}\n");
    assert_eq!(store.config(&id('a')).unwrap(), b"{ \"os\":\"linux\"}\n");
    let error = store.config(&id('b')).unwrap_err().to_string();
    assert!(error.starts_with("has no image sha256:bbb"), "{error}");
    let huge = fs::File::create(docker.folder.path().join(&path)).unwrap();
    huge.set_len(1 << 40).unwrap();
    assert!(store.config(&id('a')).is_err());
    fs::remove_file(docker.folder.path().join(&path)).unwrap();
    symlink("/etc/hostname", docker.folder.path().join(&path)).unwrap();
    assert!(store.config(&id('a')).is_err());
}

#[test]
fn notes_that_lie_are_refused() {
    let docker = sample();
    fs::write(docker.folder.path().join("outside"), "secret").unwrap();
    docker.write(&docker.diff("plain"), b"secret");
    for (line, why) in [
        (file("../outside", 6), "names \"../outside\""),
        (file("etc/../plain", 6), "names \"etc/../plain\""),
        (file("/etc/hostname", 6), "names \"/etc/hostname\""),
        (file("plain\0", 6), "names \"plain"),
        (file("", 6), "names \"\""),
        (file("plain", 5), "6 bytes instead of 5"),
        (file("plain", 7), "6 bytes instead of 7"),
        (file("plain", i64::MAX), "6 bytes instead of"),
        (file("plain", -1), "has -1 bytes"),
        (file("nothing", 1), "cannot read nothing"),
        (file("plain/", 6), "cannot read plain/"),
        (json!({"type": 3, "payload": ""}), "type 3"),
        (json!({"type": 1, "name_raw": "?", "size": 6}), "tar-split"),
        (json!({"type": 2, "payload": "AA=A"}), "tar-split"),
        (json!({"type": 2, "payload": "AAA"}), "tar-split"),
        (json!("AAAA"), "tar-split"),
    ] {
        let error = docker.layer_of(&Docker::zip(&format!("{line}\n")));
        let error = error.unwrap_err();
        assert!(error.contains(why), "{line}: {error}");
    }
    let sizes = vec![file("plain", i64::MAX).to_string(); 3].join("\n") + "\n";
    let error = docker.layer_of(&Docker::zip(&sizes)).unwrap_err();
    assert!(error.contains("overflow"), "{error}");
}

#[test]
fn damaged_notes_are_refused() {
    let docker = sample();
    let whole = docker.tar_split();
    for length in 0..whole.len() {
        assert!(docker.layer_of(&whole[..length]).is_err(), "{length} bytes");
    }
    let mut flipped = whole.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    assert!(docker.layer_of(&flipped).is_err());
    let cut = docker.layer_of(&Docker::zip("{\"type\":2}")).unwrap_err();
    assert!(cut.contains("ends within a line"), "{cut}");
    // A small file that inflates to a line without end.
    let endless = docker.layer_of(&Docker::zip(&" ".repeat(9 << 20)));
    assert!(endless.unwrap_err().contains("without end"));
    fs::remove_file(
        docker
            .folder
            .path()
            .join(docker.notes().join("tar-split.json.gz")),
    )
    .unwrap();
    let error = docker.layer().unwrap_err();
    assert!(error.starts_with("has no layer sha256:ccc"), "{error}");
}

#[test]
fn only_regular_files_below_the_layer_are_read() {
    let docker = sample();
    let root = docker.folder.path();
    let diff = root.join(docker.diff(""));
    fs::write(root.join("outside"), "secret").unwrap();
    symlink(root.join("outside"), diff.join("link")).unwrap();
    symlink("etc", diff.join("folder")).unwrap();
    symlink("etc/motd", diff.join("inside")).unwrap();
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mkfifoat(rustix::fs::CWD, diff.join("pipe"), mode).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(diff.join("socket")).unwrap();
    for name in ["link", "inside", "folder/motd", "pipe", "socket", "etc"] {
        let line = format!("{}\n", file(name, 6));
        let error = docker.layer_of(&Docker::zip(&line)).unwrap_err();
        assert!(error.contains("cannot read"), "{name}: {error}");
    }
    for cache_id in ["", "..", "../x", "a/b", "0a1b2c\n", &"a".repeat(200)] {
        docker.write(&docker.notes().join("cache-id"), cache_id.as_bytes());
        let error = docker.layer_of(&docker.tar_split()).unwrap_err();
        assert!(error.contains("cache-id"), "{cache_id:?}: {error}");
    }
    // The layer's folder is a link.
    docker.write(&docker.notes().join("cache-id"), b"linked");
    symlink(CACHE_ID, root.join("overlay2/linked")).unwrap();
    assert!(docker.layer().is_err());
}

#[test]
fn a_layer_that_is_removed_while_it_is_read_ends_with_an_error() {
    let docker = sample();
    docker.layer_of(&docker.tar_split()).unwrap();
    let store = GraphDriver::open(docker.folder.path()).unwrap();
    let layer = store.layer(&id('c'), Take::All).unwrap();
    fs::remove_dir_all(docker.folder.path().join("overlay2")).unwrap();
    let error = layer.write_to(&mut Vec::new()).unwrap_err().to_string();
    assert!(error.contains("cannot read etc/motd"), "{error}");
}

#[test]
fn digests_are_checked_where_they_come_in() {
    let hex = "a".repeat(64);
    for text in [
        hex.clone(),
        format!("sha256:{}", hex.to_uppercase()),
        format!("sha256:{hex}a"),
        format!("sha256:../{}", &hex[3..]),
        "sha256:".into(),
    ] {
        assert!(Digest::try_from(text.clone()).is_err(), "{text}");
        let question = json!({"service": "image", "id": text}).to_string();
        assert!(serde_json::from_str::<crate::protocol::Service>(&question).is_err());
    }
    assert_eq!(id('a').hex(), hex);
}

#[test]
fn blobs_of_containerd_are_handed_out_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = folder
        .path()
        .join("io.containerd.content.v1.content/blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let store = ContentStore::open(folder.path()).unwrap();
    let content = vec![7; 300_000];
    fs::write(blobs.join(id('a').hex()), &content).unwrap();
    let blob = store.blob(&id('a')).unwrap();
    assert_eq!(blob.bytes(), 300_000);
    // A blob that is open outlives its name.
    fs::remove_file(blobs.join(id('a').hex())).unwrap();
    let mut out = Vec::new();
    blob.write_to(&mut out).unwrap();
    assert_eq!(out, content);
    let error = store.blob(&id('a')).unwrap_err().to_string();
    assert!(error.starts_with("has no blob sha256:aaa"), "{error}");
    assert!(error.contains("containerd's store"), "{error}");
    symlink("/etc/hostname", blobs.join(id('b').hex())).unwrap();
    assert!(store.blob(&id('b')).is_err());
    // One that shrinks under the reader.
    fs::write(blobs.join(id('c').hex()), &content).unwrap();
    let blob = store.blob(&id('c')).unwrap();
    fs::write(blobs.join(id('c').hex()), "short").unwrap();
    let error = blob.write_to(&mut Vec::new()).unwrap_err().to_string();
    assert!(error.contains("ends too early"), "{error}");
}
