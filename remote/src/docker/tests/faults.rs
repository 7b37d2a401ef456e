//! Daemons that refuse, lie, hang or die.

use std::fs::Permissions;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::super::client::Daemon;
use super::super::endpoint::Endpoint;
use super::super::{DaemonSink, DaemonSource};
use super::Memory;
use super::archive::{Part, Sample, pack};
use super::fake::{Exchange, Fake};
use pcocc_image::oci::{Image, Layer};
use pcocc_image::testing::memory::compress;
use pcocc_image::transfer::{Context, Layout, copy};
use pcocc_image::{Error, Result};
use pcocc_layers::Compression;
use pcocc_layers::Digest;

fn save(handler: impl Fn(&str, &mut Exchange) -> bool + Send + Sync + 'static) -> Result<Image> {
    let fake = Fake::start(Sample::new().inspected, handler);
    let source = DaemonSource::new(fake.daemon(), "bb");
    copy(&source, &Memory::default(), &Context::silent())
}

pub(super) fn is_get(path: &str) -> bool {
    path.ends_with("/get")
}

pub(super) fn send_archive(exchange: &mut Exchange, archive: &[u8]) {
    exchange.raw(b"HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\nTransfer-Encoding: chunked\r\n\r\n");
    for chunk in archive.chunks(1000) {
        exchange.raw(format!("{:x}\r\n", chunk.len()).as_bytes());
        exchange.raw(chunk);
        exchange.raw(b"\r\n");
    }
}

#[test]
fn an_image_comes_through_the_fake_daemon() {
    let sample = Sample::new();
    let archive = pack(&sample.old());
    let image = save(move |path, exchange| {
        if is_get(path) {
            send_archive(exchange, &archive);
            exchange.raw(b"0\r\n\r\n");
        }
        is_get(path)
    });
    assert_eq!(image.unwrap().config(), sample.config);
}

#[test]
fn a_wrong_announcement_costs_a_second_try() {
    // Blobs whose names are exchanged: found out, and the second try tells what they are.
    let sample = Sample::new();
    let mut parts = sample.new_layout();
    if let [Part::File(a, _), Part::File(b, _), ..] = &mut parts[..] {
        std::mem::swap(a, b);
    }
    let archive = pack(&parts);
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let outcome = save(move |path, exchange| {
        if is_get(path) {
            counter.fetch_add(1, Ordering::Relaxed);
            send_archive(exchange, &archive);
            exchange.raw(b"0\r\n\r\n");
        }
        is_get(path)
    });
    assert!(outcome.unwrap_err().to_string().contains("other layers"));
    assert_eq!(asked.load(Ordering::Relaxed), 2);
}

#[test]
fn a_daemon_that_dies_while_it_saves_is_an_error() {
    let archive = pack(&Sample::new().old());
    for cut in (0..archive.len()).step_by(2500) {
        let start = archive[..cut].to_vec();
        let error = save(move |path, exchange| {
            if is_get(path) {
                send_archive(exchange, &start);
            }
            is_get(path)
        })
        .unwrap_err();
        assert!(matches!(error, Error::Unreachable { .. }), "{cut}: {error}");
    }
}

