//! The files of a real docker daemon, read as the agent of a docker VM reads those of its own.

use std::path::Path;
use std::sync::Arc;

use pcocc_guest::layers::GraphDriver;
use pcocc_layers::{ChainId, DiffId, Digest};
use pcocc_tests::{Docker, Dockerd};

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
        let layer = store.layer(&chain_id).expect("a layer");
        let (mut tar, bytes) = (Vec::new(), layer.bytes());
        layer.write_to(&mut tar).expect("its bytes");
        assert_eq!((Digest::of(&tar), tar.len() as u64), (*diff_id, bytes));
    }
}
