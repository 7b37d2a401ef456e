//! Measures how fast a layer is taken: `ingest TAR [gzip|none] [root|blob]`.
//!
//! Takes the tar twice into a temporary folder, the second time as a known layer, and reads it back;
//! prints megabytes of plain tar per second, and the most memory used. Run it in release.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Instant;

use pcocc_image::ingest::{BlobDir, Ingest, Options};
use pcocc_image::oci::{Image, Layer};
use pcocc_image::transfer::{Context, Offer};
use pcocc_image::{Error, Result};
use pcocc_layers::Compression;
use pcocc_layers::compression;
use pcocc_layers::{DiffId, Digest};
use tempfile::{NamedTempFile, TempDir};

struct Blobs {
    dir: TempDir,
    known: Mutex<HashMap<DiffId, Layer>>,
}

impl BlobDir for Blobs {
    fn size_of(&self, digest: Digest) -> Result<Option<u64>> {
        Ok(fs::metadata(self.path_of(digest)).ok().map(|m| m.len()))
    }

    fn path_of(&self, digest: Digest) -> PathBuf {
        self.dir.path().join(digest.hex())
    }

    fn temp(&self) -> Result<NamedTempFile> {
        NamedTempFile::new_in(self.dir.path()).map_err(Error::io("create", self.dir.path()))
    }

    fn publish(&self, temp: NamedTempFile, digest: Digest, _: u64) -> Result<()> {
        let path = self.path_of(digest);
        temp.persist(&path)
            .map(drop)
            .map_err(|error| Error::io("publish", &path)(error.error))
    }

    fn known_layer(&self, diff_id: DiffId) -> Result<Option<Layer>> {
        Ok(self
            .known
            .lock()
            .ok()
            .and_then(|known| known.get(&diff_id).cloned()))
    }
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let has = |word: &str| arguments.iter().any(|argument| argument == word);
    let tar = PathBuf::from(arguments.get(1).map_or("layer.tar", String::as_str));
    let options = Options {
        compression: if has("none") {
            Compression::None
        } else {
            Compression::Gzip
        },
        ..Options::default()
    };
    let dir = TempDir::new().map_err(Error::io("create", "temporary folder"))?;
    let blobs = Blobs {
        dir,
        known: Mutex::default(),
    };
    let size = fs::metadata(&tar).map_err(Error::io("read", &tar))?.len();
    let context = Context::silent();
    let mut layer: Option<Layer> = None;
    for round in ["new layer", "known layer"] {
        let start = Instant::now();
        let rootfs = if has("blob") {
            None
        } else {
            Some(blobs.temp()?)
        };
        let mut ingest = Ingest::new(&blobs, options, rootfs)?;
        let taken = ingest.layer(
            &Offer {
                blob: None,
                compression: Compression::None,
                diff_id: layer.as_ref().map(|layer| layer.diff_id),
                size: Some(size),
                file: None,
                open: &|| Ok(Box::new(File::open(&tar).map_err(Error::io("open", &tar))?)),
            },
            &context,
        )?;
        let config = format!(
            r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":["{}"]}}}}"#,
            taken.diff_id
        );
        let image = Image::assemble(config.into_bytes(), vec![taken.clone()])?;
        let rootfs = ingest.finish(&image, &context)?;
        let bytes = rootfs.map_or(0, |rootfs| rootfs.summary.bytes);
        report(round, size, start);
        println!("  blob {} bytes, squashfs {bytes} bytes", taken.size);
        if let Ok(mut known) = blobs.known.lock() {
            known.insert(taken.diff_id, taken.clone());
        }
        layer = Some(taken);
    }
    if let Some(layer) = layer {
        let start = Instant::now();
        let path = blobs.path_of(layer.digest);
        let blob = File::open(&path).map_err(Error::io("open", &path))?;
        let mut plain =
            compression::open(layer.compression, blob, options.threads, options.limits)?;
        io::copy(&mut plain, &mut io::sink()).map_err(Error::io("inflate", &path))?;
        report("inflate", size, start);
    }
    Ok(())
}

fn report(what: &str, size: u64, start: Instant) {
    let seconds = start.elapsed().as_secs_f64();
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find(|line| line.starts_with("VmHWM"));
    let speed = size as f64 / 1e6 / seconds;
    println!(
        "{what}: {seconds:.2} s, {speed:.0} MB/s, peak memory {}",
        peak.and_then(|line| line.split_once(':'))
            .map_or("unknown", |(_, peak)| peak.trim())
    );
}
