use std::fs;
use std::os::unix::fs::symlink;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::oci::Platform;
use crate::store::Store;
use crate::testing::MemoryStore;
use crate::testing::memory::{MemoryImage, snapshot};
use crate::transfer::copy;
use pcocc_layers::Compression;

fn sample() -> MemoryImage {
    MemoryImage::new(&[b"first", b"second"], Compression::Gzip)
}

/// Writes `image` to `folder` under `tag`.
fn write(image: &MemoryImage, folder: &Path, tag: &str) -> Result<Image> {
    copy(
        image,
        &LayoutSink::new(folder, Some(tag)),
        &Context::silent(),
    )
}

fn read(folder: &Path, tag: Option<&str>) -> Result<Image> {
    let sink = MemoryStore::temporary()?.sink("image", None)?;
    copy(
        &LayoutFolder::open(folder, tag, Platform::host())?,
        &*sink,
        &Context::silent(),
    )
}

/// A layout with the sample image, to be spoilt.
fn written() -> (TempDir, PathBuf, MemoryImage) {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("layout");
    let image = sample();
    write(&image, &folder, "one").unwrap();
    (dir, folder, image)
}

fn blob(folder: &Path, digest: Digest) -> PathBuf {
    folder.join("blobs/sha256").join(digest.hex())
}

/// Reads the layout, which must fail with these words and write nothing.
fn refused(folder: &Path, words: &str) {
    let before = snapshot(folder);
    let store = MemoryStore::temporary().unwrap();
    let sink = store.sink("image", None).unwrap();
    let error = LayoutFolder::open(folder, None, Platform::host())
        .and_then(|source| copy(&source, &*sink, &Context::silent()))
        .unwrap_err()
        .to_string();
    assert!(error.contains(words), "{error:?} lacks {words:?}");
    assert!(error.len() < 1000, "{error}");
    assert!(store.get("image").is_none());
    assert_eq!(snapshot(folder), before);
}

#[test]
fn an_image_comes_back_as_it_went() {
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("layout");
        let image = MemoryImage::new(&[b"a", b"b", b"a"], compression);
        write(&image, &folder, "latest").unwrap();
        for tag in [None, Some("latest")] {
            assert_eq!(read(&folder, tag).unwrap(), image.image);
        }
        let source = LayoutFolder::open(&folder, None, Platform::host()).unwrap();
        for layer in image.image.layers() {
            let file = source.layer_file(layer).unwrap();
            let blob = beneath::read(file, u64::MAX).unwrap();
            assert_eq!(blob, image.blobs[&layer.digest]);
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}

#[test]
fn a_layout_that_is_there_gets_the_image_added_or_renamed() {
    let (_dir, folder, one) = written();
    let two = MemoryImage::new(&[b"first", b"other"], Compression::Gzip);
    write(&two, &folder, "two").unwrap();
    assert_eq!(read(&folder, Some("one")).unwrap(), one.image);
    assert_eq!(read(&folder, Some("two")).unwrap(), two.image);
    refused(&folder, "one, two");
    write(&two, &folder, "one").unwrap();
    assert_eq!(read(&folder, Some("one")).unwrap(), two.image);
    let names = fs::read_dir(&folder).unwrap().count();
    assert_eq!(names, 3, "staging is left behind");
    let error = read(&folder, Some("three")).unwrap_err().to_string();
    assert!(error.contains("three") && error.contains("two"), "{error}");
}

#[test]
fn an_empty_folder_is_filled_and_anything_else_refused() {
    let dir = tempfile::tempdir().unwrap();
    let empty = dir.path().join("empty");
    fs::create_dir(&empty).unwrap();
    write(&sample(), &empty, "x").unwrap();
    assert_eq!(read(&empty, Some("x")).unwrap(), sample().image);
    let full = dir.path().join("full");
    fs::create_dir(&full).unwrap();
    fs::write(full.join("mine"), "mine").unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "mine").unwrap();
    let missing = dir.path().join("no/such/parent");
    let before = snapshot(dir.path());
    assert!(write(&sample(), &full, "x").is_err());
    assert!(write(&sample(), &file, "x").is_err());
    assert!(write(&sample(), &missing, "x").is_err());
    for name in ["", "a b", "a\nb", "/", "é", &"x".repeat(4096)] {
        let error = write(&sample(), &dir.path().join("new"), name).unwrap_err();
        assert!(error.to_string().len() < 300);
    }
    assert_eq!(snapshot(dir.path()), before);
}