#[test]
fn what_the_daemon_says_reaches_the_user() {
    for (status, message, expected) in [
        (
            "500 Internal Server Error",
            "no space\\nleft",
            "no space left",
        ),
        ("409 Conflict", "", "no reason"),
    ] {
        let body = format!(r#"{{"message":"{message}"}}"#);
        let error = save(move |path, exchange| {
            if is_get(path) {
                exchange.answer(status, &body);
            }
            is_get(path)
        })
        .unwrap_err();
        assert!(matches!(error, Error::Daemon { .. }), "{error}");
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[test]
fn a_name_that_is_none_asks_the_daemon_nothing() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let fake = Fake::start(Sample::new().inspected, move |path, _| {
        if path != "/_ping" && path != "/info" {
            counter.fetch_add(1, Ordering::Relaxed);
        }
        false
    });
    for (name, words) in [
        ("", "is empty"),
        ("../containers/x", "registry name"),
        ("bb/json?x=", "docker reference"),
        ("a b", "docker reference"),
    ] {
        let source = DaemonSource::new(fake.daemon(), name);
        let sink = Memory::default();
        let error = copy(&source, &sink, &Context::silent()).unwrap_err();
        assert!(error.to_string().contains(words), "{name}: {error}");
    }
    assert_eq!(asked.load(Ordering::Relaxed), 0);
}

#[test]
fn a_hanging_save_is_cancelled_within_a_second() {
    let fake = Fake::start(Sample::new().inspected, |path, exchange| {
        if is_get(path) {
            send_archive(exchange, &pack(&Sample::new().old())[..2000]);
            exchange.wait_for_close();
        }
        is_get(path)
    });
    let context = Context::silent();
    let cancel = context.cancel.clone();
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(300));
        cancel.cancel();
    });
    let start = Instant::now();
    let source = DaemonSource::new(fake.daemon(), "bb");
    let error = copy(&source, &Memory::default(), &context).unwrap_err();
    assert!(matches!(error, Error::Cancelled), "{error}");
    assert!(start.elapsed() < Duration::from_millis(1300));
}

#[test]
fn a_daemon_that_vanishes_silently_is_noticed() {
    let fake = Fake::start(Sample::new().inspected, |path, exchange| {
        if is_get(path) {
            exchange.wait_for_close();
        }
        is_get(path)
    });
    let source = DaemonSource::new(fake.daemon(), "bb");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(300));
            fake.vanish();
        });
        let start = Instant::now();
        let error = copy(&source, &Memory::default(), &Context::silent()).unwrap_err();
        assert!(matches!(error, Error::Unreachable { .. }), "{error}");
        assert!(start.elapsed() < Duration::from_secs(5));
    });
}

/// An image whose plain layers are in memory.
struct Plain(Sample);

impl Layout for Plain {
    fn image(&self, _context: &Context) -> Result<Image> {
        let layers = self.0.layers.iter().map(|data| Layer {
            digest: Digest::of(data),
            size: data.len() as u64,
            compression: Compression::None,
            diff_id: pcocc_layers::DiffId(Digest::of(data)),
        });
        Image::assemble(self.0.config.clone(), layers.collect())
    }

    fn open_layer<'a>(&'a self, layer: &Layer) -> Result<Box<dyn Read + Send + 'a>> {
        let data = self.0.layers.iter().find(|l| Digest::of(l) == layer.digest);
        Ok(Box::new(&data.unwrap()[..]))
    }

    fn layer_file(&self, _layer: &Layer) -> Option<std::fs::File> {
        None
    }
}

/// An image whose layers are local gzip files of two members, as `cat a.gz b.gz` makes them: the
/// length at a file's end is that of its last member alone.
struct TwoMembers {
    sample: Sample,
    folder: tempfile::TempDir,
    layers: Vec<Layer>,
    /// How often the first layer was opened.
    opened: AtomicUsize,
}

impl TwoMembers {
    fn new(sample: Sample) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut layers = Vec::new();
        for plain in &sample.layers {
            let (first, second) = plain.split_at(plain.len() / 3);
            let blob = [first, second]
                .map(|half| compress(half, Compression::Gzip))
                .concat();
            let digest = Digest::of(&blob);
            std::fs::write(folder.path().join(digest.hex()), &blob).unwrap();
            layers.push(Layer {
                digest,
                size: blob.len() as u64,
                compression: Compression::Gzip,
                diff_id: pcocc_layers::DiffId(Digest::of(plain)),
            });
        }
        Self {
            sample,
            folder,
            layers,
            opened: AtomicUsize::new(0),
        }
    }
}

impl Layout for TwoMembers {
    fn image(&self, _context: &Context) -> Result<Image> {
        Image::assemble(self.sample.config.clone(), self.layers.clone())
    }

