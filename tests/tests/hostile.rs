//! Bad input to `pcocc`, of every kind: a word on why, a failing exit status, and nothing changed.
//!
//! Each case runs `pcocc` on a repository that holds a good image. Afterwards the repository is the
//! same byte for byte, verifies clean, and holds no unfinished work.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use pcocc_tests::{Outcome, Pcocc, leaks, run};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tar::{EntryType, Header};

fn hex(bytes: &[u8]) -> String {
    let hash = Sha256::digest(bytes);
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(bytes))
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// Paths, modes and contents below a folder; times are left out.
fn snapshot(folder: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        let metadata = fs::symlink_metadata(&path).unwrap();
        let mode = metadata.permissions().mode();
        let content = if metadata.is_dir() {
            found.extend(snapshot(&path));
            "folder".to_owned()
        } else if metadata.is_file() {
            hex(&fs::read(&path).unwrap())
        } else {
            "special".to_owned()
        };
        found.insert(path, format!("{mode:o} {content}"));
    }
    found
}

/// A home folder whose repository holds the good image `there`.
struct Bed {
    pcocc: Pcocc,
    before: BTreeMap<PathBuf, String>,
}

impl Bed {
    fn new() -> Self {
        let pcocc = Pcocc::new();
        Image::new(&[file_layer("good", b"good")]).write(&pcocc.home().join("good"));
        pcocc.run(&["image", "import", "oci:good", "there"]);
        let before = snapshot(&pcocc.repository());
        Self { pcocc, before }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.pcocc.home().join(name)
    }

    /// Checks that a command failed with these words, and that the repository is what it was.
    #[track_caller]
    fn unchanged(&self, outcome: &Outcome, words: &str) {
        let said = outcome.failed();
        assert!(said.contains(words), "'{words}' is not in:\n{outcome}");
        assert!(said.len() < 4000, "a flood of words:\n{outcome}");
        assert!(!said.contains("RUST_BACKTRACE"), "{outcome}");
        assert!(outcome.stdout.is_empty(), "{outcome}");
        let after = snapshot(&self.pcocc.repository());
        assert_eq!(after, self.before, "the repository changed:\n{outcome}");
        let unfinished = leaks::unfinished_in(&self.pcocc.repository());
        assert_eq!(unfinished, Vec::<String>::new(), "{outcome}");
    }

    /// Imports what must be refused with these words.
    #[track_caller]
    fn refuses(&self, source: &str, words: &str) {
        let outcome = self.pcocc.try_run(&["image", "import", source, "bad"]);
        self.unchanged(&outcome, words);
    }

    /// Writes an image as a layout and imports it, which must be refused with these words.
    #[track_caller]
    fn refuses_image(&self, image: &Image, words: &str) {
        let folder = self.at("bad-layout");
        let _ = fs::remove_dir_all(&folder);
        image.write(&folder);
        self.refuses("oci:bad-layout", words);
    }

    /// Checks at the end that the good image is still good.
    fn end(self) {
        self.pcocc.verify();
        self.pcocc.run(&["image", "copy", "there", "copied"]);
        self.pcocc.verify();
    }
}

/// An image in the making, to be spoilt.
#[derive(Clone)]
struct Image {
    blobs: Vec<Vec<u8>>,
    config: Vec<u8>,
    manifest: Value,
    media_type: String,
}

impl Image {
    /// Makes an image of plain layers.
    fn new(layers: &[Vec<u8>]) -> Self {
        let plain: Vec<(Vec<u8>, String)> = layers
            .iter()
            .map(|layer| (layer.clone(), digest(layer)))
            .collect();
        Self::of(&plain, LAYER)
    }

