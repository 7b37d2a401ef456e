//! The layouts of docker 20.10, docker 25+ and containerd's store, whole and broken.

use std::io::Write;

use super::super::client::{ImageStore, Inspected};
use super::super::save::read_archive;
use super::{Memory, Receiving};
use pcocc_image::oci::{Image, Layer};
use pcocc_image::transfer::Context;
use pcocc_image::{Error, Result};
use pcocc_layers::Compression;
use pcocc_layers::{DiffId, Digest};

/// What an archive holds: path and content, or path and link target.
#[derive(Clone)]
pub(super) enum Part {
    File(String, Vec<u8>),
    Link(String, String),
}

pub(super) fn pack(parts: &[Part]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for part in parts {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        match part {
            Part::File(path, data) => {
                header.set_size(data.len() as u64);
                builder.append_data(&mut header, path, &data[..]).unwrap();
            }
            Part::Link(path, target) => {
                header.set_entry_type(tar::EntryType::Symlink);
                header.set_size(0);
                builder.append_link(&mut header, path, target).unwrap();
            }
        }
    }
    builder.into_inner().unwrap()
}

fn file(path: impl Into<String>, data: impl Into<Vec<u8>>) -> Part {
    Part::File(path.into(), data.into())
}

/// A layer: a small tar that differs by `name`.
pub(super) fn layer(name: &str) -> Vec<u8> {
    pack(&[file(name, name.repeat(300))])
}

/// Three layers, the first and last equal, and what a daemon would tell of their image.
pub(super) struct Sample {
    pub(super) layers: Vec<Vec<u8>>,
    pub(super) config: Vec<u8>,
    pub(super) inspected: Inspected,
}

impl Sample {
    pub(super) fn new() -> Self {
        Self::of(vec![layer("one"), layer("two"), layer("one")])
    }

