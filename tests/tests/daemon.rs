//! The docker side of a transfer against a real daemon, below the command line: what goes through the
//! save and load requests, and what does not have to.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pcocc_core::progress::{Event, Progress, Reporter};
use pcocc_image::oci::{Image, Layer};
use pcocc_image::transfer::{Context, Layout, Offer, Receiver, Sink, copy};
use pcocc_image::{Error, Result};
use pcocc_layers::Compression;
use pcocc_layers::{DiffId, Digest};
use pcocc_remote::docker::{Daemon, DaemonSink, DaemonSource, Endpoint, ImageStore};
use pcocc_tests::{Docker, Dockerd, Pcocc};

/// A folder of gzip layers that remembers what it was offered.
#[derive(Default)]
struct Folder {
    dir: Option<tempfile::TempDir>,
    layers: Mutex<HashMap<DiffId, Layer>>,
    offers: Mutex<Vec<Option<DiffId>>>,
    image: Mutex<Option<Image>>,
    recalls: bool,
}

impl Folder {
    fn new() -> Self {
        Self {
            dir: Some(pcocc_tests::scratch()),
            ..Self::default()
        }
    }

    fn blob(&self, digest: Digest) -> PathBuf {
        let dir = self.dir.as_ref().map(tempfile::TempDir::path);
        dir.unwrap_or(Path::new("/nonexistent")).join(digest.hex())
    }

    fn stored(&self) -> Image {
        self.image.lock().unwrap().clone().expect("an image came")
    }
}

impl Sink for Folder {
    fn open(&self, _context: &Context) -> Result<Box<dyn Receiver + '_>> {
        Ok(Box::new(Receiving(self)))
    }
}

struct Receiving<'a>(&'a Folder);

impl Receiver for Receiving<'_> {
    fn recall(&mut self, id: Digest) -> Result<Option<Image>> {
        let image = self.0.image.lock().unwrap().clone();
        Ok(image.filter(|image| self.0.recalls && image.id() == id))
    }

    fn has_layer(&mut self, diff_id: DiffId) -> Result<bool> {
        Ok(self.0.layers.lock().unwrap().contains_key(&diff_id))
    }

    fn layer(&mut self, offer: &Offer<'_>, _context: &Context) -> Result<Layer> {
        self.0.offers.lock().unwrap().push(offer.diff_id);
        let mut content = Vec::new();
        (offer.open)()?
            .read_to_end(&mut content)
            .map_err(Error::io("read", "offer"))?;
        if offer.compression != Compression::None {
            let digest = Digest::of(&content);
            assert_eq!(offer.blob, Some((digest, content.len() as u64)));
            let mut plain = Vec::new();
            flate2::read::MultiGzDecoder::new(&content[..])
                .read_to_end(&mut plain)
                .unwrap();
            std::fs::write(self.0.blob(digest), &content).unwrap();
            return Ok(Layer {
                digest,
                size: content.len() as u64,
                compression: offer.compression,
                diff_id: DiffId(Digest::of(&plain)),
            });
        }
        let diff_id = DiffId(Digest::of(&content));
        if let Some(announced) = offer.diff_id {
            assert_eq!(announced, diff_id, "announced what it is not");
        }
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&content).unwrap();
        let blob = gzip.finish().unwrap();
        let layer = Layer {
            digest: Digest::of(&blob),
            size: blob.len() as u64,
            compression: Compression::Gzip,
            diff_id,
        };
        std::fs::write(self.0.blob(layer.digest), &blob).unwrap();
        self.0.layers.lock().unwrap().insert(diff_id, layer.clone());
        Ok(layer)
    }

    fn commit(self: Box<Self>, image: &Image, _context: &Context) -> Result<()> {
        *self.0.image.lock().unwrap() = Some(image.clone());
        Ok(())
    }
}

impl Layout for Folder {
    fn image(&self, _context: &Context) -> Result<Image> {
        Ok(self.stored())
    }

    fn open_layer<'a>(&'a self, layer: &Layer) -> Result<Box<dyn Read + Send + 'a>> {
        Ok(Box::new(File::open(self.blob(layer.digest)).unwrap()))
    }

    fn layer_file(&self, layer: &Layer) -> Option<std::fs::File> {
        std::fs::File::open(self.blob(layer.digest)).ok()
    }
}

#[derive(Default)]
struct Events(Mutex<Vec<Event>>);