    /// Makes an image of blobs and the diff IDs its config gives them.
    fn of(layers: &[(Vec<u8>, String)], media_type: &str) -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        let diff_ids: Vec<&String> = layers.iter().map(|(_, diff_id)| diff_id).collect();
        let config = json!({
            "architecture": architecture, "os": "linux", "config": {},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        })
        .to_string()
        .into_bytes();
        let listed: Vec<Value> = layers
            .iter()
            .map(|(blob, _)| {
                json!({"mediaType": media_type, "digest": digest(blob), "size": blob.len()})
            })
            .collect();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "layers": listed,
            "config": {"mediaType": CONFIG, "digest": digest(&config), "size": config.len()},
        });
        Self {
            blobs: layers.iter().map(|(blob, _)| blob.clone()).collect(),
            config,
            manifest,
            media_type: MANIFEST.to_owned(),
        }
    }

    /// The same with one value of its manifest replaced.
    fn but(&self, pointer: &str, value: Value) -> Self {
        let mut image = self.clone();
        *image.manifest.pointer_mut(pointer).expect("a value") = value;
        image
    }

    fn write(&self, folder: &Path) {
        let blobs = folder.join("blobs/sha256");
        fs::create_dir_all(&blobs).unwrap();
        let manifest = self.manifest.to_string().into_bytes();
        for blob in self.blobs.iter().chain([&self.config, &manifest]) {
            fs::write(blobs.join(hex(blob)), blob).unwrap();
        }
        let index = json!({"schemaVersion": 2, "manifests": [{
            "mediaType": self.media_type, "digest": digest(&manifest), "size": manifest.len(),
            "annotations": {"org.opencontainers.image.ref.name": "x"},
        }]});
        fs::write(folder.join("index.json"), index.to_string()).unwrap();
        fs::write(
            folder.join("oci-layout"),
            r#"{"imageLayoutVersion":"1.0.0"}"#,
        )
        .unwrap();
    }

    /// The same image as `docker save` would write it.
    fn archive(&self, path: &Path) {
        let mut tar = tar::Builder::new(File::create(path).unwrap());
        let mut put = |name: &str, content: &[u8]| {
            let mut header = Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, name, content).unwrap();
        };
        let names: Vec<String> = (0..self.blobs.len())
            .map(|i| format!("{i}/layer.tar"))
            .collect();
        for (name, blob) in names.iter().zip(&self.blobs) {
            put(name, blob);
        }
        let config = format!("{}.json", hex(&self.config));
        put(&config, &self.config);
        let manifest = json!([{"Config": config, "RepoTags": ["bad:1"], "Layers": names}]);
        put("manifest.json", manifest.to_string().as_bytes());
        tar.finish().unwrap();
    }
}

/// A layer of one entry, whose name and link may be anything.
fn layer(kind: EntryType, name: &[u8], link: &[u8], content: &[u8]) -> Vec<u8> {
    let mut tar = Vec::new();
    for (long, value) in [(b'L', name), (b'K', link)] {
        if value.len() > 100 {
            let mut header = Header::new_gnu();
            header.set_path("././@LongLink").unwrap();
            header.set_entry_type(EntryType::new(long));
            append(&mut tar, header, &[value, b"\0"].concat());
        }
    }
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(0o755);
    let short = name.len().min(100);
    header.as_mut_bytes()[..short].copy_from_slice(&name[..short]);
    let short = link.len().min(100);
    header.as_mut_bytes()[157..157 + short].copy_from_slice(&link[..short]);
    if matches!(kind, EntryType::Char | EntryType::Block) {
        header.set_device_major(1).unwrap();
        header.set_device_minor(3).unwrap();
    }
    append(&mut tar, header, content);
    tar
}

fn append(tar: &mut Vec<u8>, mut header: Header, content: &[u8]) {
    header.set_size(content.len() as u64);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    if header.mode().is_err() {
        header.set_mode(0o644);
    }
    header.set_cksum();
    tar.extend_from_slice(header.as_bytes());
    tar.extend_from_slice(content);
    tar.resize(tar.len().next_multiple_of(512), 0);
}

fn ended(mut tar: Vec<u8>) -> Vec<u8> {
    tar.resize(tar.len() + 1024, 0);
    tar
}

fn file_layer(name: &str, content: &[u8]) -> Vec<u8> {
    ended(layer(EntryType::Regular, name.as_bytes(), b"", content))
}

fn gzip(bytes: &[u8], folder: &Path) -> Vec<u8> {
    let plain = folder.join("to-compress");
    fs::write(&plain, bytes).unwrap();
    let output = Command::new("gzip").arg("-c").arg(&plain).output().unwrap();
    fs::remove_file(&plain).unwrap();
    output.stdout
}

