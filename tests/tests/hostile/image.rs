//! Images and layers in the making, to be spoilt.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tar::{EntryType, Header};

pub(crate) fn hex(bytes: &[u8]) -> String {
    let hash = Sha256::digest(bytes);
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(bytes))
}

pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// An image in the making, to be spoilt.
#[derive(Clone)]
pub(crate) struct Image {
    pub(crate) blobs: Vec<Vec<u8>>,
    pub(crate) config: Vec<u8>,
    pub(crate) manifest: Value,
    pub(crate) media_type: String,
}

impl Image {
    /// Makes an image of plain layers.
    pub(crate) fn new(layers: &[Vec<u8>]) -> Self {
        let plain: Vec<(Vec<u8>, String)> = layers
            .iter()
            .map(|layer| (layer.clone(), digest(layer)))
            .collect();
        Self::of(&plain, LAYER)
    }

    /// Makes an image of blobs and the diff IDs its config gives them.
    pub(crate) fn of(layers: &[(Vec<u8>, String)], media_type: &str) -> Self {
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
    pub(crate) fn but(&self, pointer: &str, value: Value) -> Self {
        let mut image = self.clone();
        *image.manifest.pointer_mut(pointer).expect("a value") = value;
        image
    }

    pub(crate) fn write(&self, folder: &Path) {
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
    pub(crate) fn archive(&self, path: &Path) {
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
pub(crate) fn layer(kind: EntryType, name: &[u8], link: &[u8], content: &[u8]) -> Vec<u8> {
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

pub(crate) fn append(tar: &mut Vec<u8>, mut header: Header, content: &[u8]) {
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

pub(crate) fn ended(mut tar: Vec<u8>) -> Vec<u8> {
    tar.resize(tar.len() + 1024, 0);
    tar
}

pub(crate) fn file_layer(name: &str, content: &[u8]) -> Vec<u8> {
    ended(layer(EntryType::Regular, name.as_bytes(), b"", content))
}

pub(crate) fn gzip(bytes: &[u8], folder: &Path) -> Vec<u8> {
    let plain = folder.join("to-compress");
    fs::write(&plain, bytes).unwrap();
    let output = Command::new("gzip").arg("-c").arg(&plain).output().unwrap();
    fs::remove_file(&plain).unwrap();
    output.stdout
}