    fn open_layer<'a>(&'a self, layer: &Layer) -> Result<Box<dyn Read + Send + 'a>> {
        if *layer == self.layers[0] {
            self.opened.fetch_add(1, Ordering::SeqCst);
        }
        let path = self.folder.path().join(layer.digest.hex());
        Ok(Box::new(std::fs::File::open(path).unwrap()))
    }

    fn layer_file(&self, layer: &Layer) -> Option<std::fs::File> {
        std::fs::File::open(self.folder.path().join(layer.digest.hex())).ok()
    }
}

/// A daemon that has the image only once it was loaded, and handles the load its own way.
pub(super) fn load(
    context: &Context,
    handler: impl Fn(&mut Exchange) -> bool + Send + Sync + 'static,
) -> Result<Image> {
    load_sample(Sample::new(), context, handler)
}

fn load_sample(
    sample: Sample,
    context: &Context,
    handler: impl Fn(&mut Exchange) -> bool + Send + Sync + 'static,
) -> Result<Image> {
    let loads = AtomicUsize::new(0);
    let fake = Fake::start(sample.inspected.clone(), move |path, exchange| {
        if path.starts_with("/images/load") {
            loads.fetch_add(1, Ordering::SeqCst);
            return handler(exchange);
        }
        let unknown = path.ends_with("/json") && loads.load(Ordering::SeqCst) == 0;
        if unknown && path != "/images/json" {
            exchange.answer("404 Not Found", r#"{"message":"No such image"}"#);
        }
        unknown && path != "/images/json"
    });
    let sink = DaemonSink::new(fake.daemon(), "bb")?;
    copy(&Plain(sample), &sink, context)
}

#[test]
fn a_load_carries_the_whole_image_in_both_formats() {
    let body = Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = Arc::clone(&body);
    load(&Context::silent(), move |exchange| {
        *seen.lock().unwrap() = exchange.body().unwrap();
        exchange.answer("200 OK", "{\"stream\":\"Loaded image: bb:latest\\n\"}\n");
        true
    })
    .unwrap();
    let body = body.lock().unwrap();
    let mut archive = tar::Archive::new(&body[..]);
    let mut names = Vec::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut data = Vec::new();
        entry.read_to_end(&mut data).unwrap();
        let name = entry.path().unwrap().display().to_string();
        if let Some(hex) = name.strip_prefix("blobs/sha256/") {
            assert_eq!(Digest::of(&data).hex(), hex);
        }
        if name == "manifest.json" {
            let text = String::from_utf8(data).unwrap();
            assert!(text.contains(r#""RepoTags":["bb:latest"]"#), "{text}");
        }
        names.push(name);
    }
    // Two different layers, config, manifest, and the three files at the top.
    assert_eq!(names.len(), 7, "{names:?}");
    assert!(names.contains(&"index.json".to_owned()) && names.contains(&"oci-layout".to_owned()));
}

#[test]
fn an_error_inside_status_200_is_an_error() {
    for (answer, words) in [
        (
            r#"{"errorDetail":{"message":"no space left"},"error":"x"}"#,
            "no space left",
        ),
        (r#"{"stream":"Error unpacking image bb: broken"}"#, "broken"),
    ] {
        let error = load(&Context::silent(), move |exchange| {
            exchange.body().unwrap();
            let more = r#"{"stream":"Loaded image: bb"}"#;
            exchange.answer("200 OK", &format!("{answer}\n{more}\n"));
            true
        })
        .unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[test]
fn a_daemon_that_dies_while_it_loads_is_an_error() {
    let start = Instant::now();
    let error = load(&Context::silent(), |exchange| {
        let _ = exchange.chunk();
        true
    })
    .unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    assert!(start.elapsed() < Duration::from_secs(5));
}

/// A context that is cancelled after `milliseconds`.
fn cancelled_after(milliseconds: u64) -> Context {
    let context = Context::silent();
    let cancel = context.cancel.clone();
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(milliseconds));
        cancel.cancel();
    });
    context
}

#[test]
fn a_load_nobody_reads_is_cancelled_within_a_second() {
    // More than sockets and channels hold.
    let big = pack(&[Part::File("big".to_owned(), vec![1; 16 << 20])]);
    let sample = Sample::of(vec![big]);
    let start = Instant::now();
    let error = load_sample(sample, &cancelled_after(500), |_| {
        std::thread::sleep(Duration::from_secs(10));
        true
    })
    .unwrap_err();
    assert!(matches!(error, Error::Cancelled), "{error}");
    assert!(start.elapsed() < Duration::from_millis(2500));
}

#[test]
fn an_archive_the_daemon_has_in_full_counts_whatever_the_signal() {
    load(&cancelled_after(400), |exchange| {
        exchange.body().unwrap();
        std::thread::sleep(Duration::from_millis(800));
        exchange.answer("200 OK", "{\"stream\":\"Loaded image: bb:latest\\n\"}\n");
        true
    })
    .unwrap();
}

#[test]
fn an_endpoint_without_a_daemon_is_explained() {
    let folder = tempfile::tempdir().unwrap();
    let connect = |path: std::path::PathBuf| {
        Daemon::connect(Endpoint::Unix(path))
            .unwrap_err()
            .to_string()
    };
    let error = connect(folder.path().join("none.sock"));
    assert!(error.contains("no such socket"), "{error}");
    let stale = folder.path().join("stale.sock");
    drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
    let error = connect(stale);
    assert!(error.contains("connection refused"), "{error}");
    if !rustix::process::geteuid().is_root() {
        std::fs::set_permissions(folder.path(), Permissions::from_mode(0o0)).unwrap();
        let error = connect(folder.path().join("x.sock"));
        assert!(error.contains("group docker"), "{error}");
        std::fs::set_permissions(folder.path(), Permissions::from_mode(0o700)).unwrap();
    }
    for (answer, words) in [
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
            "not a docker daemon",
        ),
        ("SSH-2.0-OpenSSH_9.2p1\r\n", "does not speak HTTP"),
        ("", "broke the connection"),
    ] {
        let fake = Fake::start(Sample::new().inspected, move |_, exchange| {
            exchange.raw(answer.as_bytes());
            true
        });
        let error = Daemon::connect(fake.endpoint()).unwrap_err().to_string();
        assert!(error.contains(words), "{words}: {error}");
    }
}

#[test]
fn a_load_refused_for_the_layers_it_leaves_out_is_sent_in_full() {
    let sample = Sample::new();
    let base = Digest::of(b"base");
    let sizes = Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = Arc::clone(&sizes);
    let below = sample.inspected.diff_ids[..2].to_vec();
    let fake = Fake::start(sample.inspected, move |path, exchange| {
        let loads = seen.lock().unwrap().len();
        if path.starts_with("/images/load") {
            let body = exchange.body().unwrap();
            seen.lock().unwrap().push(body.len());
            exchange.answer(
                "200 OK",
                match loads {
                    0 => r#"{"errorDetail":{"message":"no such layer"},"error":"no such layer"}"#,
                    _ => r#"{"stream":"Loaded image: bb:latest"}"#,
                },
            );
            return true;
        }
        if path.starts_with("/images/json") {
            exchange.answer("200 OK", &list_of(base));
            return true;
        }
        if path.contains(&base.hex()) {
            let image =
                serde_json::json!({"Id": base, "RootFS": {"Type": "layers", "Layers": below}});
            exchange.answer("200 OK", &image.to_string());
            return true;
        }
        let unknown = path.ends_with("/json") && loads < 2;
        if unknown {
            exchange.answer("404 Not Found", r#"{"message":"No such image"}"#);
        }
        unknown
    });
    let sink = DaemonSink::new(fake.daemon(), "bb").unwrap();
    let image = copy(&Plain(Sample::new()), &sink, &Context::silent()).unwrap();
    assert_eq!(image.layers().len(), 3);
    let sizes = sizes.lock().unwrap();
    assert_eq!(sizes.len(), 2);
    // The second layer alone was left out: the first is needed again on top.
    assert!(sizes[0] < sizes[1], "{sizes:?}");
}

#[test]
fn an_image_removed_during_a_load_does_not_disturb_it() {
    let other = Digest::of(b"other");
    // What docker answers if the image goes before its inspection and during it.
    for (status, message) in [
        ("404 Not Found", "No such image: other"),
        ("500 Internal Server Error", "layer does not exist"),
    ] {
        let sample = Sample::new();
        let loads = AtomicUsize::new(0);
        let asked = Arc::new(AtomicBool::new(false));
        let inspected = Arc::clone(&asked);
        let fake = Fake::start(sample.inspected.clone(), move |path, exchange| {
            if path.starts_with("/images/load") {
                loads.fetch_add(1, Ordering::SeqCst);
            } else if path.starts_with("/images/json") {
                exchange.answer("200 OK", &list_of(other));
                return true;
            } else if path.contains(&other.hex()) {
                asked.store(true, Ordering::SeqCst);
                exchange.answer(status, &serde_json::json!({"message": message}).to_string());
                return true;
            } else if path.ends_with("/json") && loads.load(Ordering::SeqCst) == 0 {
                exchange.answer("404 Not Found", r#"{"message":"No such image"}"#);
                return true;
            }
            false
        });
        let sink = DaemonSink::new(fake.daemon(), "bb").unwrap();
        copy(&Plain(sample), &sink, &Context::silent()).unwrap();
        assert!(inspected.load(Ordering::SeqCst), "{message}");
    }
}

/// Docker's list of images, with one that has no name.
fn list_of(id: Digest) -> String {
    let list = serde_json::json!([{
        "Id": id, "ParentId": "", "RepoTags": null, "RepoDigests": null, "Created": 0,
        "Size": 1, "SharedSize": -1, "Labels": null, "Containers": -1,
    }]);
    list.to_string()
}

#[test]
fn a_wrong_guess_of_a_layers_length_costs_a_second_try() {
    let sample = Sample::new();
    let layers = sample.layers.clone();
    let source = TwoMembers::new(sample);
    let whole = Arc::new(std::sync::Mutex::new(Vec::new()));
    let bodies = Arc::clone(&whole);
    let fake = Fake::start(source.sample.inspected.clone(), move |path, exchange| {
        if path.starts_with("/images/load") {
            // What is broken off is no archive, and the daemon loads nothing.
            let Ok(body) = exchange.body() else {
                return true;
            };
            bodies.lock().unwrap().push(body);
            exchange.answer("200 OK", "{\"stream\":\"Loaded image: bb:latest\\n\"}\n");
            return true;
        }
        let unknown =
            path.ends_with("/json") && path != "/images/json" && bodies.lock().unwrap().is_empty();
        if unknown {
            exchange.answer("404 Not Found", r#"{"message":"No such image"}"#);
        }
        unknown
    });
    let sink = DaemonSink::new(fake.daemon(), "bb").unwrap();
    let loaded = copy(&source, &sink, &Context::silent()).unwrap();
    assert_eq!(loaded.layers(), source.layers);
    // Sent and found wrong, perhaps before the daemon heard of it; then counted; then sent.
    assert_eq!(source.opened.load(Ordering::SeqCst), 3);
    let bodies = whole.lock().unwrap();
    assert_eq!(bodies.len(), 1, "only one archive came whole");
    let mut sent = Vec::new();
    for entry in tar::Archive::new(&bodies[0][..]).entries().unwrap() {
        let mut data = Vec::new();
        entry.unwrap().read_to_end(&mut data).unwrap();
        sent.push(data);
    }
    for layer in layers {
        assert!(sent.contains(&layer), "a layer was not sent as it is");
    }
}