#[test]
fn archives_that_are_truncated_or_corrupt() {
    let bed = Bed::new();
    let image = Image::new(&[file_layer("a", &[1; 3000]), file_layer("b", &[2; 5000])]);
    let path = bed.at("bad.tar");
    image.archive(&path);
    let good = fs::read(&path).unwrap();
    let spoil = |bytes: &[u8], words: &str| {
        fs::write(&path, bytes).unwrap();
        bed.refuses("docker-archive:bad.tar", words);
    };
    for cut in [1, 511, 512, 700, 5000, 8000, 12_000, good.len() - 2600] {
        spoil(&good[..cut.min(good.len())], "");
    }
    spoil(b"", "no tar archive");
    spoil(b"PK\x03\x04 a zip", "truncated");
    spoil(&[b'x'; 9999], "no tar archive");
    let mut flipped = good.clone();
    flipped[2000] ^= 1;
    spoil(&flipped, "corrupt");
    let packed = gzip(&good, &bed.at(""));
    spoil(&packed[..packed.len() / 2], "");
    let mut flipped = packed.clone();
    flipped[packed.len() / 2] ^= 0x55;
    spoil(&flipped, "");
    bed.refuses("docker-archive:none.tar", "not found");
    bed.refuses("docker-archive:good", "looks like oci");
    fs::write(bed.at("blank"), "neither").unwrap();
    bed.refuses("oci:blank", "not a folder");
    bed.refuses("docker-archive:blank", "truncated");
    bed.refuses("oci:none", "not found");
    bed.end();
}

#[test]
fn manifests_of_archives_that_lie() {
    let bed = Bed::new();
    let path = bed.at("bad.tar");
    let config = Image::new(&[file_layer("a", b"a")]).config;
    let spoil = |manifest: &str, words: &str| {
        let mut tar = tar::Builder::new(File::create(&path).unwrap());
        for (name, content) in [
            ("c.json", config.as_slice()),
            ("layer.tar", &file_layer("other", b"other")),
            ("manifest.json", manifest.as_bytes()),
        ] {
            let mut header = Header::new_gnu();
            header.set_size(content.len() as u64);
            tar.append_data(&mut header, name, content).unwrap();
        }
        tar.finish().unwrap();
        bed.refuses("docker-archive:bad.tar", words);
    };
    let of = |config: &str, layers: &[&str]| {
        json!([{"Config": config, "RepoTags": null, "Layers": layers}]).to_string()
    };
    spoil("", "does not parse");
    spoil("[]", "no image");
    spoil(&"[".repeat(100_000), "does not parse");
    spoil(&of("none.json", &["layer.tar"]), "lacks");
    spoil(&of("c.json", &["none.tar"]), "lacks");
    spoil(
        &of("c.json", &["../../../etc/passwd"]),
        "out of the archive",
    );
    spoil(&of("c.json", &["/etc/passwd"]), "lacks");
    spoil(&of("c.json", &[&"x".repeat(4096)]), "lacks");
    spoil(&of("c.json", &[]), "lists 0 layers");
    spoil(&of("layer.tar", &["layer.tar"]), "does not parse");
    // The layer is another than the config says.
    spoil(&of("c.json", &["layer.tar"]), "corrupt");
    bed.end();
}

#[test]
fn manifests_of_layouts_that_lie() {
    let bed = Bed::new();
    let image = Image::new(&[file_layer("a", b"a"), file_layer("b", b"b")]);
    for (pointer, value, words) in [
        ("/layers/0/digest", json!(digest(b"absent")), "corrupt"),
        ("/layers/0/size", json!(1), "bytes instead of"),
        ("/config/digest", json!(digest(b"absent")), "not found"),
        (
            "/layers/0/digest",
            json!("sha256:../../../../etc/passwd"),
            "",
        ),
        ("/layers/0/digest", json!("md5:00"), ""),
        ("/layers/0/size", json!(3), "bytes instead of"),
        ("/layers/0/size", json!(1_u64 << 50), "bytes instead of"),
        ("/layers/0/size", json!(u64::MAX), "absurd"),
        ("/layers/0/size", json!(-5), "does not parse"),
        ("/layers/0/size", json!("big"), "does not parse"),
        ("/config/size", json!(1_u64 << 50), "more than"),
        ("/config/size", json!(0), "more than the 0 bytes"),
        (
            "/layers/0/mediaType",
            json!("application/x-unknown"),
            "media type",
        ),
        (
            "/config/mediaType",
            json!("application/x-unknown"),
            "container image",
        ),
        ("/layers/0/mediaType", json!(format!("{LAYER}+gzip")), ""),
        ("/schemaVersion", json!(1), "schema 1"),
        ("/layers", json!([]), "layers"),
        ("/layers", json!(null), "does not parse"),
    ] {
        bed.refuses_image(&image.but(pointer, value), words);
    }
    let mut unknown = image.clone();
    unknown.media_type = "application/x-unknown".to_owned();
    bed.refuses_image(&unknown, "unknown media type");
    unknown.media_type = "application/vnd.docker.distribution.manifest.v1+prettyjws".to_owned();
    bed.refuses_image(&unknown, "schema 1");
    bed.end();
}

