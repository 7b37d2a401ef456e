use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use pcocc_core::beneath::{OpenFolder, TempFile};
use pcocc_core::progress::{BlobKind, Event, Progress, Reporter};
use proptest::prelude::ProptestConfig;
use tempfile::TempDir;

use super::*;
use crate::error::{Error, Result};
use crate::oci::{Image, Layer};
use crate::transfer::{Context, Offer};
use pcocc_layers::{Compression, DiffId, Digest};

/// What a [`Blobs`] fails at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Temp,
    Write,
    Publish,
}

/// A folder of blobs that counts as known what was published, and fails on demand.
struct Blobs {
    dir: TempDir,
    known: Mutex<HashMap<DiffId, Layer>>,
    fails: Option<Step>,
}

impl Blobs {
    fn new() -> Self {
        Self {
            dir: TempDir::new().unwrap(),
            known: Mutex::default(),
            fails: None,
        }
    }

    fn failing(step: Step) -> Self {
        Self {
            fails: Some(step),
            ..Self::new()
        }
    }

    fn files(&self) -> Vec<String> {
        let mut files: Vec<_> = fs::read_dir(self.dir.path())
            .unwrap()
            .map(|file| file.unwrap().file_name().into_string().unwrap())
            .collect();
        files.sort();
        files
    }

    fn rootfs(&self) -> TempFile {
        TempFile::new_in(self.dir.path()).unwrap()
    }

    fn path_of(&self, digest: Digest) -> std::path::PathBuf {
        self.dir.path().join(digest.hex())
    }
}

fn full() -> io::Error {
    io::Error::from_raw_os_error(28)
}

impl BlobDir for Blobs {
    fn size_of(&self, digest: Digest) -> Result<Option<u64>> {
        Ok(fs::metadata(self.path_of(digest)).ok().map(|m| m.len()))
    }

    fn open(&self, digest: Digest) -> Result<File> {
        Ok(File::open(self.path_of(digest)).unwrap())
    }

    fn temp(&self) -> Result<TempFile> {
        let mut temp = TempFile::new_in(self.dir.path()).unwrap();
        match self.fails {
            Some(Step::Temp) => Err(Error::io("create", self.dir.path())(full())),
            Some(Step::Write) => {
                *temp.as_file_mut() = File::open(temp.path()).unwrap();
                Ok(temp)
            }
            _ => Ok(temp),
        }
    }

    fn publish(&self, mut temp: TempFile, digest: Digest, size: u64) -> Result<()> {
        if self.fails == Some(Step::Publish) {
            return Err(Error::io("publish", temp.path())(full()));
        }
        let content = fs::read(temp.path()).unwrap();
        assert_eq!((Digest::of(&content), content.len() as u64), (digest, size));
        let folder = OpenFolder::open(self.dir.path()).unwrap();
        temp.rename(&folder, digest.hex()).unwrap();
        Ok(())
    }

    fn known_layer(&self, diff_id: DiffId) -> Result<Option<Layer>> {
        Ok(self.known.lock().unwrap().get(&diff_id).cloned())
    }

    fn write_failed(&self, path: &Path, _: io::Error) -> Error {
        Error::io("write", path)(full())
    }
}

/// A layer on offer, true or not.
#[derive(Clone)]
struct Sample {
    stream: Vec<u8>,
    blob: Option<(Digest, u64)>,
    compression: Compression,
    diff_id: Option<DiffId>,
    size: Option<u64>,
    fails_after: Option<usize>,
}

impl Sample {
    fn plain(tar: &[u8]) -> Self {
        Self {
            stream: tar.to_vec(),
            blob: None,
            compression: Compression::None,
            diff_id: Some(diff_id(tar)),
            size: Some(tar.len() as u64),
            fails_after: None,
        }
    }

    fn blob(tar: &[u8], compression: Compression) -> Self {
        let stream = compressed(tar, compression);
        Self {
            blob: Some((Digest::of(&stream), stream.len() as u64)),
            compression,
            size: Some(stream.len() as u64),
            stream,
            ..Self::plain(tar)
        }
    }

    fn take(&self, ingest: &mut Ingest<'_>, context: &Context) -> Result<Layer> {
        let open = || -> Result<Box<dyn Read + Send + '_>> {
            Ok(match self.fails_after {
                None => Box::new(&self.stream[..]),
                Some(n) => Box::new(self.stream[..n].chain(Failing)),
            })
        };
        let offer = Offer {
            blob: self.blob,
            compression: self.compression,
            diff_id: self.diff_id,
            size: self.size,
            file: None,
            is_far: false,
            open: &open,
        };
        ingest.layer(&offer, context)
    }
}

