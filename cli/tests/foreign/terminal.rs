//! No text of others reaches the terminal as it is: escape sequences and marks of direction are shown, not done.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;

use pcocc_layers::Digest;
use serde_json::{Value, json};

use crate::daemon;
use crate::sandbox::{Sandbox, Shown};

/// Sets a title, clears the screen by a C1 control, turns the text around.
const EVIL: &str = "\u{1b}]0;PWNED\u{7}\u{9b}2J\u{202e}";

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// Checks that the text of others is there, and can be read.
#[track_caller]
fn is_clean(what: &str, shown: &Shown) {
    let text = format!("{}{}", shown.out, shown.err);
    let hidden = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
    assert!(!text.contains(hidden), "{what}: {text:?}");
    assert!(text.contains("PWNED"), "{what} is not told: {text:?}");
}

/// A tar of one file.
fn tar(name: &str) -> Vec<u8> {
    let mut header = [0; 512];
    header[..name.len()].copy_from_slice(name.as_bytes());
    header[100..108].copy_from_slice(b"0000644\0");
    header[108..116].copy_from_slice(b"0000000\0");
    header[116..124].copy_from_slice(b"0000000\0");
    header[124..136].copy_from_slice(b"00000000001\0");
    header[136..148].copy_from_slice(b"00000000000\0");
    header[148..156].copy_from_slice(b"        ");
    header[156] = b'0';
    header[257..265].copy_from_slice(b"ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut tar = header.to_vec();
    tar.push(b'x');
    tar.resize(512 * 4, 0);
    tar
}

fn config(layer: &[u8], more: Value) -> Value {
    json!({
        "architecture": "amd64", "os": "linux", "config": more,
        "rootfs": {"type": "layers", "diff_ids": [Digest::of(layer)]},
    })
}

fn manifest(config: &[u8], layer: &[u8]) -> Value {
    json!({
        "schemaVersion": 2, "mediaType": MANIFEST,
        "config": {"mediaType": CONFIG, "digest": Digest::of(config), "size": config.len()},
        "layers": [{"mediaType": LAYER, "digest": Digest::of(layer), "size": layer.len()}],
    })
}

/// Writes an OCI layout; `index` may be another than that of the manifest.
fn layout(folder: &Path, blobs: &[&[u8]], manifest: &Value, index: Option<Value>) {
    let manifest = manifest.to_string().into_bytes();
    let store = folder.join("blobs/sha256");
    std::fs::create_dir_all(&store).unwrap();
    for blob in blobs.iter().copied().chain([manifest.as_slice()]) {
        std::fs::write(store.join(Digest::of(blob).hex()), blob).unwrap();
    }
    let index = index.unwrap_or_else(|| {
        json!({"schemaVersion": 2, "manifests": [
            {"mediaType": MANIFEST, "digest": Digest::of(&manifest), "size": manifest.len()}]})
    });
    std::fs::write(folder.join("index.json"), index.to_string()).unwrap();
    std::fs::write(
        folder.join("oci-layout"),
        r#"{"imageLayoutVersion":"1.0.0"}"#,
    )
    .unwrap();
}

#[test]
fn of_an_image() {
    let sandbox = Sandbox::new();
    let at = |name: &str| sandbox.home().join(name);
    let import = |name: &str| {
        let source = format!("oci:{}", at(name).display());
        sandbox.run(&["-q", "image", "import", &source, name])
    };
    let layer = tar("bin/p");
    let good = config(&layer, json!({})).to_string().into_bytes();
    let entry = |arch: &str| {
        json!({"mediaType": MANIFEST, "digest": Digest::of(b"x"), "size": 1,
               "platform": {"os": "linux", "architecture": arch}})
    };
    let index = json!({"schemaVersion": 2, "manifests": [entry(&format!("a{EVIL}")), entry("b")]});
    layout(
        &at("platform"),
        &[&good, &layer],
        &manifest(&good, &layer),
        Some(index),
    );
    is_clean("platform", &import("platform"));

    let mut typed = manifest(&good, &layer);
    typed["config"]["mediaType"] = json!(format!("application/x{EVIL}"));
    layout(&at("type"), &[&good, &layer], &typed, None);
    is_clean("type of the config", &import("type"));

    let climbing = tar(&format!("x{EVIL}/../../etc/passwd"));
    let config_of = config(&climbing, json!({})).to_string().into_bytes();
    layout(
        &at("entry"),
        &[&config_of, &climbing],
        &manifest(&config_of, &climbing),
        None,
    );
    is_clean("entry of a layer", &import("entry"));

    let words = json!({"Cmd": [format!("p{EVIL}")], "Env": [format!("X=/x{EVIL}")],
                       "User": format!("u{EVIL}"), "WorkingDir": format!("/w{EVIL}")});
    let config_of = config(&layer, words).to_string().into_bytes();
    layout(
        &at("words"),
        &[&config_of, &layer],
        &manifest(&config_of, &layer),
        None,
    );
    assert_eq!(import("words").code, Some(0));
    is_clean("config", &sandbox.run(&["image", "show", "words"]));
    let json = sandbox.run(&["image", "show", "--format", "json", "words"]);
    is_clean("config as JSON", &json);
    let value: Value = serde_json::from_str(&json.out).unwrap();
    let evil = json!(EVIL).to_string();
    assert!(value.to_string().contains(evil.trim_matches('"')));
}

#[test]
fn of_a_shared_repository() {
    let sandbox = Sandbox::new();
    sandbox.write(
        ".pcocc/repos.yaml",
        "repos: [{name: r, path: '%{homedir}/r'}]\n",
    );
    sandbox.write("r/.config", "version: 2\n");
    for folder in ["data", ".tmp"] {
        std::fs::create_dir_all(sandbox.home().join("r").join(folder)).unwrap();
    }
    let named = format!("r/meta/a{EVIL}@0");
    sandbox.write(&named, "{}");
    for args in [&["image", "list"][..], &["image", "repo", "verify", "r"]] {
        is_clean("name of a file", &sandbox.run(args));
    }
    std::fs::remove_file(sandbox.home().join(named)).unwrap();
    let meta = |changes: Value| {
        let mut meta = json!({"name": "q", "revision": 0, "kind": "ctr", "owner": "o",
                              "timestamp": 1.5, "data_blobs": [], "custom_meta": {}});
        for (key, value) in changes.as_object().unwrap() {
            meta[key] = value.clone();
        }
        sandbox.write("r/meta/q@0", meta.to_string());
    };
    let index = |entry: Value| json!({"oci_index": {"schemaVersion": 2, "manifests": [entry]}});
    let digest = Digest::of(b"x").to_string();
    for (what, changes) in [
        ("kind", json!({"kind": format!("k{EVIL}")})),
        ("blob", json!({"data_blobs": [format!("sha256:{EVIL}")]})),
        (
            "media type",
            json!({"custom_meta": index(json!({"mediaType": format!("{MANIFEST}{EVIL}"),
                                               "digest": digest, "size": 1}))}),
        ),
        (
            "digest",
            json!({"custom_meta": index(json!({"mediaType": MANIFEST,
                                               "digest": format!("sha256:{EVIL}"), "size": 1}))}),
        ),
    ] {
        meta(changes);
        is_clean(what, &sandbox.run(&["-q", "image", "show", "r:q"]));
        is_clean(
            what,
            &sandbox.run(&["-q", "image", "export", "r:q", "oci:out"]),
        );
    }
    let yaml = r"\e]0;PWNED\a\u202e";
    for text in [
        format!("version: 2\n\"a{yaml}\": 1\n"),
        format!("version: \"2{yaml}\"\n"),
        format!("version: !<!{EVIL}> 2\n"),
    ] {
        sandbox.write("r/.config", &text);
        let shown = sandbox.run(&["-q", "image", "show", "r:q"]);
        let hidden = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
        assert!(!shown.err.contains(hidden), "{text:?}: {:?}", shown.err);
    }
}

#[test]
fn of_a_daemon() {
    let sandbox = Sandbox::new();
    let socket = sandbox.home().join("d.sock");
    daemon::start(&socket, |path| {
        let words = json!({"message": format!("no{EVIL}\nhint: run it")}).to_string();
        let name = json!([{"Id": Digest::of(b"x"), "ParentId": "", "RepoTags": [], "RepoDigests": [],
                           "Created": 1, "Size": 1, "SharedSize": 0, "Containers": 0, "Labels": {}}]);
        Some(match path {
            "/images/json" => (200, name.to_string()),
            _ => (500, words),
        })
    });
    let mut command = sandbox.command(&["-q", "docker", "import", "x", "y"]);
    command.env("DOCKER_HOST", format!("unix://{}", socket.display()));
    let output = command.output().unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert!(err.contains("PWNED"), "{err:?}");
    let hidden = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
    assert!(!err.contains(hidden), "{err:?}");
    assert!(!err.contains("\nhint: run it"), "{err:?}");
}

#[test]
fn of_a_registry() {
    let sandbox = Sandbox::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    sandbox.write(
        ".pcocc/containers.yaml",
        format!("runtime: {{insecure_registries: ['{address}']}}\n"),
    );
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut head = [0; 4096];
            let _ = stream.read(&mut head);
            let words = json!({"errors": [{"code": format!("C{EVIL}"), "message": EVIL}]});
            let body = words.to_string();
            let answer = format!(
                "HTTP/1.1 500 X\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    let source = format!("docker://{address}/x:1");
    is_clean(
        "error of a registry",
        &sandbox.run(&["-q", "image", "import", &source, "x"]),
    );
}
