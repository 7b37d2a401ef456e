//! OCI layouts with one small image, as other tools would have made them.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// Writes an OCI layout into the new folder `folder`: one image with a plain layer for each of `files`, which
/// holds the file `etc/<number>` with that content.
pub fn write(folder: &Path, files: &[&[u8]]) {
    let numbered = files.iter().enumerate();
    let layers: Vec<Vec<u8>> = numbered.map(|(number, file)| layer(number, file)).collect();
    write_layers(folder, &layers);
}

/// Writes an OCI layout into the new folder `folder`: one image of plain layers, given as tar archives.
pub fn write_layers(folder: &Path, layers: &[Vec<u8>]) {
    fs::create_dir_all(folder.join("blobs/sha256")).expect("make the folders of a layout");
    let layers: Vec<Value> = layers
        .iter()
        .map(|layer| blob(folder, LAYER, layer))
        .collect();
    let diff_ids: Vec<&Value> = layers.iter().map(|layer| &layer["digest"]).collect();
    let config = json!({"architecture": architecture(), "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": diff_ids}});
    finish(folder, &config, &layers);
}

/// Writes config, manifest and index.
fn finish(folder: &Path, config: &Value, layers: &[Value]) {
    let config = blob(folder, CONFIG, config.to_string().as_bytes());
    let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config,
        "layers": layers});
    let manifest = blob(folder, MANIFEST, manifest.to_string().as_bytes());
    let index = json!({"schemaVersion": 2, "manifests": [manifest]});
    let marker = json!({"imageLayoutVersion": "1.0.0"});
    for (name, document) in [("index.json", index), ("oci-layout", marker)] {
        fs::write(folder.join(name), document.to_string()).expect("write a layout");
    }
}

/// A file of an image.
#[derive(Clone, Copy, Debug)]
pub enum Entry<'a> {
    /// A folder with these permissions.
    Folder(&'a str, u32),
    /// A regular file with these permissions.
    File(&'a str, u32, &'a [u8]),
    /// A symbolic link, and where it leads.
    Link(&'a str, &'a str),
}

/// Commands that [`busybox`] has in `/bin`.
const COMMANDS: &[&str] = &[
    "sh", "ash", "cat", "chmod", "cp", "cut", "dd", "echo", "env", "false", "find", "grep", "head",
    "id", "kill", "ls", "mkdir", "mount", "pidof", "ps", "pwd", "readlink", "rm", "sed", "sleep",
    "sort", "stat", "stty", "test", "touch", "tr", "true", "tty", "wc", "whoami",
];

/// Writes an OCI layout into the new folder `folder`: an image of static busybox, with more files, and with
/// `config` as the part of its configuration that says how it is run.
pub fn busybox(folder: &Path, config: Value, files: &[Entry<'_>]) {
    fs::create_dir_all(folder.join("blobs/sha256")).expect("make the folders of a layout");
    let program = fs::read("/bin/busybox").expect("read static busybox");
    let mut tar = tar::Builder::new(Vec::new());
    let mut add = |entry: &Entry<'_>| {
        let mut header = tar::Header::new_gnu();
        header.set_size(0);
        header.set_mode(0o777);
        match *entry {
            Entry::Folder(path, mode) => {
                header.set_entry_type(tar::EntryType::Directory);
                header.set_mode(mode);
                tar.append_data(&mut header, path, &b""[..])
            }
            Entry::File(path, mode, content) => {
                header.set_mode(mode);
                header.set_size(content.len() as u64);
                tar.append_data(&mut header, path, content)
            }
            Entry::Link(path, target) => {
                header.set_entry_type(tar::EntryType::Symlink);
                tar.append_link(&mut header, path, target)
            }
        }
        .expect("add a file to a tar in memory");
    };
    add(&Entry::Folder("bin", 0o755));
    add(&Entry::File("bin/busybox", 0o4755, &program));
    for command in COMMANDS {
        add(&Entry::Link(&format!("bin/{command}"), "busybox"));
    }
    files.iter().for_each(add);
    let layer = tar.into_inner().expect("make a tar in memory");
    let layer = blob(folder, LAYER, &layer);
    let config = json!({"architecture": architecture(), "os": "linux", "config": config,
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]}});
    finish(folder, &config, &[layer]);
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn layer(number: usize, content: &[u8]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    header.set_cksum();
    tar.append_data(&mut header, format!("etc/{number}"), content)
        .and_then(|()| tar.into_inner())
        .expect("make a tar in memory")
}

/// Writes a blob and gives its descriptor.
fn blob(folder: &Path, media_type: &str, content: &[u8]) -> Value {
    let hex: String = Sha256::digest(content)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    fs::write(folder.join("blobs/sha256").join(&hex), content).expect("write a blob");
    json!({"mediaType": media_type, "digest": format!("sha256:{hex}"), "size": content.len()})
}