impl Progress for Events {
    fn event(&self, event: Event) {
        self.0.lock().unwrap().push(event);
    }
}

/// Takes an image out of the daemon into a new folder.
fn take(daemon: &Daemon, name: &str) -> (Folder, Image) {
    let folder = Folder::new();
    let source = DaemonSource::new(daemon.clone(), name);
    let image = copy(&source, &folder, &Context::silent()).unwrap();
    (folder, image)
}

/// Puts the folder's image into the daemon; returns how many layers moved.
fn give(folder: &Folder, daemon: &Daemon, name: &str) -> usize {
    let events = Arc::new(Events::default());
    let context = Context {
        progress: Reporter::new(Arc::clone(&events) as Arc<dyn Progress>),
        ..Context::silent()
    };
    let sink = DaemonSink::new(daemon.clone(), name).unwrap();
    copy(folder, &sink, &context).unwrap();
    let events = events.0.lock().unwrap();
    events
        .iter()
        .filter(|event| matches!(event, Event::BlobFinished { .. }))
        .count()
}

/// The ID a daemon of this kind gives to an image that comes from outside.
///
/// An image made in containerd's store has docker's media types in its manifest, which a repository
/// does not keep: its ID changes with the first round trip, its config never.
fn id_in(daemon: &Daemon, image: &Image) -> Digest {
    match daemon.info().unwrap().image_store {
        ImageStore::GraphDriver => image.id(),
        ImageStore::Containerd => image.manifest_digest(),
    }
}

/// Containerd's store gets every layer every time.
fn is_containerd(daemon: &Daemon) -> bool {
    daemon.info().unwrap().image_store == ImageStore::Containerd
}

fn connect(docker: &Docker) -> Daemon {
    Daemon::connect(Endpoint::parse(Some(docker.host()), None, None).unwrap()).unwrap()
}

#[test]
fn docker_image_keeps_its_id_there_and_back() {
    let docker = Docker::shared();
    let daemon = connect(&docker);
    // No layer of this image is in any other test's.
    let scratch = pcocc_tests::scratch();
    let unique = scratch.path().join("unique");
    std::fs::write(&unique, docker.name("unique")).unwrap();
    let name = docker.build(
        "bb",
        "FROM scratch\nCOPY unique /unique\nCOPY busybox /bin/busybox\n\
         RUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\n\
         RUN echo two >/two\nRUN echo more >>/two\nENV PATH=/bin GREETING=\"hello world\"\n",
        &[("busybox", Path::new("/bin/busybox")), ("unique", &unique)],
    );
    let id: Digest = docker.image_id(&name).unwrap().parse().unwrap();
    let (folder, image) = take(&daemon, &name);
    assert!(is_containerd(&daemon) || image.id() == id);
    let id = id_in(&daemon, &image);
    assert_eq!(image.diff_ids(), daemon.inspect(&name).unwrap().diff_ids);
    // Every layer's diff ID is known before the layer comes.
    let offers = folder.offers.lock().unwrap().clone();
    assert!(
        is_containerd(&daemon) || offers.iter().all(Option::is_some),
        "{offers:?}"
    );

    // The daemon has the image: only the name is set.
    let other = docker.name("other:v1");
    let moved = give(&folder, &daemon, &other);
    assert_eq!(daemon.inspect(&other).unwrap().id, id);
    assert!(is_containerd(&daemon) || moved == 0);

    // The daemon has nothing of it: everything moves.
    docker.run(&["rmi", "-f", &other, &name]);
    let moved = give(&folder, &daemon, &name);
    assert_eq!(daemon.inspect(&name).unwrap().id, id);
    assert_eq!(moved, image.layers().len());
    let script = "echo $GREETING; cat /two";
    let shown = docker.run(&["run", "--rm", "--network=none", &name, "sh", "-c", script]);
    assert_eq!(shown, "hello world\ntwo\nmore");
}

#[test]
fn docker_layers_that_are_there_are_left_out() {
    let docker = Docker::shared();
    let daemon = connect(&docker);
    let base = docker.busybox_image("base");
    let top = docker.layer_on(&base, "top", 2);
    let (folder, image) = take(&daemon, &top);
    docker.run(&["rmi", &top]);
    let moved = give(&folder, &daemon, &top);
    assert_eq!(daemon.inspect(&top).unwrap().id, id_in(&daemon, &image));
    assert!(is_containerd(&daemon) || moved == 1);
}

