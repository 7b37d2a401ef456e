use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::PathBuf;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::error::{Error, Result};
use crate::oci::{Image, Layer};
use crate::store::Store;
use crate::stream::inflate;
use crate::testing::MemoryStore;
use crate::testing::memory::{MemoryImage, compress, config, snapshot, tar_of};
use crate::transfer::{Context, copy};
use pcocc_layers::{Compression, DiffId, Digest};

/// Content of an archive in the making.
#[derive(Clone)]
struct Archive(Vec<u8>);

impl Archive {
    fn new() -> Self {
        Self(Vec::new())
    }

    fn with(mut self, name: &str, content: &[u8]) -> Self {
        let entry = tar_of(name, content);
        self.0.extend_from_slice(&entry[..entry.len() - 1024]);
        self
    }

    fn link(mut self, kind: tar::EntryType, name: &str, target: &str) -> Self {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(0);
        tar.append_link(&mut header, name, target).unwrap();
        let entry = tar.into_inner().unwrap();
        self.0.extend_from_slice(&entry[..entry.len() - 1024]);
        self
    }

    fn symlink(self, name: &str, target: &str) -> Self {
        self.link(tar::EntryType::Symlink, name, target)
    }

    fn end(&self) -> Vec<u8> {
        [&self.0[..], &[0; 1024]].concat()
    }
}

struct Bed {
    dir: TempDir,
    path: PathBuf,
}

impl Bed {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("image.tar");
        Self { dir, path }
    }

    fn read(&self, reference: Option<&str>) -> Result<(Image, MemoryStore)> {
        let store = MemoryStore::temporary()?;
        let context = Context::silent();
        let archive = ArchiveFile::open(&self.path, reference, &context)?;
        let image = copy(&archive, &*store.sink("image", None)?, &context)?;
        Ok((image, store))
    }

    fn reads(&self, content: &[u8]) -> Result<(Image, MemoryStore)> {
        fs::write(&self.path, content).unwrap();
        self.read(None)
    }

    /// Reads the archive, which must fail with these words and change nothing.
    fn refuses(&self, content: &[u8], words: &str) {
        fs::write(&self.path, content).unwrap();
        let before = snapshot(self.dir.path());
        let error = self.read(None).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(words), "{error:?} lacks {words:?}");
        assert!(error.len() < 1000, "{error}");
        assert_eq!(snapshot(self.dir.path()), before);
    }
}

/// Two layers, their config, and how `manifest.json` would list them.
struct Parts {
    layers: [Vec<u8>; 2],
    config: Vec<u8>,
    id: Digest,
}

fn parts() -> Parts {
    let layers = [tar_of("a", b"first"), tar_of("b", &[7; 3000])];
    let described: Vec<Layer> = layers
        .iter()
        .map(|plain| Layer {
            digest: Digest::of(plain),
            size: plain.len() as u64,
            compression: Compression::None,
            diff_id: DiffId(Digest::of(plain)),
        })
        .collect();
    let config = config(&described);
    Parts {
        id: Digest::of(&config),
        layers,
        config,
    }
}

fn manifest(config: &str, layers: &[&str], tags: Value) -> Vec<u8> {
    json!([{"Config": config, "Layers": layers, "RepoTags": tags}])
        .to_string()
        .into_bytes()
}

/// As docker 20.10 lays it out.
fn old_docker(parts: &Parts) -> Archive {
    Archive::new()
        .with("aaa/VERSION", b"1.0")
        .with("aaa/layer.tar", &parts.layers[0])
        .symlink("ccc/layer.tar", "../bbb/layer.tar")
        .with("bbb/layer.tar", &parts.layers[1])
        .with(&format!("{}.json", parts.id.hex()), &parts.config)
        .with(
            "manifest.json",
            &manifest(
                &format!("{}.json", parts.id.hex()),
                &["aaa/layer.tar", "ccc/layer.tar"],
                json!(["img:1"]),
            ),
        )
        .with("repositories", b"{}")
}

/// As docker 26 lays it out, with layers of some compression.
fn new_docker(parts: &Parts, compression: Compression) -> Archive {
    let blobs: Vec<Vec<u8>> = parts
        .layers
        .iter()
        .map(|l| compress(l, compression))
        .collect();
    let name = |bytes: &[u8]| format!("blobs/sha256/{}", Digest::of(bytes).hex());
    Archive::new()
        .with(&name(&blobs[1]), &blobs[1])
        .with(&name(&parts.config), &parts.config)
        .with(&name(&blobs[0]), &blobs[0])
        .with("index.json", b"{}")
        .with(
            "manifest.json",
            &manifest(
                &name(&parts.config),
                &[&name(&blobs[0]), &name(&blobs[1])],
                json!(null),
            ),
        )
        .with("oci-layout", b"{}")
}