#[test]
fn a_source_that_breaks_or_lies_changes_nothing() {
    let (dir, folder, _) = written();
    let before = snapshot(dir.path());
    let mut broken = MemoryImage::new(&[b"x", b"y"], Compression::Gzip);
    broken.breaks = Some((1, 20));
    let mut lying = MemoryImage::new(&[b"x", b"y"], Compression::Gzip);
    for blob in lying.blobs.values_mut() {
        *blob.last_mut().unwrap() ^= 1;
    }
    let mut longer = MemoryImage::new(&[b"x"], Compression::None);
    longer.blobs.values_mut().for_each(|blob| blob.push(0));
    let cancelled = Context::silent();
    cancelled.cancel.cancel();
    for target in [folder, dir.path().join("new")] {
        for source in [&broken, &lying, &longer] {
            assert!(write(source, &target, "two").is_err());
        }
        let sink = LayoutSink::new(&target, Some("two"));
        assert!(matches!(
            copy(&sample(), &sink, &cancelled),
            Err(Error::Cancelled)
        ));
        assert_eq!(snapshot(dir.path()), before);
    }
}

#[test]
fn spoilt_blobs_are_refused() {
    let (_dir, folder, image) = written();
    let layer = blob(&folder, image.image.layers()[1].digest);
    let good = fs::read(&layer).unwrap();
    fs::write(&layer, &good[..good.len() - 3]).unwrap();
    refused(&folder, "bytes instead of");
    let mut flipped = good.clone();
    flipped[12] ^= 1;
    fs::write(&layer, &flipped).unwrap();
    refused(&folder, "is corrupt");
    fs::remove_file(&layer).unwrap();
    refused(&folder, "not found");
    symlink("/etc/passwd", &layer).unwrap();
    refused(&folder, "leads out of the image layout");
    fs::remove_file(&layer).unwrap();
    fs::create_dir(&layer).unwrap();
    refused(&folder, "not a regular file");
    fs::remove_dir(&layer).unwrap();
    fs::write(&layer, &good).unwrap();
    for (digest, words) in [
        (image.image.id(), "corrupt"),
        (image.image.manifest_digest(), "corrupt"),
    ] {
        let path = blob(&folder, digest);
        let good = fs::read(&path).unwrap();
        fs::write(&path, [&good[..], b" "].concat()).unwrap();
        refused(&folder, words);
        fs::remove_file(&path).unwrap();
        refused(&folder, "not found");
        fs::write(&path, good).unwrap();
    }
    assert_eq!(read(&folder, None).unwrap(), image.image);
}

#[test]
fn links_within_the_layout_are_followed() {
    let (_dir, folder, image) = written();
    let layer = blob(&folder, image.image.layers()[0].digest);
    fs::rename(&layer, folder.join("elsewhere")).unwrap();
    symlink("../../elsewhere", &layer).unwrap();
    assert_eq!(read(&folder, None).unwrap(), image.image);
}

#[test]
fn nothing_is_written_through_a_link() {
    let (dir, folder, _) = written();
    let elsewhere = dir.path().join("elsewhere");
    fs::rename(folder.join("blobs"), &elsewhere).unwrap();
    symlink(&elsewhere, folder.join("blobs")).unwrap();
    let before = snapshot(dir.path());
    let other = MemoryImage::new(&[b"another"], Compression::Gzip);
    let error = write(&other, &folder, "two").unwrap_err().to_string();
    assert!(error.contains("link"), "{error}");
    assert_eq!(snapshot(dir.path()), before);
}