struct Failing;

impl Read for Failing {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::Error::from_raw_os_error(5))
    }
}

fn compressed(tar: &[u8], compression: Compression) -> Vec<u8> {
    match compression {
        Compression::None => tar.to_vec(),
        Compression::Zstd => zstd::encode_all(tar, 1).unwrap(),
        Compression::Gzip => {
            let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            gzip.write_all(tar).unwrap();
            gzip.finish().unwrap()
        }
    }
}

fn diff_id(tar: &[u8]) -> DiffId {
    DiffId(Digest::of(tar))
}

/// A tar of files whose content is their name, over and over.
fn tar(names: &[&str], length: usize) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for name in names {
        let content: Vec<u8> = name.bytes().cycle().take(length).collect();
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, &content[..]).unwrap();
    }
    tar.into_inner().unwrap()
}

fn image(layers: Vec<Layer>) -> Image {
    let ids: Vec<_> = layers
        .iter()
        .map(|layer| layer.diff_id.to_string())
        .collect();
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux",
        "config": {"Cmd": ["sh"], "Env": ["A=b"], "WorkingDir": ""},
        "rootfs": {"type": "layers", "diff_ids": ids},
    });
    Image::assemble(config.to_string().into_bytes(), layers).unwrap()
}

fn ingest(blobs: &Blobs, with_root: bool) -> Ingest<'_> {
    let rootfs = with_root.then(|| blobs.rootfs());
    Ingest::new(blobs, Options::default(), rootfs).unwrap()
}

const KINDS: [Compression; 3] = [Compression::None, Compression::Gzip, Compression::Zstd];

#[test]
fn plain_layers_are_stored_as_wanted_and_only_once() {
    let tar = tar(&["a", "b"], 1_500_000);
    for (compression, with_root) in [
        (Compression::Gzip, false),
        (Compression::Gzip, true),
        (Compression::None, false),
        (Compression::None, true),
    ] {
        let blobs = Blobs::new();
        let options = Options {
            compression,
            ..Options::default()
        };
        let rootfs = with_root.then(|| blobs.rootfs());
        let mut ingest = Ingest::new(&blobs, options, rootfs).unwrap();
        let context = Context::silent();
        let layer = Sample::plain(&tar).take(&mut ingest, &context).unwrap();
        assert_eq!(layer.compression, compression);
        assert_eq!(layer.diff_id, diff_id(&tar));
        assert_eq!(blobs.size_of(layer.digest).unwrap(), Some(layer.size));
        // Once more, and once more without a diff ID or a size announced.
        let blind = Sample {
            diff_id: None,
            size: None,
            ..Sample::plain(&tar)
        };
        assert!(ingest.has_layer(layer.diff_id).unwrap());
        assert_eq!(
            Sample::plain(&tar).take(&mut ingest, &context).unwrap(),
            layer
        );
        assert_eq!(blind.take(&mut ingest, &context).unwrap(), layer);
        drop(ingest);
        assert_eq!(blobs.files(), [layer.digest.hex()]);
    }
    let zstd = Options {
        compression: Compression::Zstd,
        ..Options::default()
    };
    assert!(Ingest::new(&Blobs::new(), zstd, None).is_err());
}

#[test]
fn compressed_layers_are_kept_or_recompressed() {
    let tar = tar(&["a"], 3_000_000);
    for (kind, recompress, with_root) in [
        (Compression::None, false, true),
        (Compression::Gzip, false, false),
        (Compression::Gzip, false, true),
        (Compression::Zstd, false, true),
        (Compression::Gzip, true, false),
        (Compression::Zstd, true, true),
    ] {
        let blobs = Blobs::new();
        let options = Options {
            recompress,
            ..Options::default()
        };
        let rootfs = with_root.then(|| blobs.rootfs());
        let mut ingest = Ingest::new(&blobs, options, rootfs).unwrap();
        let sample = Sample {
            diff_id: None,
            ..Sample::blob(&tar, kind)
        };
        let layer = sample.take(&mut ingest, &Context::silent()).unwrap();
        assert_eq!(layer.diff_id, diff_id(&tar));
        if recompress && kind == Compression::Zstd {
            assert_eq!(layer.compression, Compression::Gzip);
        } else {
            assert_eq!(Some((layer.digest, layer.size)), sample.blob);
            assert_eq!(layer.compression, kind);
        }
        drop(ingest);
        assert_eq!(blobs.files(), [layer.digest.hex()]);
    }
}