#[test]
fn archives_are_read_however_they_are_compressed() {
    let bed = Bed::new();
    let parts = parts();
    let plain = new_docker(&parts, Compression::Gzip).end();
    let through = |mut packer: Box<dyn Read>| {
        let mut packed = Vec::new();
        packer.read_to_end(&mut packed).unwrap();
        packed
    };
    let source = || std::io::Cursor::new(plain.clone());
    for packed in [
        through(Box::new(liblzma::read::XzEncoder::new(source(), 1))),
        through(Box::new(bzip2::read::BzEncoder::new(
            source(),
            bzip2::Compression::fast(),
        ))),
    ] {
        let (image, _) = bed.reads(&packed).unwrap();
        assert_eq!(image.id(), parts.id);
        // Cut off, damaged, and followed by something else.
        let half = packed.len() / 2;
        assert!(bed.reads(&packed[..half]).is_err());
        let mut damaged = packed.clone();
        damaged[half] ^= 0x55;
        assert!(bed.reads(&damaged).is_err());
    }
    // A block with a dictionary of 3 GiB is not for a reader of archives.
    let mut block = vec![2, 0, 0x21, 1, 39, 0, 0, 0];
    let mut sum = flate2::Crc::new();
    sum.update(&block);
    block.extend(sum.sum().to_le_bytes());
    let start = [
        0xfd, b'7', b'z', b'X', b'Z', 0, 0, 4, 0xe6, 0xd6, 0xb4, 0x46,
    ];
    let outcome = bed.reads(&[&start[..], &block, &[0; 64]].concat());
    let error = outcome.map(|(image, _)| image).unwrap_err().to_string();
    assert!(error.contains("memory"), "{error}");
}

#[test]
fn every_layout_of_docker_is_read_plain_and_compressed() {
    let bed = Bed::new();
    let parts = parts();
    let diff_ids: Vec<DiffId> = parts.layers.iter().map(|l| DiffId(Digest::of(l))).collect();
    for archive in [
        old_docker(&parts),
        new_docker(&parts, Compression::None),
        new_docker(&parts, Compression::Gzip),
        new_docker(&parts, Compression::Zstd),
    ] {
        for whole in [Compression::None, Compression::Gzip, Compression::Zstd] {
            let (image, store) = bed.reads(&compress(&archive.end(), whole)).unwrap();
            assert_eq!(image.id(), parts.id);
            assert_eq!(image.diff_ids(), diff_ids);
            let kept = store.layout("image", &Context::silent()).unwrap();
            for (layer, plain) in image.layers().iter().zip(&parts.layers) {
                let blob = kept.open_layer(layer).unwrap();
                let mut found = Vec::new();
                inflate(blob, layer.compression)
                    .unwrap()
                    .read_to_end(&mut found)
                    .unwrap();
                assert_eq!(&found, plain);
            }
        }
    }
}

#[test]
fn names_longer_than_a_header_are_read() {
    let bed = Bed::new();
    let parts = parts();
    let long = format!("{}/layer.tar", "x".repeat(4096));
    let archive = Archive::new()
        .with(&long, &parts.layers[0])
        .with("./b.tar", &parts.layers[1])
        .with("c.json", &parts.config)
        .with(
            "manifest.json",
            &manifest("c.json", &[&long, "b.tar"], json!([])),
        );
    assert_eq!(bed.reads(&archive.end()).unwrap().0.id(), parts.id);
    // Without the two blocks of zeros at the end.
    for whole in [Compression::None, Compression::Gzip, Compression::Zstd] {
        let bytes = compress(&archive.0, whole);
        assert_eq!(bed.reads(&bytes).unwrap().0.id(), parts.id);
    }
}

#[test]
fn one_of_several_images_is_chosen_by_name() {
    let bed = Bed::new();
    let one = parts();
    let plain = tar_of("z", b"z");
    let layer = Layer {
        digest: Digest::of(&plain),
        size: plain.len() as u64,
        compression: Compression::None,
        diff_id: DiffId(Digest::of(&plain)),
    };
    let other = config(&[layer]);
    let list = json!([
        {"Config": "1.json", "Layers": ["a", "b"], "RepoTags": ["app:1", "app:latest"]},
        {"Config": "2.json", "Layers": ["z"], "RepoTags": ["reg.io:5000/app:2"]},
    ]);
    let archive = Archive::new()
        .with("a", &one.layers[0])
        .with("b", &one.layers[1])
        .with("z", &plain)
        .with("1.json", &one.config)
        .with("2.json", &other)
        .with("manifest.json", list.to_string().as_bytes())
        .end();
    bed.refuses(&archive, "app:1, app:latest, reg.io:5000/app:2");
    for (name, id) in [
        ("app", one.id),
        ("app:1", one.id),
        ("docker.io/library/app:1", one.id),
        ("reg.io:5000/app:2", Digest::of(&other)),
    ] {
        assert_eq!(bed.read(Some(name)).unwrap().0.id(), id, "{name}");
    }
    let error = bed.read(Some("app:3")).map(|_| ()).unwrap_err();
    assert!(matches!(error, Error::NotFound(_)), "{error}");
}