#[test]
fn blobs_of_layouts_that_lie() {
    let bed = Bed::new();
    let plain = file_layer("a", &[9; 4000]);
    let image = Image::new(std::slice::from_ref(&plain));
    let folder = bed.at("bad-layout");
    image.write(&folder);
    let blob = folder.join("blobs/sha256").join(hex(&plain));
    let mut flipped = plain.clone();
    flipped[1000] ^= 1;
    for bytes in [
        &flipped[..],
        &plain[..100],
        &[&plain[..], b"x"].concat(),
        b"",
    ] {
        fs::write(&blob, bytes).unwrap();
        bed.refuses("oci:bad-layout", "corrupt");
    }
    fs::remove_file(&blob).unwrap();
    bed.refuses("oci:bad-layout", "not found");
    let secret = bed.at("secret");
    fs::write(&secret, &plain).unwrap();
    symlink(&secret, &blob).unwrap();
    bed.refuses("oci:bad-layout", "leads out");
    fs::remove_file(&blob).unwrap();
    let fifo = Command::new("mkfifo").arg(&blob).status().unwrap();
    assert!(fifo.success());
    bed.refuses("oci:bad-layout", "not a regular file");
    // What the config promises of the layer's content is not so.
    let other = digest(b"another layer");
    let packed = gzip(&plain, &bed.at(""));
    bed.refuses_image(
        &Image::of(&[(packed.clone(), other.clone())], &format!("{LAYER}+gzip")),
        "",
    );
    bed.refuses_image(&Image::of(&[(plain, other)], LAYER), "");
    let cut = packed[..packed.len() - 9].to_vec();
    let cut = Image::of(
        &[(cut, digest(&file_layer("a", &[9; 4000])))],
        &format!("{LAYER}+gzip"),
    );
    bed.refuses_image(&cut, "");
    bed.end();
}