#[test]
fn lies_are_found_out_and_leave_nothing() {
    let tar = tar(&["a", "b"], 1_200_000);
    let other = diff_id(b"other");
    for kind in KINDS {
        let good = Sample::blob(&tar, kind);
        let (digest, size) = good.blob.unwrap();
        let renamed = |stream: Vec<u8>| Sample {
            blob: Some((Digest::of(&stream), stream.len() as u64)),
            size: Some(stream.len() as u64),
            stream,
            ..good.clone()
        };
        let mut flipped = good.stream.clone();
        let middle = flipped.len() / 2;
        flipped[middle] ^= 0x40;
        let mut lies = vec![
            (
                "digest",
                Sample {
                    blob: Some((other.0, size)),
                    diff_id: None,
                    ..good.clone()
                },
            ),
            (
                "size",
                Sample {
                    blob: Some((digest, size + 1)),
                    ..good.clone()
                },
            ),
            (
                "less",
                Sample {
                    blob: Some((digest, size - 1)),
                    ..good.clone()
                },
            ),
            (
                "cut",
                Sample {
                    stream: good.stream[..middle].to_vec(),
                    ..good.clone()
                },
            ),
            (
                "nothing",
                Sample {
                    stream: Vec::new(),
                    ..good.clone()
                },
            ),
            (
                "damage",
                Sample {
                    stream: flipped.clone(),
                    ..good.clone()
                },
            ),
            (
                "garbage",
                Sample {
                    stream: [&good.stream[..], b"x"].concat(),
                    ..good.clone()
                },
            ),
        ];
        if kind != Compression::None {
            // Blobs that are exactly what they say, with something else inside.
            lies.push((
                "diff ID",
                Sample {
                    diff_id: Some(other),
                    ..good.clone()
                },
            ));
            lies.push(("true cut", renamed(good.stream[..middle].to_vec())));
            lies.push(("true damage", renamed(flipped)));
            lies.push((
                "true garbage",
                renamed([&good.stream[..], b"garbage"].concat()),
            ));
        } else {
            let plain = Sample::plain(&tar);
            lies.push((
                "plain diff ID",
                Sample {
                    diff_id: Some(other),
                    ..plain.clone()
                },
            ));
            lies.push((
                "plain cut",
                Sample {
                    stream: tar[..middle].to_vec(),
                    ..plain.clone()
                },
            ));
            lies.push((
                "plain size",
                Sample {
                    size: Some(3),
                    diff_id: None,
                    ..plain
                },
            ));
        }
        for (what, lie) in lies {
            for with_root in [false, true] {
                let blobs = Blobs::new();
                let mut ingest = ingest(&blobs, with_root);
                let error = lie.take(&mut ingest, &Context::silent()).unwrap_err();
                assert!(
                    matches!(error, Error::Corrupt { .. } | Error::Invalid { .. }),
                    "{kind:?} {what}: {error}"
                );
                drop(ingest);
                assert_eq!(blobs.files(), [""; 0], "{kind:?} {what}");
            }
        }
    }
}

#[test]
fn what_a_blob_there_already_holds_is_verified_too() {
    let tar = tar(&["a"], 100_000);
    for with_root in [false, true] {
        let blobs = Blobs::new();
        let sample = Sample::blob(&tar, Compression::Gzip);
        fs::write(blobs.path_of(sample.blob.unwrap().0), &sample.stream).unwrap();
        let context = Context::silent();
        // The stream is not read: it would fail.
        let unread = Sample {
            fails_after: Some(0),
            ..sample.clone()
        };
        let layer = unread
            .take(&mut ingest(&blobs, with_root), &context)
            .unwrap();
        assert_eq!(layer.diff_id, diff_id(&tar));
        let lie = Sample {
            diff_id: Some(diff_id(b"other")),
            ..unread
        };
        let error = lie
            .take(&mut ingest(&blobs, with_root), &context)
            .unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    }
}

#[test]
fn a_reader_that_fails_midway_is_the_error_that_is_told() {
    let tar = tar(&["a", "b", "c"], 2_000_000);
    for kind in KINDS {
        for with_root in [false, true] {
            let blobs = Blobs::new();
            let mut sample = Sample::blob(&tar, kind);
            sample.fails_after = Some(sample.stream.len() * 2 / 3);
            let mut ingest = ingest(&blobs, with_root);
            let error = sample.take(&mut ingest, &Context::silent()).unwrap_err();
            assert_eq!(
                error.raw_os_error(),
                Some(5),
                "{kind:?} {with_root}: {error}"
            );
            drop(ingest);
            assert_eq!(blobs.files(), [""; 0]);
        }
    }
}

