//! Images received by the sink, from sources that are honest and from others.

use std::collections::HashMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::sync::Mutex;
use std::thread;

use flate2::write::GzEncoder;
use pcocc_core::cancel::Cancel;
use pcocc_core::progress::{Event, Progress, Reporter};

use super::*;
use crate::error::{Error, Result};
use crate::ingest::Options;
use crate::oci::Layer;
use crate::reference::ImageUri;
use crate::store::Store;
use crate::testing::memory::MemoryImage;
use crate::transfer::{self, Context, Layout, Sink};
use pcocc_layers::Compression;
use pcocc_layers::DiffId;

/// An image in memory.
pub(super) struct Memory {
    pub(super) image: Image,
    blobs: HashMap<Digest, Vec<u8>>,
}

impl Layout for Memory {
    fn image(&self, _: &Context) -> Result<Image> {
        Ok(self.image.clone())
    }

    fn open_layer<'a>(&'a self, layer: &Layer) -> Result<Box<dyn Read + Send + 'a>> {
        match self.blobs.get(&layer.digest) {
            Some(blob) => Ok(Box::new(blob.as_slice())),
            None => Err(Error::NotFound(layer.digest.to_string())),
        }
    }

    fn layer_file(&self, _: &Layer) -> Option<fs::File> {
        None
    }
}

fn tar(name: &str, content: &str) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    archive
        .append_data(&mut header, name, content.as_bytes())
        .unwrap();
    archive.into_inner().unwrap()
}

/// An image with one gzip layer whose plain tar is claimed to be `claimed`.
fn memory_claiming(plain: &[u8], claimed: &[u8]) -> Memory {
    let mut gzip = GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(plain).unwrap();
    let blob = gzip.finish().unwrap();
    let layer = Layer {
        digest: Digest::of(&blob),
        size: blob.len() as u64,
        compression: Compression::Gzip,
        diff_id: DiffId(Digest::of(claimed)),
    };
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [layer.diff_id]},
    });
    let config = serde_json::to_vec(&config).unwrap();
    Memory {
        blobs: [(layer.digest, blob)].into(),
        image: Image::assemble(config, vec![layer]).unwrap(),
    }
}

pub(super) fn memory(content: &str) -> Memory {
    let plain = tar("file", content);
    memory_claiming(&plain, &plain)
}

pub(super) fn sink(site: &Site, uri: &str) -> RepositorySink {
    let uri: ImageUri = uri.parse().unwrap();
    RepositorySink::new(Arc::clone(&site.repositories), &uri, Options::default()).unwrap()
}

#[derive(Default)]
pub(super) struct Warnings(Mutex<Vec<String>>);

