//! Images of containerd's store that a docker VM hands out blob by blob.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::super::client::Inspected;
use super::super::{Answer, DaemonSource, LayerService};
use super::Memory;
use super::archive::{Sample, layer, pack};
use super::fake::Fake;
use super::faults::{is_get, send_archive};
use super::guest_layers::content;
use pcocc_image::Result;
use pcocc_image::oci::{Image, Layer};
use pcocc_image::testing::memory::compress;
use pcocc_image::transfer::{Context, copy};
use pcocc_layers::{ChainId, Compression, Digest};

/// A VM with one image in containerd's store.
#[derive(Debug)]
struct Vm {
    blobs: HashMap<Digest, Vec<u8>>,
    asked: Mutex<Vec<Digest>>,
}

impl LayerService for Vm {
    fn config(&self, id: Digest) -> Answer<'_> {
        panic!("containerd's store has no image {id}")
    }

    fn layer(&self, chain_id: ChainId) -> Answer<'_> {
        panic!("containerd's store has no layer {chain_id}")
    }

    fn blob(&self, digest: Digest) -> Answer<'_> {
        self.asked.lock().unwrap().push(digest);
        let blob = self.blobs.get(&digest).cloned();
        Box::pin(async {
            blob.map(content)
                .ok_or_else(|| io::ErrorKind::NotFound.into())
        })
    }
}

/// An image with gzip layers, and what docker saves of it.
struct Stored {
    image: Image,
    blobs: HashMap<Digest, Vec<u8>>,
    sample: Sample,
}

fn stored() -> Stored {
    let sample = Sample::of(["a", "b"].map(layer).to_vec());
    let mut blobs = HashMap::new();
    let layers = sample.layers.iter().zip(&sample.inspected.diff_ids);
    let layers = layers.map(|(plain, diff_id)| {
        let blob = compress(plain, Compression::Gzip);
        let layer = Layer {
            digest: Digest::of(&blob),
            size: blob.len() as u64,
            compression: Compression::Gzip,
            diff_id: *diff_id,
        };
        blobs.insert(layer.digest, blob);
        layer
    });
    let layers = layers.collect();
    let image = Image::assemble(sample.config.clone(), layers).unwrap();
    for document in [image.manifest(), image.config()] {
        blobs.insert(Digest::of(document), document.to_vec());
    }
    Stored {
        image,
        blobs,
        sample,
    }
}

/// Imports the image that docker knows as `id`; returns how often docker saved it as well, and the blobs that were asked for.
fn import(stored: &Stored, id: Digest) -> (Result<Image>, usize, Vec<Digest>) {
    let saves = Arc::new(AtomicUsize::new(0));
    let (archive, counted) = (pack(&stored.sample.new_layout()), Arc::clone(&saves));
    let inspected = Inspected {
        id,
        ..stored.sample.inspected.clone()
    };
    let fake = Fake::start(inspected, move |path, exchange| {
        if path == "/info" {
            exchange.answer(
                "200 OK",
                r#"{"Driver":"overlayfs","DriverStatus":[["driver-type","io.containerd.snapshotter.v1"]]}"#,
            );
        } else if is_get(path) {
            counted.fetch_add(1, Ordering::SeqCst);
            send_archive(exchange, &archive);
            exchange.raw(b"0\r\n\r\n");
        }
        path == "/info" || is_get(path)
    });
    let vm = Arc::new(Vm {
        blobs: stored.blobs.clone(),
        asked: Mutex::default(),
    });
    let daemon = fake
        .daemon()
        .with_layers(Arc::clone(&vm) as Arc<dyn LayerService>);
    let memory = Memory {
        reopens: true,
        ..Memory::default()
    };
    let image = copy(
        &DaemonSource::new(daemon, "bb"),
        &memory,
        &Context::silent(),
    );
    let asked = vm.asked.lock().unwrap().clone();
    (image, saves.load(Ordering::SeqCst), asked)
}

#[test]
fn an_image_comes_as_it_is_stored() {
    let stored = stored();
    let (image, saves, asked) = import(&stored, stored.image.manifest_digest());
    assert_eq!(image.unwrap(), stored.image);
    assert_eq!(saves, 0);
    assert_eq!(asked.len(), 4, "{asked:?}");
}

#[test]
fn an_index_leads_to_the_image_of_this_machine() {
    let mut stored = stored();
    let index = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [{
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": stored.image.manifest_digest(),
            "size": stored.image.manifest().len(),
            "platform": {"os": "linux", "architecture": "amd64"},
        }],
    });
    let index = index.to_string().into_bytes();
    let id = Digest::of(&index);
    stored.blobs.insert(id, index);
    let (image, saves, _) = import(&stored, id);
    assert_eq!(image.unwrap(), stored.image);
    assert_eq!(saves, 0);
}

#[test]
fn what_is_wrong_is_found_out_and_docker_saves_the_image_once() {
    let good = stored();
    let image = &good.image;
    let damaged = [
        image.manifest_digest(),
        image.id(),
        image.layers()[0].digest,
        image.layers()[1].digest,
    ];
    for digest in damaged {
        for change in [
            |_: &[u8]| None,
            |blob: &[u8]| Some(blob[1..].to_vec()),
            |blob: &[u8]| Some(blob.iter().map(|byte| byte ^ 1).collect()),
            |blob: &[u8]| Some([blob, b" "].concat()),
            |_: &[u8]| Some(vec![b' '; 9 << 20]),
        ] {
            let mut bad = stored();
            match change(&bad.blobs[&digest]) {
                Some(blob) => bad.blobs.insert(digest, blob),
                None => bad.blobs.remove(&digest),
            };
            let (taken, saves, _) = import(&bad, image.manifest_digest());
            assert_eq!(taken.unwrap().config(), image.config());
            assert_eq!(saves, 1);
        }
    }
}