#[test]
fn truncated_archives_are_refused_wherever_they_end() {
    let bed = Bed::new();
    let parts = parts();
    let archive = old_docker(&parts).end();
    // What lies behind manifest.json is not needed.
    let needed = archive.len() - 5 * 512;
    for whole in [Compression::None, Compression::Gzip, Compression::Zstd] {
        let bytes = compress(&archive, whole);
        for cut in (0..bytes.len()).step_by(97) {
            match bed.reads(&bytes[..cut]) {
                Ok((image, _)) => {
                    assert_eq!(image.id(), parts.id);
                    assert!(whole != Compression::None || cut >= needed, "{cut}");
                }
                Err(error) => {
                    let error = error.to_string();
                    assert!(error.len() < 1000 && !error.is_empty(), "{error}");
                }
            }
        }
    }
    bed.refuses(b"", "no tar archive");
    bed.refuses(&archive[..5 * 512 + 100], "truncated");
    bed.refuses(b"not a tar archive at all", "truncated");
    bed.refuses(&[b'x'; 4096], "not a tar archive");
}

#[test]
fn corrupt_archives_are_refused() {
    let bed = Bed::new();
    let parts = parts();
    let good = old_docker(&parts).end();
    let mut header = good.clone();
    header[1024 + 3] ^= 1;
    bed.refuses(&header, "checksum");
    let mut layer = good.clone();
    let place = layer.windows(5).position(|w| w == b"first").unwrap();
    layer[place] ^= 1;
    bed.refuses(&layer, "corrupt");
    let mut config = good.clone();
    let place = config.windows(6).position(|w| w == b"rootfs").unwrap();
    config[place] ^= 1;
    bed.refuses(&config, "corrupt");
    let mut gzip = compress(&good, Compression::Gzip);
    let middle = gzip.len() / 2;
    gzip[middle] ^= 0x55;
    bed.refuses(&gzip, "");
}

#[test]
fn entries_that_cannot_be_trusted_are_refused() {
    let bed = Bed::new();
    let parts = parts();
    let entry = |kind: u8, content: &[u8]| {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::new(kind));
        header.set_size(content.len() as u64);
        tar.append_data(&mut header, "first", content).unwrap();
        let entry = tar.into_inner().unwrap();
        entry[..entry.len() - 1024].to_vec()
    };
    let good = old_docker(&parts).end();
    for (first, words) in [
        (entry(b'x', b"99 path=a\n"), "pax record"),
        (entry(b'x', b"9 size=x\n"), "broken number"),
        (entry(b'S', b""), "sparse"),
        (vec![0; 512], "stray zero block"),
    ] {
        bed.refuses(&[first, good.clone()].concat(), words);
    }
    let global = [entry(b'g', b"10 path=b\n"), good].concat();
    assert_eq!(bed.reads(&global).unwrap().0.id(), parts.id);
}

#[test]
fn sizes_that_lie_are_refused() {
    let bed = Bed::new();
    let parts = parts();
    for size in [1 << 20, 1 << 40, i64::MAX as u64, u64::MAX - 600, u64::MAX] {
        let mut bytes = old_docker(&parts).end();
        let mut header = tar::Header::new_gnu();
        header.as_mut_bytes().copy_from_slice(&bytes[1024..1536]);
        header.set_size(size);
        header.set_cksum();
        bytes[1024..1536].copy_from_slice(header.as_bytes());
        fs::write(&bed.path, &bytes).unwrap();
        assert!(bed.read(None).is_err(), "{size}");
        fs::write(&bed.path, compress(&bytes, Compression::Gzip)).unwrap();
        assert!(bed.read(None).is_err(), "{size}");
    }
    // A name of a gigabyte, which must not be read into memory.
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::GNULongName);
    header.set_path("long").unwrap();
    header.set_size(1 << 30);
    header.set_cksum();
    fs::write(&bed.path, header.as_bytes()).unwrap();
    let file = fs::OpenOptions::new().write(true).open(&bed.path).unwrap();
    file.set_len(2 << 30).unwrap();
    let error = bed.read(None).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("longer than 1 MiB"), "{error}");
}

