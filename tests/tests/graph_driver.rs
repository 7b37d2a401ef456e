//! The files of a real docker daemon, read as the agent of a docker VM reads those of its own.

use std::path::Path;
use std::sync::Arc;

use pcocc_guest::layers::{GraphDriver, Take};
use pcocc_layers::{ChainId, DiffId, Digest};
use pcocc_tests::{Docker, Dockerd};

/// A file of a tar: its path and its content.
type Content<'a> = (Vec<u8>, &'a [u8]);

/// A tar without the content of its files, and these.
fn taken_apart(tar: &[u8]) -> (Vec<u8>, Vec<Content<'_>>) {
    let (mut entries, mut files, mut from) = (Vec::new(), Vec::new(), 0);
    let mut archive = tar::Archive::new(tar);
    for entry in archive.entries().expect("a tar") {
        let entry = entry.expect("an entry");
        // A whiteout is a file without content, and not in the folder.
        if entry.header().entry_type().is_file() && entry.size() > 0 {
            let start = usize::try_from(entry.raw_file_position()).expect("a place");
            let end = start + usize::try_from(entry.size()).expect("a size");
            entries.extend_from_slice(&tar[from..start]);
            files.push((entry.path_bytes().into_owned(), &tar[start..end]));
            from = end;
        }
    }
    entries.extend_from_slice(&tar[from..]);
    (entries, files)
}

#[test]
fn docker_files_give_the_very_layers_as_root() {
    let docker = Docker::of(Arc::new(Dockerd::start()));
    let info = docker.run(&["info", "-f", "{{.Driver}} {{.DockerRootDir}}"]);
    let (driver, root) = info.trim().split_once(' ').expect("driver and folder");
    // Deleted and replaced files, links, odd names; and a layer that is not in one chunk.
    let built = docker.layer_on(&docker.busybox_image("base"), "built", 3);
    let store = GraphDriver::open(Path::new(root)).expect("docker's root");
    let id = docker.run(&["image", "inspect", "-f", "{{.Id}}", &built]);
    let id = id.trim().to_owned().try_into().expect("an image ID");
    if driver != "overlay2" {
        let error = store.config(&id).expect_err("another store").to_string();
        assert!(error.contains("in overlay2's store"), "{driver}: {error}");
        return;
    }
    let config = store.config(&id).expect("a config");
    assert_eq!(Digest::of(&config).to_string(), id.to_string());
    let config: serde_json::Value = serde_json::from_slice(&config).expect("JSON");
    let diff_ids: Vec<DiffId> =
        serde_json::from_value(config["rootfs"]["diff_ids"].clone()).expect("diff IDs");
    assert!(diff_ids.len() >= 3, "{diff_ids:?}");
    for (DiffId(diff_id), chain_id) in diff_ids.iter().zip(ChainId::prefixes(&diff_ids)) {
        let chain_id = chain_id.to_string().try_into().expect("a chain ID");
        let layer = store.layer(&chain_id, Take::All).expect("a layer");
        let (mut tar, bytes) = (Vec::new(), layer.bytes());
        layer.write_to(&mut tar).expect("its bytes");
        assert_eq!((Digest::of(&tar), tar.len() as u64), (*diff_id, bytes));
        let (expected, files) = taken_apart(&tar);
        let layer = store.layer(&chain_id, Take::Entries).expect("a layer");
        let (mut entries, bytes) = (Vec::new(), layer.bytes());
        layer.write_to(&mut entries).expect("its bytes");
        assert!(entries == expected && entries.len() as u64 == bytes);
        for (path, content) in files {
            let part = &content[content.len() / 3..content.len() / 2];
            let offset = content.len() as u64 / 3;
            let stretch = store.file(&chain_id, &path, offset, part.len() as u64);
            let mut found = Vec::new();
            let stretch =
                stretch.unwrap_or_else(|error| panic!("{}: {error}", path.escape_ascii()));
            stretch.write_to(&mut found).expect("its bytes");
            assert!(found == part, "{}", path.escape_ascii());
        }
    }
}