impl Warnings {
    pub(super) fn texts(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

impl Progress for Warnings {
    fn event(&self, event: Event) {
        if let Event::Warning(text) = event {
            self.0.lock().unwrap().push(text);
        }
    }
}

pub(super) fn watched() -> (Context, Arc<Warnings>) {
    let warnings = Arc::new(Warnings::default());
    let context = Context {
        progress: Reporter::new(Arc::clone(&warnings) as Arc<dyn Progress>),
        cancel: Cancel::new(),
    };
    (context, warnings)
}

fn nothing_is_left_over(site: &Site) {
    for repository in site.repositories.iter() {
        if let Ok(entries) = fs::read_dir(repository.path().join(".tmp")) {
            assert_eq!(entries.count(), 0, "{}", repository.name());
        }
    }
    let cache = site.repositories.cache().unwrap();
    if let Ok(entries) = fs::read_dir(cache.path().join(".tmp")) {
        assert_eq!(entries.count(), 0);
    }
}

#[test]
fn layers_are_stored_as_the_repository_is_configured() {
    let context = Context::silent();
    let contents: [&[u8]; 2] = [b"one", b"two"];
    for (configured, came, stored) in [
        (LayerCompression::Keep, Compression::Zstd, Compression::Zstd),
        (LayerCompression::Gzip, Compression::Zstd, Compression::Gzip),
        (LayerCompression::Gzip, Compression::None, Compression::Gzip),
        (LayerCompression::None, Compression::Zstd, Compression::None),
        (LayerCompression::None, Compression::Gzip, Compression::None),
    ] {
        let site = Site::storing(&["user"], configured);
        let source = MemoryImage::new(&contents, came);
        let sink = RepositorySink::new(
            Arc::clone(&site.repositories),
            &"a".parse().unwrap(),
            site.repo().options(),
        )
        .unwrap();
        let received = transfer::copy(&source, &sink, &context).unwrap();
        // The image is the same, however its layers are stored.
        assert_eq!(received.id(), source.image.id());
        let meta = site.repo().meta("a", None).unwrap();
        let image = site.repo().image(&meta).unwrap();
        assert_eq!(image.diff_ids(), source.image.diff_ids());
        for layer in image.layers() {
            assert_eq!(layer.compression, stored, "{configured:?}, {came:?}");
            let blob = fs::read(site.repo().blob_path(layer.digest)).unwrap();
            assert_eq!(Compression::sniff(&blob), stored);
        }
        let verified = site.repo().verify(&context).unwrap();
        assert!(verified.problems.is_empty(), "{:?}", verified.problems);
        nothing_is_left_over(&site);
    }
}

#[test]
fn an_image_arrives_with_its_root_filesystem() {
    let site = Site::new(&["user", "site"]);
    let source = memory("hello");
    let context = Context::silent();
    let received = transfer::copy(&source, &sink(&site, "a"), &context).unwrap();
    assert_eq!(received.id(), source.image.id());
    pcocc07(&["check".as_ref(), site.repo().path().as_os_str()]);
    let meta = site.repo().meta("a", None).unwrap();
    assert_eq!(meta.owner(), "doe");
    let cache = site.repositories.cache().unwrap();
    let entry = |key: &CacheKey| fs::metadata(cache.entry_path(key)).unwrap().ino();
    let by_id = entry(&CacheKey::of_image(received.id()));
    assert_eq!(entry(&CacheKey::of_meta(&meta, "user")), by_id);

    // Under a new name and in another repository: no new content, and the same root filesystem.
    let blobs = site.repo().blob_files().unwrap().blobs.len();
    transfer::copy(&source, &sink(&site, "b"), &context).unwrap();
    let meta = site.repo().meta("b", None).unwrap();
    assert_eq!(entry(&CacheKey::of_meta(&meta, "user")), by_id);
    assert_eq!(site.repo().blob_files().unwrap().blobs.len(), blobs);
    let again = RepositoryImage::new(Arc::clone(site.repo()), meta);
    transfer::copy(&again, &sink(&site, "site:c"), &context).unwrap();
    let other = site.repositories.get("site").unwrap();
    let meta = other.meta("c", None).unwrap();
    assert_eq!(other.image(&meta).unwrap(), received);
    assert_eq!(entry(&CacheKey::of_meta(&meta, "site")), by_id);
    let layer = received.layers()[0].digest;
    let inode = |r: &Repository| fs::metadata(r.blob_path(layer)).unwrap().ino();
    assert_eq!(inode(other), inode(site.repo()));
    for repository in site.repositories.iter() {
        let verified = repository.verify(&context).unwrap();
        assert!(verified.problems.is_empty(), "{:?}", verified.problems);
        pcocc07(&["check".as_ref(), repository.path().as_os_str()]);
    }
    nothing_is_left_over(&site);
}

#[test]
fn names_that_are_taken_or_illegal_are_refused_at_once() {
    let site = Site::new(&["user", "site"]);
    let (context, warnings) = watched();
    put_image(site.repo(), "a", &[b"1"]);
    let taken = sink(&site, "a");
    assert!(matches!(taken.open(&context), Err(Error::Exists(_))));
    assert!(warnings.0.lock().unwrap().is_empty());
    sink(&site, "site:a").open(&context).unwrap();
    let texts = warnings.0.lock().unwrap();
    assert!(texts[0].contains("repository user"), "{texts:?}");
    for (uri, part) in [("nope:a", "not configured"), ("b@3", "revision 0 only")] {
        let uri: ImageUri = uri.parse().unwrap();
        let repositories = Arc::clone(&site.repositories);
        let error = RepositorySink::new(repositories, &uri, Options::default()).unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
    }
    nothing_is_left_over(&site);
}

#[test]
fn of_two_importers_one_wins() {
    let site = Site::new(&["user"]);
    let context = Context::silent();
    for round in 0..5 {
        let name = format!("image-{round}");
        let sources = [memory("one"), memory("two")];
        let sinks = [sink(&site, &name), sink(&site, &name)];
        // Both find the name free before either commits.
        let receivers: Vec<_> = sinks.iter().map(|s| s.open(&context).unwrap()).collect();
        let results: Vec<Result<Image>> = thread::scope(|scope| {
            let threads: Vec<_> = receivers
                .into_iter()
                .zip(&sources)
                .map(|(mut receiver, source)| {
                    let context = &context;
                    scope.spawn(move || {
                        let image = transfer::Source::send(source, &mut *receiver, context)?;
                        receiver.commit(&image, context)?;
                        Ok(image)
                    })
                })
                .collect();
            threads.into_iter().map(|t| t.join().unwrap()).collect()
        });
        let winners: Vec<_> = results.iter().flatten().collect();
        assert_eq!(winners.len(), 1, "{results:?}");
        assert!(results.iter().any(|r| matches!(r, Err(Error::Exists(_)))));
        let meta = site.repo().meta(&name, None).unwrap();
        assert_eq!(&site.repo().image(&meta).unwrap(), winners[0]);
    }
    nothing_is_left_over(&site);
}

#[test]
fn a_receiver_that_is_dropped_leaves_nothing() {
    let site = Site::new(&["user"]);
    let context = Context::silent();
    {
        let sink = sink(&site, "a");
        let mut receiver = sink.open(&context).unwrap();
        transfer::Source::send(&memory("x"), &mut *receiver, &context).unwrap();
    }
    assert!(site.repo().list().unwrap().metas.is_empty());
    context.cancel.cancel();
    let result = transfer::copy(&memory("x"), &sink(&site, "a"), &context);
    assert!(matches!(result, Err(Error::Cancelled)), "{result:?}");
    assert!(site.repo().list().unwrap().metas.is_empty());
    nothing_is_left_over(&site);
}

/// A diff ID nobody checked would let one image replace a layer of all others.
#[test]
fn a_lie_about_a_layer_is_never_believed() {
    let site = Site::new(&["user"]);
    let context = Context::silent();
    let (evil, good) = (tar("evil", "x"), tar("good", "x"));
    let honest = memory_claiming(&evil, &evil);
    transfer::copy(&honest, &sink(&site, "honest"), &context).unwrap();
    // All its blobs but the documents are there already.
    let lie = memory_claiming(&evil, &good);
    let result = transfer::copy(&lie, &sink(&site, "lie"), &context);
    assert!(matches!(result, Err(Error::Corrupt { .. })), "{result:?}");
    put_blob(site.repo(), lie.image.manifest());
    put_blob(site.repo(), lie.image.config());
    let result = transfer::copy(&lie, &sink(&site, "lie"), &context);
    assert!(matches!(result, Err(Error::Corrupt { .. })), "{result:?}");
    let known = site.repo().known_layers().unwrap();
    assert!(!known.contains_key(&DiffId(Digest::of(&good))));
    assert_eq!(site.repo().list().unwrap().metas.len(), 1);
    nothing_is_left_over(&site);
}

#[test]
fn an_image_does_not_need_the_cache() {
    let site = Site::new(&["user"]);
    fs::write(site.dir.path().join("cache"), "in the way").unwrap();
    let (context, warnings) = watched();
    transfer::copy(&memory("x"), &sink(&site, "a"), &context).unwrap();
    let texts = warnings.0.lock().unwrap();
    assert!(texts[0].contains("cache"), "{texts:?}");
    site.repo().meta("a", None).unwrap();
}

#[test]
fn the_store_lists_renames_and_removes() {
    let site = Site::new(&["user"]);
    let context = Context::silent();
    let repositories = || Arc::clone(&site.repositories);
    let store = RepositoryStore::new(repositories(), "user", Options::default()).unwrap();
    let empty = store.version().unwrap();
    let source = memory("hello");
    transfer::copy(&source, &*store.sink("a", None).unwrap(), &context).unwrap();
    assert_ne!(store.version().unwrap(), empty);
    let disk = put_blob(site.repo(), b"QFI\xfb");
    let vm = Meta::virtual_machine("vm", 0, "doe", SystemTime::now(), &[disk]).unwrap();
    site.repo().publish(&vm).unwrap();
    let entries = store.list().unwrap();
    let names: Vec<_> = entries.iter().map(|entry| &entry.name).collect();
    assert_eq!(names, ["a", "a@0"]);
    assert_eq!(entries[1].id, entries[0].id);
    assert_eq!(entries[0].id, Some(source.image.id()));
    for name in ["a/b", "user:a", ".a", ""] {
        assert!(store.check_name(name).is_err(), "{name}");
    }
    for name in ["a", "a@0"] {
        let layout = store.layout(name, &context).unwrap();
        let image = layout.image(&context).unwrap();
        let file = layout.layer_file(&image.layers()[0]).unwrap();
        assert!(file.metadata().unwrap().is_file());
    }
    for taken in ["a", "vm"] {
        assert!(matches!(store.check_new(taken), Err(Error::Exists(_))));
    }
    for illegal in ["b@1", "b@0", "a:b"] {
        assert!(matches!(
            store.check_new(illegal),
            Err(Error::Invalid { .. })
        ));
    }
    store.check_new("b").unwrap();
    assert!(store.layout("vm", &context).is_err());
    assert!(store.layout("a@1", &context).is_err());
    let before = store.version().unwrap();
    store.rename("a", "b").unwrap();
    assert_ne!(store.version().unwrap(), before);
    assert!(matches!(store.rename("a", "c"), Err(Error::NotFound(_))));
    transfer::copy(&source, &*store.sink("a", None).unwrap(), &context).unwrap();
    assert!(matches!(store.rename("a", "b"), Err(Error::Exists(_))));
    assert!(
        store
            .root_filesystem("b", &context)
            .unwrap()
            .metadata()
            .unwrap()
            .len()
            > 0
    );
    // Made again when it is missing.
    fs::remove_dir_all(site.dir.path().join("cache")).unwrap();
    assert!(
        store
            .root_filesystem("b", &context)
            .unwrap()
            .metadata()
            .unwrap()
            .len()
            > 0
    );
    store.remove("b").unwrap();
    store.remove("a").unwrap();
    assert!(store.list().unwrap().is_empty());
    nothing_is_left_over(&site);
}