#[test]
fn spoilt_documents_are_refused() {
    let (_dir, folder, _) = written();
    for (content, words) in [
        (b"{}".to_vec(), "imageLayoutVersion"),
        (br#"{"imageLayoutVersion":"2.0.0"}"#.to_vec(), "version"),
        (b"not json".to_vec(), "does not parse"),
    ] {
        let path = folder.join("oci-layout");
        let good = fs::read(&path).unwrap();
        fs::write(&path, content).unwrap();
        refused(&folder, words);
        fs::write(&path, good).unwrap();
    }
    let index = folder.join("index.json");
    let bomb = [vec![b'['; 200_000], vec![b']'; 200_000]].concat();
    let deep = format!(
        r#"{{"schemaVersion":2,"manifests":{}1{}}}"#,
        "[".repeat(5000),
        "]".repeat(5000)
    );
    for (content, words) in [
        (b"".to_vec(), "does not parse"),
        (b"not json".to_vec(), "does not parse"),
        (bomb, "does not parse"),
        (deep.into_bytes(), "does not parse"),
        (vec![b' '; MAX_DOCUMENT as usize + 1], "larger than"),
        (
            br#"{"schemaVersion":2,"manifests":[]}"#.to_vec(),
            "names no image",
        ),
    ] {
        fs::write(&index, content).unwrap();
        refused(&folder, words);
    }
    fs::remove_file(&index).unwrap();
    refused(&folder, "index.json");
    let sized = File::create(&index).unwrap();
    sized.set_len(1 << 40).unwrap();
    refused_big(&folder);
}

/// As [`refused`], without reading the terabyte.
fn refused_big(folder: &Path) {
    let error = LayoutFolder::open(folder, None, Platform::host())
        .unwrap_err()
        .to_string();
    assert!(error.contains("larger than"), "{error}");
}

/// Puts a document into the layout as a blob, and an index of it.
fn put_manifest(folder: &Path, media_type: &str, document: &Value) {
    let bytes = document.to_string().into_bytes();
    let digest = Digest::of(&bytes);
    fs::write(blob(folder, digest), &bytes).unwrap();
    put_index(
        folder,
        json!([{"mediaType": media_type, "digest": digest.to_string(), "size": bytes.len()}]),
    );
}

fn put_index(folder: &Path, manifests: Value) {
    let index = json!({"schemaVersion": 2, "manifests": manifests});
    fs::write(folder.join("index.json"), index.to_string()).unwrap();
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

#[test]
fn odd_manifests_are_refused() {
    let (_dir, folder, image) = written();
    let good: Value = serde_json::from_slice(image.image.manifest()).unwrap();
    let spoilt = |pointer: &str, value: Value| {
        let mut manifest = good.clone();
        *manifest.pointer_mut(pointer).unwrap() = value;
        put_manifest(&folder, MANIFEST, &manifest);
    };
    for (pointer, value, words) in [
        ("/layers/0/mediaType", json!("text/plain"), "media type"),
        (
            "/config/mediaType",
            json!("application/x-helm"),
            "container image",
        ),
        ("/layers/0/size", json!(u64::MAX), "absurd"),
        ("/layers/0/size", json!(-1), "does not parse"),
        ("/layers/0/size", json!(1_u64 << 60), "bytes instead of"),
        ("/layers/0/size", json!(5), "bytes instead of"),
        ("/config/size", json!(1_u64 << 40), "more than"),
        ("/config/size", json!(1), "more than the 1 bytes"),
        ("/layers/0/digest", json!("sha512:00"), ""),
        ("/layers/0/digest", json!("sha256:../../etc"), ""),
        ("/layers", json!([]), "layers"),
        ("/schemaVersion", json!(1), "schema 1"),
    ] {
        spoilt(pointer, value);
        refused(&folder, words);
    }
    put_manifest(
        &folder,
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
        &good,
    );
    refused(&folder, "schema 1");
    put_manifest(&folder, "application/x-unknown", &good);
    refused(&folder, "unknown media type");
}

#[test]
fn this_machines_platform_is_taken_out_of_an_index() {
    let (_dir, folder, image) = written();
    let platform = Platform::host().to_string();
    let mut parts = platform.split('/');
    let (os, architecture) = (parts.next().unwrap(), parts.next().unwrap());
    let of = |architecture: &str, digest: Digest, size: usize| {
        json!({"mediaType": MANIFEST, "digest": digest.to_string(), "size": size,
               "platform": {"os": os, "architecture": architecture}})
    };
    let own = of(
        architecture,
        image.image.manifest_digest(),
        image.image.manifest().len(),
    );
    let other = of("mips64le", Digest::of(b"absent"), 6);
    let nested = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [other, own]});
    put_manifest(&folder, INDEX, &nested);
    assert_eq!(read(&folder, None).unwrap(), image.image);
    put_index(&folder, json!([other, own]));
    assert_eq!(read(&folder, None).unwrap(), image.image);
    put_index(
        &folder,
        json!([other, of("riscv64", Digest::of(b"absent"), 6)]),
    );
    refused(&folder, "no image for this machine");
}

#[test]
fn indexes_nest_only_so_deep() {
    let (_dir, folder, _) = written();
    let mut inner = json!({"schemaVersion": 2, "manifests": []});
    for _ in 0..8 {
        let bytes = inner.to_string().into_bytes();
        let digest = Digest::of(&bytes);
        fs::write(blob(&folder, digest), &bytes).unwrap();
        inner = json!({"schemaVersion": 2, "manifests": [
            {"mediaType": INDEX, "digest": digest.to_string(), "size": bytes.len()}]});
    }
    fs::write(folder.join("index.json"), inner.to_string()).unwrap();
    refused(&folder, "deep");
}

#[test]
fn a_foreign_index_keeps_what_we_do_not_know() {
    let (_dir, folder, image) = written();
    let path = folder.join("index.json");
    let mut index: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    index["annotations"] = json!({"who": "somebody"});
    index["manifests"][0]["annotations"]["more"] = json!("kept");
    fs::write(&path, index.to_string()).unwrap();
    write(&image, &folder, "two").unwrap();
    let index: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    assert_eq!(index["annotations"]["who"], "somebody");
    assert_eq!(index["manifests"][0]["annotations"]["more"], "kept");
    assert_eq!(index["manifests"].as_array().unwrap().len(), 2);
}