#[test]
fn docker_equal_layers_are_links_in_the_archive() {
    let docker = Docker::shared();
    let daemon = connect(&docker);
    let busybox = Path::new("/bin/busybox");
    // A layer whose files were there before with the same times comes out the same.
    let name = docker.build(
        "twice",
        "FROM scratch\nCOPY busybox /a\nCOPY busybox /b\nCOPY busybox /a\nCOPY busybox /b\n",
        &[("busybox", busybox)],
    );
    let inspected = daemon.inspect(&name).unwrap();
    let (folder, image) = take(&daemon, &name);
    docker.run(&["rmi", &name]);
    give(&folder, &daemon, &name);
    let loaded = daemon.inspect(&name).unwrap();
    assert_eq!(loaded.id, id_in(&daemon, &image));
    assert_eq!(loaded.diff_ids, inspected.diff_ids);
}

#[test]
fn docker_store_that_recalls_the_image_is_sent_nothing() {
    let docker = Docker::shared();
    let daemon = connect(&docker);
    let name = docker.busybox_image("known");
    let mut folder = Folder::new();
    if is_containerd(&daemon) {
        // Its IDs say nothing to a store that knows images by their configs.
        return;
    }
    let source = DaemonSource::new(daemon, &name);
    copy(&source, &folder, &Context::silent()).unwrap();
    folder.recalls = true;
    folder.offers.lock().unwrap().clear();
    copy(&source, &folder, &Context::silent()).unwrap();
    assert!(folder.offers.lock().unwrap().is_empty());
}

#[test]
fn docker_list_and_version_follow_the_daemon() {
    let docker = Docker::shared();
    let daemon = connect(&docker);
    let name = docker.busybox_image("listed");
    let second = docker.name("second:v2");
    let has = |name: &str| daemon.list().unwrap().iter().any(|e| e.name == name);
    assert!(has(&format!("{name}:latest")) && !has(&second));
    let before = daemon.version().unwrap();
    docker.run(&["tag", &name, &second]);
    let deadline = Instant::now() + Duration::from_secs(3);
    while daemon.version().unwrap() == before {
        assert!(Instant::now() < deadline, "the version stands still");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(has(&second));
    daemon.remove(&second).unwrap();
    assert!(!has(&second));
    let error = daemon.inspect(&second).unwrap_err();
    assert!(matches!(error, Error::NotFound(_)), "{error}");
}

#[test]
fn docker_corrupt_layer_leaves_the_name_as_it_was() {
    let docker = Docker::shared();
    let daemon = connect(&docker);
    let name = docker.busybox_image("victim");
    let top = docker.layer_on(&name, "source", 1);
    let before = daemon.inspect(&name).unwrap();
    let (folder, image) = take(&daemon, &top);
    docker.run(&["rmi", &top]);
    let last = folder.blob(image.layers().last().unwrap().digest);
    let mut bytes = std::fs::read(&last).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&last, bytes).unwrap();
    let sink = DaemonSink::new(daemon.clone(), &name).unwrap();
    let error = copy(&folder, &sink, &Context::silent()).unwrap_err();
    assert!(
        matches!(error, Error::Corrupt { .. } | Error::Invalid { .. }),
        "{error}"
    );
    assert_eq!(daemon.inspect(&name).unwrap(), before);
}

#[test]
fn docker_daemon_that_dies_is_noticed_as_root() {
    let daemon_process = Arc::new(Dockerd::start());
    let docker = Docker::of(Arc::clone(&daemon_process));
    let daemon = connect(&docker);
    daemon.version().unwrap();
    daemon_process.kill();
    let start = Instant::now();
    let error = daemon.list().unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    assert!(start.elapsed() < Duration::from_secs(5));
}

/// Runs openssl in `folder`.
fn openssl(folder: &Path, arguments: &str) {
    let mut command = std::process::Command::new("openssl");
    command.args(arguments.split(' ')).current_dir(folder);
    pcocc_tests::run(&mut command).ok();
}

