//! An image to copy around, and lines of shell in a mount.

use std::fs;
use std::path::Path;
use std::process::Command;

use pcocc_tests::{Mount, Outcome, Pcocc, run};
use serde_json::json;
use sha2::{Digest as _, Sha256};

/// Writes a blob into the OCI layout at `folder`; gives its descriptor.
fn blob(folder: &Path, media_type: &str, content: &[u8]) -> serde_json::Value {
    let hex: String = Sha256::digest(content)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    fs::write(folder.join("blobs/sha256").join(&hex), content).unwrap();
    json!({"mediaType": media_type, "digest": format!("sha256:{hex}"), "size": content.len()})
}

/// Makes an OCI layout with one image of two small layers.
pub fn layout(folder: &Path) {
    fs::create_dir_all(folder.join("blobs/sha256")).unwrap();
    let layers: Vec<_> = ["hello", "world"]
        .iter()
        .map(|name| {
            let mut tar = tar::Builder::new(Vec::new());
            let mut header = tar::Header::new_gnu();
            header.set_size(200_000);
            header.set_mode(0o644);
            header.set_cksum();
            tar.append_data(&mut header, format!("etc/{name}"), &vec![7; 200_000][..])
                .unwrap();
            let content = tar.into_inner().unwrap();
            blob(folder, "application/vnd.oci.image.layer.v1.tar", &content)
        })
        .collect();
    let diff_ids: Vec<_> = layers.iter().map(|layer| &layer["digest"]).collect();
    let config = json!({"architecture": "amd64", "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": diff_ids}});
    let config = blob(
        folder,
        "application/vnd.oci.image.config.v1+json",
        config.to_string().as_bytes(),
    );
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({"schemaVersion": 2, "mediaType": media_type, "config": config,
        "layers": layers});
    let manifest = blob(folder, media_type, manifest.to_string().as_bytes());
    let index = json!({"schemaVersion": 2, "manifests": [manifest]});
    fs::write(folder.join("index.json"), index.to_string()).unwrap();
    let marker = json!({"imageLayoutVersion": "1.0.0"});
    fs::write(folder.join("oci-layout"), marker.to_string()).unwrap();
}

/// A repository with the image `hello`, and the same image as the folder `plain` in the home.
pub fn with_image(pcocc: Pcocc) -> (Pcocc, String) {
    let scratch = pcocc_tests::scratch();
    let made = scratch.path().join("made");
    layout(&made);
    run(Command::new("chmod")
        .args(["-R", "a+rX"])
        .arg(scratch.path()))
    .ok();
    let plain = pcocc.home().join("plain");
    pcocc.run_any("cp", &["-r", text(&made), text(&plain)]);
    pcocc.run(&["image", "import", "-t", "oci", text(&plain), "hello"]);
    let id = pcocc.image_id("hello");
    (pcocc, id)
}

pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Runs a line of shell in the mount point.
pub fn shell(pcocc: &Pcocc, mount: &Mount, line: &str) -> Outcome {
    let script = format!("set -eu -o pipefail; cd \"$1\"; home=$2; {line}");
    run(pcocc.any("bash").arg("-c").arg(script).args([
        "bash",
        text(mount.path()),
        text(pcocc.home()),
    ]))
}
