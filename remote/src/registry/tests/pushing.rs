//! Images that lie are not sent to a registry.

use pcocc_image::layout::LayoutFolder;
use pcocc_image::oci::Platform;

use super::*;

/// An OCI layout whose config promises another layer than the one that the manifest names.
fn lying_layout() -> tempfile::TempDir {
    let (good, evil) = (
        MemoryImage::new(&[b"good"], Compression::Gzip),
        MemoryImage::new(&[b"evil"], Compression::Gzip),
    );
    let layer = &evil.image.layers()[0];
    let config = good.image.config();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json",
                   "digest": Digest::of(config).to_string(), "size": config.len()},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
                    "digest": layer.digest.to_string(), "size": layer.size}],
    })
    .to_string();
    let index = json!({"schemaVersion": 2, "manifests": [{
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": Digest::of(manifest.as_bytes()).to_string(), "size": manifest.len(),
    }]});
    let folder = tempfile::tempdir().unwrap();
    let blobs = folder.path().join("blobs/sha256");
    std::fs::create_dir_all(&blobs).unwrap();
    for blob in [config, manifest.as_bytes(), &evil.blobs[&layer.digest]] {
        std::fs::write(blobs.join(Digest::of(blob).hex()), blob).unwrap();
    }
    std::fs::write(folder.path().join("index.json"), index.to_string()).unwrap();
    let marker = br#"{"imageLayoutVersion":"1.0.0"}"#;
    std::fs::write(folder.path().join("oci-layout"), marker).unwrap();
    folder
}

#[test]
fn a_layer_that_is_another_than_the_config_says_is_not_sent() {
    let folder = lying_layout();
    let source = LayoutFolder::open(folder.path(), None, Platform::host()).unwrap();
    let server = taking("");
    let sent = copy(
        &source,
        &remote(&server, access(&server)),
        &Context::silent(),
    );
    let error = sent.unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    let seen = server.seen();
    let is_change = |request: &Request| request.line != "GET /v2/";
    assert!(!seen.iter().any(is_change), "{seen:?}");
}