#[test]
fn a_folder_that_fails_is_the_error_that_is_told() {
    let tar = tar(&["a", "b", "c"], 4_000_000);
    for step in [Step::Temp, Step::Write, Step::Publish] {
        let plain = Sample::plain(&tar);
        for sample in KINDS
            .map(|kind| Sample::blob(&tar, kind))
            .iter()
            .chain([&plain])
        {
            for with_root in [false, true] {
                let blobs = Blobs::failing(step);
                let mut ingest = ingest(&blobs, with_root);
                let error = sample.take(&mut ingest, &Context::silent()).unwrap_err();
                assert_eq!(error.raw_os_error(), Some(28), "{step:?}: {error}");
                let nothing = image(Vec::new());
                let error = ingest.documents(&nothing, &Context::silent()).unwrap_err();
                assert_eq!(error.raw_os_error(), Some(28), "{step:?}: {error}");
                drop(ingest);
                assert_eq!(blobs.files(), [""; 0], "{step:?}");
            }
        }
    }
}

#[test]
fn cancelling_stops_every_stage() {
    struct Cancelling(Context);
    impl Read for Cancelling {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            self.0.cancel.cancel();
            buf.fill(0);
            Ok(buf.len())
        }
    }
    let tar = tar(&["a", "b"], 3_000_000);
    for kind in KINDS {
        for with_root in [false, true] {
            let blobs = Blobs::new();
            let mut ingest = ingest(&blobs, with_root);
            let context = Context::silent();
            let stream = compressed(&tar, kind);
            let half = &stream[..stream.len() / 2];
            let offer = Offer {
                blob: None,
                compression: kind,
                diff_id: None,
                size: None,
                file: None,
                is_far: false,
                open: &|| Ok(Box::new(half.chain(Cancelling(context.clone())))),
            };
            let error = ingest.layer(&offer, &context).unwrap_err();
            assert!(matches!(error, Error::Cancelled), "{kind:?}: {error}");
            drop(ingest);
            assert_eq!(blobs.files(), [""; 0]);
        }
    }
}

/// A stream that passes by is read where the squashfs needs it, one from afar never.
#[test]
fn a_layer_that_is_there_is_not_read_for_nothing() {
    let tar = tar(&["a", "b"], 70_000);
    for (with_root, is_far) in [(false, false), (false, true), (true, false), (true, true)] {
        let blobs = Blobs::new();
        let context = Context::silent();
        let mut first = ingest(&blobs, with_root);
        let layer = Sample::plain(&tar).take(&mut first, &context).unwrap();
        let known = (diff_id(&tar), layer.clone());
        blobs.known.lock().unwrap().extend([known]);
        let opened = AtomicBool::new(false);
        let offer = Offer {
            blob: None,
            compression: Compression::None,
            diff_id: Some(diff_id(&tar)),
            size: None,
            file: None,
            is_far,
            open: &|| {
                opened.store(true, Ordering::Relaxed);
                Ok(Box::new(&tar[..]))
            },
        };
        let mut second = ingest(&blobs, with_root);
        assert_eq!(second.layer(&offer, &context).unwrap(), layer);
        let image = image(vec![layer]);
        let rootfs = second.finish(&image, &context).unwrap();
        assert_eq!(rootfs.is_some(), with_root);
        let is_read = opened.load(Ordering::Relaxed);
        assert_eq!(is_read, with_root && !is_far, "{with_root} {is_far}");
    }
}

