//! Images in repositories, the same at every run.

use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use pcocc_image::oci::{Image, Layer};
use pcocc_image::repository::{Meta, Repository};
use pcocc_layers::Compression;
use pcocc_layers::{DiffId, Digest};

/// When everything was made: 2026-01-02 03:04:05 UTC.
pub(crate) fn moment() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_323_045)
}

/// Puts a blob into a repository.
pub(crate) fn put(repository: &Repository, content: &[u8]) -> Digest {
    let mut blob = repository.temp_blob().unwrap();
    blob.write_all(content).unwrap();
    let digest = Digest::of(content);
    repository.publish_blob(blob, digest).unwrap();
    digest
}

/// Puts a container image of two layers into the repository at `path`; returns its ID.
pub(crate) fn container(path: &Path, name: &str, owner: &str) -> Digest {
    let repository = Repository::new("fixture", path);
    repository.check_writable().unwrap();
    let layers: Vec<Layer> = [&[b'a'; 2000][..], &[b'b'; 300]]
        .iter()
        .map(|content| Layer {
            digest: put(&repository, content),
            size: content.len() as u64,
            compression: Compression::Gzip,
            diff_id: DiffId(Digest::of(&content[1..])),
        })
        .collect();
    let config = serde_json::json!({
        "architecture": "amd64",
        "os": "linux",
        "config": {
            "Entrypoint": ["/bin/sh", "-c"],
            "Cmd": ["echo $GREETING you"],
            "Env": ["PATH=/bin", "GREETING=hello"],
            "WorkingDir": "/srv",
            "User": "1000:1000",
        },
        "rootfs": {"type": "layers", "diff_ids": layers.iter().map(|l| l.diff_id).collect::<Vec<_>>()},
    });
    let image = Image::assemble(config.to_string().into_bytes(), layers).unwrap();
    put(&repository, image.manifest());
    put(&repository, image.config());
    let meta = Meta::container(name, owner, moment(), &image, None).unwrap();
    repository.publish(&meta).unwrap();
    image.id()
}

/// Puts revision `revision` of a virtual machine's disk into the repository at `path`.
pub(crate) fn disk(path: &Path, name: &str, revision: u64) {
    let repository = Repository::new("fixture", path);
    repository.check_writable().unwrap();
    let blobs: Vec<Digest> = (0..=revision)
        .map(|n| put(&repository, &vec![b'd'; 5000 + n as usize]))
        .collect();
    let meta = Meta::virtual_machine(name, revision, "root", moment(), &blobs).unwrap();
    repository.publish(&meta).unwrap();
}