#[test]
fn long_names_fill_no_memory() {
    let bed = Bed::new();
    let long = "x".repeat(1_000_000);
    let mut archive = Archive::new();
    for number in 0..70 {
        archive = archive.symlink(&format!("{number}"), &long);
    }
    // It is small on the disk.
    let bytes = compress(&archive.end(), Compression::Gzip);
    fs::write(&bed.path, bytes).unwrap();
    let error = bed.read(None).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("bytes of names"), "{error}");
}

#[test]
fn odd_manifests_are_refused() {
    let bed = Bed::new();
    let parts = parts();
    let base = || {
        Archive::new()
            .with("a", &parts.layers[0])
            .with("b", &parts.layers[1])
            .with("c.json", &parts.config)
            .symlink("out", "../../etc/passwd")
            .symlink("up", "..")
            .symlink("x", "y")
            .symlink("y", "x")
            .link(tar::EntryType::Link, "hard", "nowhere")
    };
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    for (text, words) in [
        (
            manifest("c.json", &["a", "missing"], json!(null)),
            "lacks \"missing\"",
        ),
        (
            manifest("d.json", &["a", "b"], json!(null)),
            "lacks \"d.json\"",
        ),
        (manifest("c.json", &["a"], json!(null)), "lists 1 layers"),
        (manifest("c.json", &["b", "a"], json!(null)), "corrupt"),
        (manifest("a", &["a", "b"], json!(null)), "does not parse"),
        (
            manifest("c.json", &["a", "out"], json!(null)),
            "out of the archive",
        ),
        (
            manifest("c.json", &["a", "../../b"], json!(null)),
            "out of the archive",
        ),
        (manifest("c.json", &["a", "x"], json!(null)), "circle"),
        (manifest("c.json", &["a", "hard"], json!(null)), "lacks"),
        (
            manifest("c.json", &["a", &"n".repeat(4096)], json!(null)),
            "lacks",
        ),
        (b"[]".to_vec(), "no image"),
        (b"{}".to_vec(), "does not parse"),
        (b"not json".to_vec(), "does not parse"),
        (deep.into_bytes(), "does not parse"),
        (vec![b' '; 9 << 20], "more than"),
        (br#"[{"Config":7}]"#.to_vec(), "does not parse"),
    ] {
        bed.refuses(&base().with("manifest.json", &text).end(), words);
    }
    bed.refuses(&base().end(), "docker save");
    bed.refuses(&base().with("oci-layout", b"{}").end(), "OCI archive");
    let liar = format!("{}.json", Digest::of(b"other").hex());
    let lying = base()
        .with(&liar, &parts.config)
        .with("manifest.json", &manifest(&liar, &["a", "b"], json!(null)));
    bed.refuses(&lying.end(), "corrupt");
}

#[test]
fn what_is_written_is_read_again() {
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        let bed = Bed::new();
        let image = MemoryImage::new(&[b"one", b"two", b"one", &[9; 70_000]], compression);
        let context = Context::silent();
        let sink = ArchiveSink::new(&bed.path, Some("img"));
        copy(&image, &sink, &context).unwrap();
        let (back, _) = bed.read(Some("img:latest")).unwrap();
        assert_eq!(back.id(), image.image.id());
        assert_eq!(back.diff_ids(), image.image.diff_ids());
        assert!(matches!(
            copy(&image, &sink, &context),
            Err(Error::Exists(_))
        ));
        assert_eq!(fs::read_dir(bed.dir.path()).unwrap().count(), 1);
    }
}

#[test]
fn a_failed_write_leaves_nothing() {
    let bed = Bed::new();
    let context = Context::silent();
    let mut broken = MemoryImage::new(&[b"one", b"two"], Compression::Gzip);
    broken.breaks = Some((1, 15));
    let mut lying = MemoryImage::new(&[b"one"], Compression::Gzip);
    for blob in lying.blobs.values_mut() {
        *blob = compress(&tar_of("other", b"one"), Compression::Gzip);
    }
    for image in [&broken, &lying] {
        assert!(copy(image, &ArchiveSink::new(&bed.path, None), &context).is_err());
    }
    for name in ["UPPER", "a b", "", "img@sha256:00", &"x".repeat(4096)] {
        let sink = ArchiveSink::new(&bed.path, Some(name));
        assert!(copy(&lying, &sink, &context).is_err(), "{name:?}");
    }
    assert_eq!(fs::read_dir(bed.dir.path()).unwrap().count(), 0);
    let mut file = File::create(&bed.path).unwrap();
    file.write_all(b"mine").unwrap();
    let sound = MemoryImage::new(&[b"one"], Compression::Gzip);
    assert!(copy(&sound, &ArchiveSink::new(&bed.path, None), &context).is_err());
    assert_eq!(fs::read(&bed.path).unwrap(), b"mine");
}