#[test]
fn documents_of_layouts_that_are_none() {
    let bed = Bed::new();
    let folder = bed.at("bad-layout");
    Image::new(&[file_layer("a", b"a")]).write(&folder);
    let index = folder.join("index.json");
    let good = fs::read(&index).unwrap();
    for (text, words) in [
        ("", "does not parse"),
        ("{", "does not parse"),
        ("null", "does not parse"),
        ("<html>", "does not parse"),
        (r#"{"schemaVersion":2,"manifests":[]}"#, "names no image"),
        (&"[".repeat(1_000_000), "does not parse"),
        (
            &format!("{}{}", r#"{"a":"#.repeat(50_000), "}".repeat(50_000)),
            "does not parse",
        ),
    ] {
        fs::write(&index, text).unwrap();
        bed.refuses("oci:bad-layout", words);
    }
    File::create(&index).unwrap().set_len(1 << 40).unwrap();
    bed.refuses("oci:bad-layout", "larger than");
    fs::remove_file(&index).unwrap();
    bed.refuses("oci:bad-layout", "index.json");
    fs::write(&index, good).unwrap();
    for (text, words) in [
        ("", "does not parse"),
        (r#"{"imageLayoutVersion":"9.0"}"#, "version"),
        (r#"{"imageLayoutVersion":7}"#, "does not parse"),
    ] {
        fs::write(folder.join("oci-layout"), text).unwrap();
        bed.refuses("oci:bad-layout", words);
    }
    bed.end();
}

#[test]
fn tar_entries_that_would_break_out() {
    let bed = Bed::new();
    let file = |name: &[u8]| layer(EntryType::Regular, name, b"", b"evil");
    let link = |kind, name: &[u8], target: &[u8]| layer(kind, name, target, b"");
    let long = "n".repeat(4096);
    let deep = "d/".repeat(4096);
    for (entry, words) in [
        (file(b"../evil"), "root"),
        (file(b"a/../../evil"), "root"),
        (file(b"/../../evil"), "root"),
        (file(long.as_bytes()), "longer"),
        (file(format!("{deep}x").as_bytes()), "longer"),
        (link(EntryType::Link, b"hard", b"nowhere"), "hard"),
        (link(EntryType::Link, b"hard", b"../../etc/passwd"), "hard"),
        (link(EntryType::Link, b"hard", b"/etc/passwd"), "hard"),
        (link(EntryType::Symlink, b"empty", b""), ""),
    ] {
        bed.refuses_image(&Image::new(&[ended(entry)]), words);
    }
    let mut torn = file_layer("whole", &[1; 5000]);
    torn.truncate(3000);
    bed.refuses_image(&Image::new(&[torn]), "");
    bed.refuses_image(&Image::new(&[b"this is no tar".repeat(100)]), "");
    let mut sum = file_layer("a", b"a");
    sum[10] ^= 1;
    bed.refuses_image(&Image::new(&[sum]), "");
    bed.end();
}

#[test]
fn odd_tar_entries_that_docker_takes_too() {
    let bed = Bed::new();
    let entry = |kind, name: &[u8], target: &[u8]| layer(kind, name, target, b"");
    let layers = [
        layer(EntryType::Regular, b"/absolute", b"", b"1"),
        entry(EntryType::Symlink, b"out", b"../../../../etc"),
        layer(EntryType::Regular, b"out/through-a-link", b"", b"2"),
        entry(EntryType::Symlink, b"absolute-link", b"/etc/passwd"),
        entry(EntryType::Char, b"null", b""),
        entry(EntryType::Block, b"disk", b""),
        entry(EntryType::Fifo, b"fifo", b""),
        layer(EntryType::Regular, b"not \xff\xfe utf-8", b"", b"3"),
        layer(EntryType::Regular, b"twice", b"", b"first"),
        layer(EntryType::Regular, b"twice", b"", b"second"),
        layer(EntryType::Regular, b"a/../b", b"", b"4"),
        layer(EntryType::Directory, b"twice-again/", b"", b""),
        layer(EntryType::Regular, b"twice-again", b"", b"5"),
        layer(EntryType::Regular, &[b'p'; 250], b"", b"6"),
    ];
    let outside = snapshot(&bed.at("good"));
    for (i, entry) in layers.iter().enumerate() {
        Image::new(&[file_layer("etc/x", b"x"), ended(entry.clone())])
            .write(&bed.at(&format!("odd{i}")));
        bed.pcocc.run(&[
            "image",
            "import",
            &format!("oci:odd{i}"),
            &format!("odd{i}"),
        ]);
    }
    let all = ended(
        [
            layer(EntryType::Regular, b"etc/x", b"", b"x"),
            layers.concat(),
        ]
        .concat(),
    );
    Image::new(&[all]).write(&bed.at("odd"));
    bed.pcocc.run(&["image", "import", "oci:odd", "odd"]);
    assert_eq!(snapshot(&bed.at("good")), outside);
    assert!(!Path::new("/etc/through-a-link").exists());
    bed.end();
}

#[test]
fn a_decompression_bomb_fills_neither_memory_nor_disk() {
    let bed = Bed::new();
    let size: u64 = 200 << 20;
    let mut start = layer(EntryType::Regular, b"bomb", b"", b"");
    let mut header = Header::new_gnu();
    header.as_mut_bytes().copy_from_slice(&start[..512]);
    header.set_size(size);
    header.set_cksum();
    start = header.as_bytes().to_vec();
    let plain = bed.at("bomb.tar");
    let mut file = File::create(&plain).unwrap();
    file.write_all(&start).unwrap();
    file.set_len(512 + size + 1024).unwrap();
    let sum = Command::new("sha256sum")
        .arg(&plain)
        .output()
        .unwrap()
        .stdout;
    let diff_id = format!(
        "sha256:{}",
        String::from_utf8(sum).unwrap().split(' ').next().unwrap()
    );
    let packed = Command::new("gzip")
        .args(["-1c"])
        .arg(&plain)
        .output()
        .unwrap()
        .stdout;
    fs::remove_file(&plain).unwrap();
    let media_type = format!("{LAYER}+gzip");
    bed.refuses_image(
        &Image::of(&[(packed.clone(), digest(b"other"))], &media_type),
        "",
    );
    Image::of(&[(packed.clone(), diff_id)], &media_type).write(&bed.at("bomb"));
    let mut child = bed
        .pcocc
        .command(&["image", "import", "oci:bomb", "bomb"])
        .spawn()
        .unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    let ended = loop {
        let text = fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kilobytes: Option<u64> =
            line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        peak = peak.max(kilobytes.unwrap_or(0));
        if let Some(ended) = child.try_wait().unwrap() {
            break ended;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    };
    assert!(ended.success());
    assert!(peak > 1000 && peak < 150 << 10, "{peak} kB of memory");
    let written: u64 = [bed.pcocc.repository(), bed.pcocc.cache()]
        .iter()
        .flat_map(|folder| snapshot(folder).into_keys())
        .map(|path| fs::metadata(path).unwrap())
        .filter(fs::Metadata::is_file)
        .map(|metadata| metadata.len())
        .sum();
    assert!(written < 64 << 20, "{written} bytes on disk");
    bed.end();
}

#[test]
fn names_that_no_image_can_have() {
    let bed = Bed::new();
    let long = "x".repeat(4096);
    for (name, words) in [
        ("nowhere:image", "nowhere"),
        ("user:a:b", ":"),
        ("a b", "a b"),
        ("a/b", "a/b"),
        ("../escape", "legal"),
        ("user:../escape", "legal"),
        (".hidden", "legal"),
        ("", "empty"),
        ("user:", ""),
        (":x", ""),
        ("ünïcode", "legal"),
        ("a\nb", ""),
        (&long, ""),
    ] {
        let outcome = bed.pcocc.try_run(&["image", "import", "oci:good", name]);
        bed.unchanged(&outcome, words);
        let outcome = bed.pcocc.try_run(&["image", "copy", "there", name]);
        bed.unchanged(&outcome, words);
    }
    let outcome = bed.pcocc.try_run(&["image", "import", "oci:good", "there"]);
    bed.unchanged(&outcome, "already exists");
    for source in [
        "sif:x",
        "dir:x",
        "docker:centos",
        "docker://UPPER/case",
        "oci:",
        "",
        &long,
    ] {
        bed.refuses(source, "");
    }
    for name in ["none", "there@7", "there@x", "none:there", ""] {
        let outcome = bed.pcocc.try_run(&["image", "show", name]);
        bed.unchanged(&outcome, "");
        let outcome = bed
            .pcocc
            .try_run(&["image", "export", name, "docker-archive:out.tar"]);
        bed.unchanged(&outcome, "");
        assert!(!bed.at("out.tar").exists());
        let outcome = bed.pcocc.try_run(&["image", "delete", name]);
        bed.unchanged(&outcome, "");
    }
    bed.end();
}

#[test]
fn exports_that_cannot_be_made() {
    let bed = Bed::new();
    fs::write(bed.at("file"), "mine").unwrap();
    fs::create_dir(bed.at("mine")).unwrap();
    fs::write(bed.at("mine/file"), "mine").unwrap();
    let long = format!("oci:new:{}", "x".repeat(4096));
    let files = || {
        let mut files: Vec<PathBuf> = fs::read_dir(bed.at(""))
            .unwrap()
            .map(|e| e.unwrap().path())
            .collect();
        files.sort();
        files
    };
    let before = files();
    for (dest, words) in [
        ("docker-archive:file", "exists"),
        ("docker-archive:mine", "exists"),
        ("docker-archive:no/such/folder/x", "no/such/folder"),
        ("docker-archive:new.tar:UPPER", "upper-case"),
        ("oci:mine", "other content"),
        ("oci:file", "not a folder"),
        ("oci:no/such/folder/x", "no/such/folder"),
        ("oci:new:a b", "a b"),
        (&long, "longer"),
        ("disk.qcow2", "container"),
        ("docker://127.0.0.1:1/x", "refused"),
        ("docker://UPPER/case", ""),
    ] {
        let outcome = bed.pcocc.try_run(&["image", "export", "there", dest]);
        bed.unchanged(&outcome, words);
        assert_eq!(files(), before, "{dest}");
    }
    assert_eq!(fs::read(bed.at("file")).unwrap(), b"mine");
    bed.end();
}

#[test]
fn metadata_that_is_not_ours() {
    let bed = Bed::new();
    let meta = bed.pcocc.repository().join("meta");
    let good: Value = serde_json::from_slice(&fs::read(meta.join("there@0")).unwrap()).unwrap();
    let spoilt = |key: &str, value: Value| {
        let mut text = good.clone();
        text["name"] = json!("bad");
        text[key] = value;
        text.to_string()
    };
    let deep = "[".repeat(100_000);
    for text in [
        String::new(),
        "not json".to_owned(),
        "[]".to_owned(),
        "{}".to_owned(),
        deep,
        spoilt("name", json!("../../evil")),
        spoilt("name", json!(7)),
        spoilt("kind", json!("spaceship")),
        spoilt("revision", json!(-1)),
        spoilt("revision", json!("zero")),
        spoilt("data_blobs", json!(["sha256:../../../etc/passwd"])),
        spoilt("data_blobs", json!("none")),
        spoilt("custom_meta", json!({})),
        spoilt("custom_meta", json!({"oci_index": {"manifests": []}})),
        spoilt("custom_meta", json!({"oci_index": 7})),
    ] {
        fs::write(meta.join("bad@0"), &text).unwrap();
        let before = snapshot(&bed.pcocc.repository());
        let shown: String = text.chars().take(100).collect();
        let out = bed
            .pcocc
            .try_run(&["image", "export", "bad", "docker-archive:out.tar"]);
        out.failed();
        assert!(!bed.at("out.tar").exists(), "{shown}");
        // The others are none the worse for it.
        let listed = bed.pcocc.run(&["image", "list"]);
        assert!(listed.contains("there"), "{shown}: {listed}");
        bed.pcocc.run(&["image", "show", "there"]);
        assert_eq!(snapshot(&bed.pcocc.repository()), before, "{shown}");
    }
    fs::remove_file(meta.join("bad@0")).unwrap();
    for stray in [
        "x",
        "bad@",
        "@0",
        "bad@x",
        "bad@-1",
        "a b@0",
        &format!("{}@0", "y".repeat(240)),
    ] {
        fs::write(meta.join(stray), good.to_string()).unwrap();
        let listed = bed.pcocc.run(&["image", "list"]);
        assert!(listed.contains("there"), "{stray}: {listed}");
        fs::remove_file(meta.join(stray)).unwrap();
    }
    assert_eq!(snapshot(&bed.pcocc.repository()), bed.before);
    bed.end();
}

#[test]
fn repositories_that_are_none() {
    let bed = Bed::new();
    let config = bed.pcocc.repository().join(".config");
    let good = fs::read(&config).unwrap();
    for (text, words) in [
        ("version: 3\n", "version 3"),
        ("version: many\n", ".config"),
        ("", ".config"),
        ("{{{{", ".config"),
        ("version: [2]\n", ".config"),
    ] {
        fs::write(&config, text).unwrap();
        let before = snapshot(&bed.pcocc.repository());
        for line in [
            ["image", "import", "oci:good", "bad"],
            ["image", "export", "there", "docker-archive:out.tar"],
            ["image", "copy", "there", "bad"],
        ] {
            let outcome = bed.pcocc.try_run(&line);
            let said = outcome.failed();
            assert!(said.contains(words), "'{words}' is not in:\n{outcome}");
        }
        assert_eq!(snapshot(&bed.pcocc.repository()), before);
        assert!(!bed.at("out.tar").exists());
    }
    fs::write(&config, good).unwrap();
    let elsewhere = |path: &str, words: &str| {
        let yaml = format!("repos:\n  - name: user\n    path: '{path}'\n");
        bed.pcocc.configure_repositories(&yaml);
        let outcome = bed.pcocc.try_run(&["image", "import", "oci:good", "bad"]);
        let said = outcome.failed();
        assert!(said.contains(words), "'{words}' is not in:\n{outcome}");
    };
    let file = bed.at("a-file");
    fs::write(&file, "mine").unwrap();
    elsewhere(&file.display().to_string(), "a-file");
    assert_eq!(fs::read(&file).unwrap(), b"mine");
    let full = bed.at("full");
    fs::create_dir(&full).unwrap();
    fs::write(full.join("mine"), "mine").unwrap();
    elsewhere(&full.display().to_string(), "full");
    assert_eq!(fs::read_dir(&full).unwrap().count(), 1);
    elsewhere("/proc/nothing/here", "/proc/nothing");
    for yaml in [
        "repos: 7\n",
        "{",
        "repos:\n  - name: 'a:b'\n    path: /x\n",
        "repos: []\n",
    ] {
        bed.pcocc.configure_repositories(yaml);
        let outcome = bed.pcocc.try_run(&["image", "import", "oci:good", "bad"]);
        outcome.failed();
    }
    fs::remove_file(bed.at(".pcocc/repos.yaml")).unwrap();
    assert_eq!(snapshot(&bed.pcocc.repository()), bed.before);
    bed.end();
}

/// Runs `pcocc` with `mount` done first, in a mount namespace of its own.
#[track_caller]
fn with_mount(bed: &Bed, mount: &str, line: &[&str]) -> Outcome {
    let pcocc = bed.pcocc.command(line);
    let script = format!("{mount} && exec \"$0\" \"$@\"");
    let mut command = bed.pcocc.any("unshare");
    command
        .args(["-m", "sh", "-c", &script])
        .arg(pcocc.get_program())
        .args(line);
    run(&mut command)
}

#[test]
fn a_repository_that_is_read_only_as_root() {
    let bed = Bed::new();
    let repository = bed.pcocc.repository().display().to_string();
    let mount = format!("mount --bind -o ro '{repository}' '{repository}'");
    for line in [
        ["image", "import", "oci:good", "bad"],
        ["image", "copy", "there", "bad"],
    ] {
        let outcome = with_mount(&bed, &mount, &line);
        bed.unchanged(&outcome, "Read-only file system");
    }
    let outcome = with_mount(&bed, &mount, &["image", "delete", "there"]);
    bed.unchanged(&outcome, "Read-only file system");
    let outcome = with_mount(
        &bed,
        &mount,
        &["image", "export", "there", "docker-archive:out.tar"],
    );
    outcome.ok();
    bed.end();
}

#[test]
fn a_file_system_that_is_full_as_root() {
    let bed = Bed::new();
    let big = {
        // Noise, which no compression makes small.
        let mut noise = Vec::new();
        for i in 0..60_000_u32 {
            noise.extend_from_slice(&Sha256::digest(i.to_le_bytes()));
        }
        noise
    };
    Image::new(&[file_layer("small", b"s"), file_layer("big", &big)]).write(&bed.at("big"));
    let repository = bed.pcocc.repository().display().to_string();
    // What is in the tmpfs is gone with the namespace: it must be looked at from within.
    let look = format!(
        "find '{repository}' -type f | sort > found-before; \"$0\" \"$@\"; code=$?; \
         find '{repository}' -type f | sort > found-after; \
         \"$0\" image repo verify user >&2 || exit 99; exit $code"
    );
    let pcocc = bed.pcocc.command(&[]);
    {
        let script = format!(
            "cp -a '{repository}' kept && mount -t tmpfs -o size=1m none '{repository}' && \
             cp -a kept/. '{repository}' && rm -r kept; {look}"
        );
        let mut command = bed.pcocc.any("unshare");
        command
            .args(["-m", "sh", "-c", &script])
            .arg(pcocc.get_program());
        command.args(["image", "import", "oci:big", "bad"]);
        let outcome = run(&mut command);
        assert_eq!(outcome.status.code(), Some(1), "{outcome}");
        let said = outcome.failed();
        assert!(said.contains("No space left"), "{outcome}");
        assert_eq!(
            fs::read_to_string(bed.at("found-after")).unwrap(),
            fs::read_to_string(bed.at("found-before")).unwrap(),
            "{outcome}"
        );
    }
    let mount = format!("mkdir small && mount -t tmpfs -o size=1m none small && true");
    for dest in ["docker-archive:small/out.tar", "oci:small/out"] {
        bed.pcocc.try_run(&["image", "import", "oci:big", "big"]);
        let script = format!(
            "{mount}; \"$0\" \"$@\"; code=$?; ls -A small > left; umount small; rmdir small; exit $code"
        );
        let mut command = bed.pcocc.any("unshare");
        command
            .args(["-m", "sh", "-c", &script])
            .arg(pcocc.get_program());
        command.args(["image", "export", "big", dest]);
        let outcome = run(&mut command);
        assert!(outcome.failed().contains("No space left"), "{outcome}");
        assert_eq!(fs::read_to_string(bed.at("left")).unwrap(), "");
    }
    bed.pcocc.verify();
}