/// Makes an authority with a server's certificate in `folder` and a client's in `folder/client`.
fn certificates(folder: &Path) {
    let client = folder.join("client");
    std::fs::create_dir_all(&client).unwrap();
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    openssl(
        folder,
        &format!("req -x509 {key} -keyout ca.key -out ca.pem -days 2 -subj /CN=ca"),
    );
    std::fs::write(
        folder.join("server.ext"),
        "subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth\n",
    )
    .unwrap();
    std::fs::write(folder.join("client.ext"), "extendedKeyUsage=clientAuth\n").unwrap();
    for (name, out) in [("server", "server"), ("client", "client/cert")] {
        let private = if name == "client" {
            "client/key.pem"
        } else {
            "server.key"
        };
        openssl(
            folder,
            &format!("req {key} -keyout {private} -out {name}.csr -subj /CN={name}"),
        );
        openssl(
            folder,
            &format!(
                "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 \
             -extfile {name}.ext -out {out}.pem"
            ),
        );
    }
    std::fs::copy(folder.join("ca.pem"), client.join("ca.pem")).unwrap();
}

#[test]
fn docker_over_tls_trusts_its_own_authority_only_as_root() {
    let ours = pcocc_tests::scratch();
    let theirs = pcocc_tests::scratch();
    certificates(ours.path());
    certificates(theirs.path());
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let file = |name: &str| ours.path().join(name).display().to_string();
    let process = Arc::new(Dockerd::start_with(&[
        &format!("-H=tcp://127.0.0.1:{port}"),
        "--tlsverify",
        &format!("--tlscacert={}", file("ca.pem")),
        &format!("--tlscert={}", file("server.pem")),
        &format!("--tlskey={}", file("server.key")),
    ]));
    let docker = Docker::of(process);
    let host = format!("tcp://127.0.0.1:{port}");
    let connect = |tls: &str, folder: &Path| {
        Daemon::connect(Endpoint::parse(Some(&host), Some(tls), Some(folder)).unwrap())
    };
    let daemon = connect("1", &ours.path().join("client")).unwrap();
    let name = docker.busybox_image("tls");
    let (folder, _) = take(&daemon, &name);
    let id = daemon.inspect(&name).unwrap().id;
    docker.run(&["rmi", "-f", &name]);
    give(&folder, &daemon, &name);
    assert_eq!(daemon.inspect(&name).unwrap().id, id);

    let error = connect("1", &theirs.path().join("client"))
        .unwrap_err()
        .to_string();
    assert!(error.contains("cannot be trusted"), "{error}");
    let stranger = theirs.path().join("client");
    std::fs::copy(ours.path().join("ca.pem"), stranger.join("ca.pem")).unwrap();
    let error = connect("1", &stranger).unwrap_err().to_string();
    assert!(error.contains("refused our client certificate"), "{error}");
    let error = connect("", ours.path()).unwrap_err().to_string();
    assert!(error.contains("DOCKER_TLS_VERIFY"), "{error}");
}

#[test]
fn docker_daemons_behind_ssh_and_in_contexts_are_reached() {
    use std::os::unix::fs::PermissionsExt as _;
    let docker = Docker::shared();
    docker.busybox_image("behind");
    let image = docker.name("behind");
    let pcocc = Pcocc::new().with(&docker);
    let home = pcocc.home();
    // ssh to another machine is not to be had here; docker's own end of the connection is real.
    let programs = home.join("bin");
    std::fs::create_dir(&programs).unwrap();
    let ssh = programs.join("ssh");
    let script = format!(
        "#!/bin/sh\nwhile [ \"$1\" != -- ]; do shift; done\nshift 2\nDOCKER_HOST={} exec \"$@\"\n",
        docker.host()
    );
    std::fs::write(&ssh, script).unwrap();
    std::fs::set_permissions(&ssh, std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    let run = |context: Option<&str>, dest: &str| {
        let mut command = pcocc.command(&["docker", "import", &image, dest]);
        match context {
            Some(name) => command
                .env_remove("DOCKER_HOST")
                .env("DOCKER_CONTEXT", name),
            None => command
                .env("DOCKER_HOST", "ssh://me@there")
                .env("PATH", &path),
        };
        pcocc_tests::run(&mut command).ok().to_owned()
    };
    run(None, "far");
    let endpoint = format!("host={}", docker.host());
    let mut create = pcocc.any("docker");
    create.args(["context", "create", "mine", "--docker", &endpoint]);
    pcocc_tests::run(&mut create).ok();
    run(Some("mine"), "near");
    let shown = pcocc.run(&["image", "list"]);
    assert!(shown.contains("far") && shown.contains("near"), "{shown}");
}