    pub(super) fn of(layers: Vec<Vec<u8>>) -> Self {
        let diff_ids: Vec<DiffId> = layers.iter().map(|l| DiffId(Digest::of(l))).collect();
        let config = serde_json::json!({
            "architecture": "amd64",
            "os": "linux",
            "config": {"Cmd": ["sh"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        })
        .to_string()
        .into_bytes();
        Self {
            inspected: Inspected {
                id: Digest::of(&config),
                diff_ids,
                size: 1,
                tags: vec!["bb:latest".to_owned()],
            },
            layers,
            config,
        }
    }

    fn manifest(&self, config: &str, layers: &[String]) -> Part {
        let json = serde_json::json!([{
            "Config": config, "RepoTags": ["bb:latest"], "Layers": layers,
        }]);
        file("manifest.json", json.to_string())
    }

    /// docker 20.10: the first layer is a link to the last, which comes later.
    pub(super) fn old(&self) -> Vec<Part> {
        let folders: Vec<String> = (1..=3).map(|i| format!("{i}").repeat(64)).collect();
        let config = format!("{}.json", self.inspected.id.hex());
        let mut parts = Vec::new();
        for (folder, data) in folders.iter().zip(&self.layers) {
            parts.push(file(format!("{folder}/VERSION"), "1.0"));
            parts.push(file(
                format!("{folder}/json"),
                format!(r#"{{"id":"{folder}"}}"#),
            ));
            parts.push(if *folder == folders[0] {
                Part::Link(
                    format!("{folder}/layer.tar"),
                    format!("../{}/layer.tar", folders[2]),
                )
            } else {
                file(format!("{folder}/layer.tar"), data.clone())
            });
        }
        parts.push(file(config.clone(), self.config.clone()));
        let paths: Vec<_> = folders.iter().map(|f| format!("{f}/layer.tar")).collect();
        parts.push(self.manifest(&config, &paths));
        parts.push(file("repositories", "{}"));
        parts
    }

    /// docker 25 and later.
    pub(super) fn new_layout(&self) -> Vec<Part> {
        let path = |data: &[u8]| format!("blobs/sha256/{}", Digest::of(data).hex());
        let mut parts = Vec::new();
        for (place, layer) in self.layers.iter().enumerate() {
            if !self.layers[..place].contains(layer) {
                parts.push(file(path(layer), layer.clone()));
            }
        }
        parts.push(file(path(&self.config), self.config.clone()));
        parts.push(file(path(b"{}"), "{}"));
        let paths: Vec<_> = self.layers.iter().map(|l| path(l)).collect();
        parts.push(file("index.json", "{}"));
        parts.push(self.manifest(&path(&self.config), &paths));
        parts.push(file("oci-layout", r#"{"imageLayoutVersion": "1.0.0"}"#));
        parts
    }

    /// containerd's store: compressed blobs, and the ID is the manifest's.
    fn containerd(&self) -> (Vec<Part>, Inspected, Image) {
        let path = |digest: Digest| format!("blobs/sha256/{}", digest.hex());
        let mut parts = Vec::new();
        let mut layers = Vec::new();
        for (plain, diff_id) in self.layers.iter().zip(&self.inspected.diff_ids) {
            let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            gzip.write_all(plain).unwrap();
            let blob = gzip.finish().unwrap();
            let layer = Layer {
                digest: Digest::of(&blob),
                size: blob.len() as u64,
                compression: Compression::Gzip,
                diff_id: *diff_id,
            };
            if !layers.contains(&layer) {
                parts.push(file(path(layer.digest), blob));
            }
            layers.push(layer);
        }
        let image = Image::assemble(self.config.clone(), layers).unwrap();
        parts.push(file(path(image.id()), self.config.clone()));
        // Not byte for byte what we would write ourselves.
        let manifest = [image.manifest(), b"\n"].concat();
        let id = Digest::of(&manifest);
        let image = Image::parse(&manifest, &self.config).unwrap();
        parts.push(file(path(id), manifest));
        let paths: Vec<_> = image.layers().iter().map(|l| path(l.digest)).collect();
        parts.push(self.manifest(&path(image.id()), &paths));
        parts.push(file("index.json", image.index(None).unwrap()));
        let inspected = Inspected {
            id,
            ..self.inspected.clone()
        };
        (parts, inspected, image)
    }
}

fn read(archive: &[u8], inspected: &Inspected, store: ImageStore) -> Result<Image> {
    read_into(&Memory::default(), archive, inspected, store)
}

fn read_into(
    memory: &Memory,
    archive: &[u8],
    inspected: &Inspected,
    store: ImageStore,
) -> Result<Image> {
    let context = Context::silent();
    read_archive(
        archive,
        inspected,
        store,
        true,
        &mut Receiving(memory),
        &context,
    )
}

#[test]
fn both_layouts_give_the_image() {
    let sample = Sample::new();
    for parts in [sample.old(), sample.new_layout()] {
        let memory = Memory::default();
        let image = read_into(
            &memory,
            &pack(&parts),
            &sample.inspected,
            ImageStore::GraphDriver,
        );
        let image = image.unwrap();
        assert_eq!(image.config(), sample.config);
        assert_eq!(image.diff_ids(), sample.inspected.diff_ids);
        // The equal layers are in the archive once.
        assert_eq!(memory.announced.lock().unwrap().len(), 2);
    }
}

#[test]
fn blob_names_announce_the_layers() {
    let sample = Sample::new();
    let memory = Memory::default();
    let archive = pack(&sample.new_layout());
    read_into(
        &memory,
        &archive,
        &sample.inspected,
        ImageStore::GraphDriver,
    )
    .unwrap();
    let announced = memory.announced.into_inner().unwrap();
    let expected: Vec<_> = sample
        .inspected
        .diff_ids
        .iter()
        .copied()
        .map(Some)
        .collect();
    assert_eq!(announced, expected[..2]);
}

#[test]
fn containerd_images_keep_their_manifest() {
    let sample = Sample::new();
    let (parts, inspected, expected) = sample.containerd();
    let image = read(&pack(&parts), &inspected, ImageStore::Containerd).unwrap();
    assert_eq!(image.manifest_digest(), inspected.id);
    assert_eq!(image, expected);
    // Without the manifest there is still an image, with another.
    let parts: Vec<_> = parts
        .into_iter()
        .filter(|part| !matches!(part, Part::File(path, _) if path.ends_with(&inspected.id.hex())))
        .collect();
    let image = read(&pack(&parts), &inspected, ImageStore::Containerd).unwrap();
    assert_eq!(image.layers(), expected.layers());
}

#[test]
fn a_truncated_archive_is_never_an_image() {
    let sample = Sample::new();
    for parts in [sample.old(), sample.new_layout()] {
        let archive = pack(&parts);
        // Behind manifest.json nothing is needed any more.
        let needed = pack(&parts[..parts.len() - 1]).len() - 1024;
        for cut in (0..needed).step_by(1000).chain([needed - 513]) {
            let outcome = read(&archive[..cut], &sample.inspected, ImageStore::GraphDriver);
            assert!(outcome.is_err(), "cut at {cut} of {}", archive.len());
        }
    }
}

#[test]
fn hostile_archives_are_refused_with_a_reason() {
    let sample = Sample::new();
    let good = sample.old();
    let with = |change: &dyn Fn(&mut Vec<Part>)| {
        let mut parts = good.clone();
        change(&mut parts);
        pack(&parts)
    };
    let config = format!("{}.json", sample.inspected.id.hex());
    let third = format!("{}/layer.tar", "3".repeat(64));
    let manifest = |json: serde_json::Value| {
        with(&move |parts: &mut Vec<Part>| {
            parts.retain(|part| !matches!(part, Part::File(path, _) if path == "manifest.json"));
            parts.push(file("manifest.json", json.to_string()));
        })
    };
    let one = serde_json::json!({"Config": config, "Layers": [third, third, third]});
    let cases = [
        (b"<html>not a tar</html>".repeat(50), "checksum"),
        (Vec::new(), "no manifest.json"),
        (pack(&[]), "no manifest.json"),
        (with(&|parts| parts.push(good[2].clone())), "twice"),
        (with(&|parts| parts.push(good[5].clone())), "twice"),
        (with(&|parts| parts.push(good[1].clone())), "twice"),
        (with(&|parts| drop(parts.remove(5))), "does not hold"),
        (with(&|parts| drop(parts.remove(8))), "does not hold"),
        (
            with(&|parts| {
                parts[8] = Part::Link(third.clone(), format!("../{}/layer.tar", "1".repeat(64)));
            }),
            "loop",
        ),
        (
            with(&|parts| {
                parts[2] = Part::Link(format!("{}/layer.tar", "1".repeat(64)), "/dev/sda".into());
            }),
            "outside",
        ),
        (manifest(serde_json::json!([one, one])), "2 images"),
        (manifest(serde_json::json!([])), "0 images"),
        (manifest(serde_json::json!({"a": 1})), "does not parse"),
        (manifest(serde_json::json!([one])), "other layers"),
        (
            manifest(serde_json::json!([{"Config": "../../x", "Layers": []}])),
            "outside",
        ),
        (
            manifest(serde_json::json!([{"Config": third, "Layers": []}])),
            "no config",
        ),
        (
            manifest(serde_json::json!([{"Config": config, "Layers": vec![third.clone(); 2000]}])),
            "more than 1024",
        ),
    ];
    for (archive, word) in cases {
        let outcome = read(&archive, &sample.inspected, ImageStore::GraphDriver);
        let error = outcome.unwrap_err().to_string();
        assert!(error.contains(word), "{word}: {error}");
    }
}

#[test]
fn another_config_than_the_daemon_named_is_corrupt() {
    let sample = Sample::new();
    let mut inspected = sample.inspected.clone();
    inspected.id = Digest::of(b"another");
    for parts in [sample.old(), sample.new_layout()] {
        let error = read(&pack(&parts), &inspected, ImageStore::GraphDriver).unwrap_err();
        assert!(matches!(error, Error::Corrupt { expected, .. } if expected == inspected.id));
    }
}

#[test]
fn a_swapped_layer_is_corrupt() {
    let sample = Sample::new();
    let mut parts = sample.new_layout();
    let Part::File(_, data) = &mut parts[1] else {
        panic!("a layer")
    };
    *data = layer("six");
    let error = read(&pack(&parts), &sample.inspected, ImageStore::GraphDriver).unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
}