#[test]
fn the_root_filesystem_has_the_layers_in_the_images_order() {
    let blobs = Blobs::new();
    let (one, two) = (tar(&["same", "one"], 9), tar(&["same", "two"], 70_000));
    let context = Context::silent();
    let mut first = ingest(&blobs, true);
    let a = Sample::plain(&one).take(&mut first, &context).unwrap();
    let b = Sample::blob(&two, Compression::Zstd)
        .take(&mut first, &context)
        .unwrap();
    // The upper layer came last, but a layer may come twice, and be the lower one too.
    let image = image(vec![a.clone(), b.clone(), a]);
    first.documents(&image, &context).unwrap();
    assert!(first.holds(&image).unwrap());
    let rootfs = first.finish(&image, &context).unwrap().unwrap();
    let list = |path: &Path| {
        let output = std::process::Command::new("unsquashfs")
            .args(["-cat".as_ref(), path.as_os_str(), "rootfs/same".as_ref()])
            .output()
            .unwrap();
        assert!(output.status.success());
        output.stdout
    };
    assert_eq!(list(&rootfs.file.path()), b"samesames");
    // From what is stored alone, nothing offered: the same file.
    let again = ingest(&blobs, true)
        .finish(&image, &context)
        .unwrap()
        .unwrap();
    assert_eq!(again.summary.inodes, rootfs.summary.inodes);
    assert_eq!(list(&again.file.path()), b"samesames");
    assert!(
        ingest(&blobs, false)
            .finish(&image, &context)
            .unwrap()
            .is_none()
    );
    // A stored layer that rotted is found out.
    fs::write(blobs.path_of(b.digest), vec![0; b.size as usize]).unwrap();
    assert!(ingest(&blobs, true).finish(&image, &context).is_err());
}

#[test]
fn progress_names_blobs_and_says_what_is_skipped() {
    #[derive(Default)]
    struct Events(Mutex<Vec<Event>>);
    impl Progress for Events {
        fn event(&self, event: Event) {
            self.0.lock().unwrap().push(event);
        }
    }
    let events = Arc::new(Events::default());
    let context = Context {
        progress: Reporter::new(events.clone()),
        ..Context::silent()
    };
    let blobs = Blobs::new();
    let mut ingest = ingest(&blobs, false);
    let tar = tar(&["a"], 10);
    let layer = Sample::plain(&tar).take(&mut ingest, &context).unwrap();
    Sample::plain(&tar).take(&mut ingest, &context).unwrap();
    let image = image(vec![layer]);
    ingest.documents(&image, &context).unwrap();
    let started = |id, kind, name: String, total| Event::BlobStarted {
        id,
        kind,
        name,
        total: Some(total),
    };
    let (length, config) = (tar.len() as u64, image.config().len() as u64);
    let events = events.0.lock().unwrap();
    let ids = events.iter().filter_map(|event| match event {
        Event::BlobStarted { id, .. } => Some(*id),
        _ => None,
    });
    let ids: Vec<u64> = ids.collect();
    assert!(ids[0] < ids[1], "{ids:?}");
    assert_eq!(
        *events,
        [
            started(ids[0], BlobKind::Layer, diff_id(&tar).to_string(), length),
            Event::BlobProgress {
                id: ids[0],
                done: length
            },
            Event::BlobFinished {
                id: ids[0],
                total: length
            },
            Event::BlobSkipped {
                kind: BlobKind::Layer,
                name: diff_id(&tar).to_string()
            },
            started(ids[1], BlobKind::Config, image.id().to_string(), config),
            Event::BlobProgress {
                id: ids[1],
                done: config
            },
            Event::BlobFinished {
                id: ids[1],
                total: config
            },
        ]
    );
}

#[test]
fn the_runtime_config_has_what_pcocc_reads() {
    let config = br#"{"config":{"Cmd":["a","b"],"Entrypoint":["e"],"Env":[],"WorkingDir":"/w"}}"#;
    assert_eq!(
        String::from_utf8(runtime_config(config).unwrap()).unwrap(),
        r#"{"ociVersion":"0.1.0","root":{"path":"rootfs"},"process":{"cwd":"/w","args":["a","b"],"entrypoint":["e"]}}"#
    );
    assert_eq!(
        String::from_utf8(runtime_config(br#"{"config":null}"#).unwrap()).unwrap(),
        r#"{"ociVersion":"0.1.0","root":{"path":"rootfs"},"process":{"cwd":"/"}}"#
    );
    assert!(runtime_config(b"{").is_err());
}

proptest::proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn damage_never_passes(
        at: proptest::sample::Index, flip in 1..=255u8, kind in 0..3usize, with_root: bool,
    ) {
        let mut sample = Sample::blob(&tar(&["a"], 20_000), KINDS[kind]);
        let at = at.index(sample.stream.len());
        sample.stream[at] ^= flip;
        let blobs = Blobs::new();
        let mut ingest = ingest(&blobs, with_root);
        proptest::prop_assert!(sample.take(&mut ingest, &Context::silent()).is_err());
        drop(ingest);
        proptest::prop_assert_eq!(blobs.files().len(), 0);
    }
}
