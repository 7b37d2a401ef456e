//! A registry that can be told to wait.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread;

use pcocc_layers::Digest;

/// A registry with one image, whose layer stops half-way until [`Registry::go_on`].
pub(crate) struct Registry {
    pub(crate) address: String,
    go_on: Sender<()>,
}

impl Registry {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (go_on, waiting) = mpsc::channel();
        let waiting = Arc::new(Mutex::new(waiting));
        let blobs = Arc::new(blobs());
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (blobs, waiting) = (Arc::clone(&blobs), Arc::clone(&waiting));
                thread::spawn(move || answer(stream.unwrap(), &blobs, &waiting));
            }
        });
        Self { address, go_on }
    }

    /// Lets the rest of the layer go.
    pub(crate) fn go_on(&self) {
        self.go_on.send(()).unwrap();
    }
}

/// Layer, config and manifest, each with its media type.
fn blobs() -> [(Vec<u8>, &'static str); 3] {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("file"), vec![7; 4 << 20]).unwrap();
    let mut tar = Command::new("tar");
    tar.arg("-C").arg(folder.path()).args(["-c", "file"]);
    let layer = tar.output().unwrap().stdout;
    let digest = Digest::of(&layer).to_string();
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": [digest]},
    })
    .to_string();
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": Digest::of(config.as_bytes()).to_string(), "size": config.len(),
        },
        "layers": [{
            "mediaType": "application/vnd.oci.image.layer.v1.tar",
            "digest": digest, "size": layer.len(),
        }],
    })
    .to_string();
    [
        (layer, "application/octet-stream"),
        (config.into(), "application/octet-stream"),
        (
            manifest.into(),
            "application/vnd.oci.image.manifest.v1+json",
        ),
    ]
}

fn answer(stream: TcpStream, blobs: &[(Vec<u8>, &str); 3], waiting: &Mutex<Receiver<()>>) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    let mut stream = stream;
    while let Some(Ok(request)) = lines.next() {
        while lines
            .next()
            .is_some_and(|line| !line.unwrap_or_default().is_empty())
        {}
        let path = request.split(' ').nth(1).unwrap();
        let found = match path {
            "/v2/" => Some((b"{}".to_vec(), "application/json")),
            "/v2/slow/manifests/1" => Some(blobs[2].clone()),
            _ => blobs
                .iter()
                .find(|(blob, _)| path.ends_with(&Digest::of(blob).to_string()))
                .cloned(),
        };
        let (body, kind) = found.unwrap_or_else(|| panic!("{request}"));
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\
             docker-content-digest: {}\r\n\r\n",
            body.len(),
            Digest::of(&body)
        );
        // A client that was interrupted is gone: that is what some of these tests are about.
        if stream.write_all(head.as_bytes()).is_err() || request.starts_with("HEAD") {
            continue;
        }
        let (first, second) = body.split_at(body.len() / 2);
        let _ = stream.write_all(first);
        if body.len() > 100_000 {
            let _ = waiting.lock().unwrap().recv();
        }
        let _ = stream.write_all(second);
    }
}
