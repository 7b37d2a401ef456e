//! Archives and layouts that are broken, or lie.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::process::Command;

use serde_json::json;
use tar::Header;

use crate::Bed;
use crate::image::{Image, LAYER, digest, file_layer, gzip, hex};

#[test]
fn archives_that_are_truncated_or_corrupt() {
    let bed = Bed::new();
    let image = Image::new(&[file_layer("a", &[1; 3000]), file_layer("b", &[2; 5000])]);
    let path = bed.at("bad.tar");
    image.archive(&path);
    let good = fs::read(&path).unwrap();
    let spoil = |bytes: &[u8], words: &str| {
        fs::write(&path, bytes).unwrap();
        bed.refuses("docker-archive:bad.tar", words);
    };
    for cut in [1, 511, 512, 700, 5000, 8000, 12_000, good.len() - 2600] {
        spoil(&good[..cut.min(good.len())], "truncated");
    }
    spoil(b"", "no tar archive");
    spoil(b"PK\x03\x04 a zip", "truncated");
    spoil(&[b'x'; 9999], "not a tar archive");
    let mut flipped = good.clone();
    flipped[2000] ^= 1;
    spoil(&flipped, "corrupt");
    let packed = gzip(&good, &bed.at(""));
    spoil(&packed[..packed.len() / 2], "truncated");
    let mut flipped = packed.clone();
    flipped[packed.len() / 2] ^= 0x55;
    spoil(&flipped, "corrupt");
    bed.refuses("docker-archive:none.tar", "not found");
    bed.refuses("docker-archive:good", "looks like oci");
    fs::write(bed.at("blank"), "neither").unwrap();
    bed.refuses("oci:blank", "not a folder");
    bed.refuses("docker-archive:blank", "truncated");
    bed.refuses("oci:none", "not found");
    bed.end();
}

#[test]
fn manifests_of_archives_that_lie() {
    let bed = Bed::new();
    let path = bed.at("bad.tar");
    let config = Image::new(&[file_layer("a", b"a")]).config;
    let spoil = |manifest: &str, words: &str| {
        let mut tar = tar::Builder::new(File::create(&path).unwrap());
        for (name, content) in [
            ("c.json", config.as_slice()),
            ("layer.tar", &file_layer("other", b"other")),
            ("manifest.json", manifest.as_bytes()),
        ] {
            let mut header = Header::new_gnu();
            header.set_size(content.len() as u64);
            tar.append_data(&mut header, name, content).unwrap();
        }
        tar.finish().unwrap();
        bed.refuses("docker-archive:bad.tar", words);
    };
    let of = |config: &str, layers: &[&str]| {
        json!([{"Config": config, "RepoTags": null, "Layers": layers}]).to_string()
    };
    spoil("", "does not parse");
    spoil("[]", "no image");
    spoil(&"[".repeat(100_000), "does not parse");
    spoil(&of("none.json", &["layer.tar"]), "lacks");
    spoil(&of("c.json", &["none.tar"]), "lacks");
    spoil(
        &of("c.json", &["../../../etc/passwd"]),
        "out of the archive",
    );
    spoil(&of("c.json", &["/etc/passwd"]), "lacks");
    spoil(&of("c.json", &[&"x".repeat(4096)]), "lacks");
    spoil(&of("c.json", &[]), "lists 0 layers");
    spoil(&of("layer.tar", &["layer.tar"]), "does not parse");
    // The layer is another than the config says.
    spoil(&of("c.json", &["layer.tar"]), "corrupt");
    bed.end();
}

#[test]
fn manifests_of_layouts_that_lie() {
    let bed = Bed::new();
    let image = Image::new(&[file_layer("a", b"a"), file_layer("b", b"b")]);
    for (pointer, value, words) in [
        ("/layers/0/digest", json!(digest(b"absent")), "not found"),
        ("/layers/0/size", json!(1), "bytes instead of"),
        ("/config/digest", json!(digest(b"absent")), "not found"),
        (
            "/layers/0/digest",
            json!("sha256:../../../../etc/passwd"),
            "does not parse",
        ),
        ("/layers/0/digest", json!("md5:00"), "only sha256"),
        ("/layers/0/size", json!(3), "bytes instead of"),
        ("/layers/0/size", json!(1_u64 << 50), "bytes instead of"),
        ("/layers/0/size", json!(u64::MAX), "absurd"),
        ("/layers/0/size", json!(-5), "does not parse"),
        ("/layers/0/size", json!("big"), "does not parse"),
        ("/config/size", json!(1_u64 << 50), "more than"),
        ("/config/size", json!(0), "more than the 0 bytes"),
        (
            "/layers/0/mediaType",
            json!("application/x-unknown"),
            "media type",
        ),
        (
            "/config/mediaType",
            json!("application/x-unknown"),
            "config is of type application/x-unknown",
        ),
        ("/schemaVersion", json!(1), "schema 1"),
        ("/layers", json!([]), "layers"),
        ("/layers", json!(null), "lists 0 layers"),
    ] {
        bed.refuses_image(&image.but(pointer, value), words);
    }
    let mut unknown = image.clone();
    unknown.media_type = "application/x-unknown".to_owned();
    bed.refuses_image(&unknown, "unknown media type");
    unknown.media_type = "application/vnd.docker.distribution.manifest.v1+prettyjws".to_owned();
    bed.refuses_image(&unknown, "schema 1");
    bed.end();
}

#[test]
fn blobs_of_layouts_that_lie() {
    let bed = Bed::new();
    let plain = file_layer("a", &[9; 4000]);
    let image = Image::new(std::slice::from_ref(&plain));
    let folder = bed.at("bad-layout");
    image.write(&folder);
    let blob = folder.join("blobs/sha256").join(hex(&plain));
    let mut flipped = plain.clone();
    flipped[1000] ^= 1;
    for bytes in [
        &flipped[..],
        &plain[..100],
        &[&plain[..], b"x"].concat(),
        b"",
    ] {
        fs::write(&blob, bytes).unwrap();
        bed.refuses("oci:bad-layout", "corrupt");
    }
    fs::remove_file(&blob).unwrap();
    bed.refuses("oci:bad-layout", "not found");
    let secret = bed.at("secret");
    fs::write(&secret, &plain).unwrap();
    symlink(&secret, &blob).unwrap();
    bed.refuses("oci:bad-layout", "leads out");
    fs::remove_file(&blob).unwrap();
    let fifo = Command::new("mkfifo").arg(&blob).status().unwrap();
    assert!(fifo.success());
    bed.refuses("oci:bad-layout", "not a regular file");
    // What the config promises of the layer's content is not so.
    let other = digest(b"another layer");
    let packed = gzip(&plain, &bed.at(""));
    bed.refuses_image(
        &Image::of(&[(packed.clone(), other.clone())], &format!("{LAYER}+gzip")),
        "corrupt",
    );
    bed.refuses_image(&Image::of(&[(plain, other)], LAYER), "corrupt");
    let cut = packed[..packed.len() - 9].to_vec();
    let cut = Image::of(
        &[(cut, digest(&file_layer("a", &[9; 4000])))],
        &format!("{LAYER}+gzip"),
    );
    bed.refuses_image(&cut, &digest(&packed[..packed.len() - 9]));
    bed.end();
}

#[test]
fn documents_of_layouts_that_are_none() {
    let bed = Bed::new();
    let folder = bed.at("bad-layout");
    Image::new(&[file_layer("a", b"a")]).write(&folder);
    let index = folder.join("index.json");
    let good = fs::read(&index).unwrap();
    for (text, words) in [
        ("", "does not parse"),
        ("{", "does not parse"),
        ("null", "does not parse"),
        ("<html>", "does not parse"),
        (r#"{"schemaVersion":2,"manifests":[]}"#, "names no image"),
        (&"[".repeat(1_000_000), "does not parse"),
        (
            &format!("{}{}", r#"{"a":"#.repeat(50_000), "}".repeat(50_000)),
            "does not parse",
        ),
    ] {
        fs::write(&index, text).unwrap();
        bed.refuses("oci:bad-layout", words);
    }
    File::create(&index).unwrap().set_len(1 << 40).unwrap();
    bed.refuses("oci:bad-layout", "larger than");
    fs::remove_file(&index).unwrap();
    bed.refuses("oci:bad-layout", "index.json");
    fs::write(&index, good).unwrap();
    for (text, words) in [
        ("", "does not parse"),
        (r#"{"imageLayoutVersion":"9.0"}"#, "version"),
        (r#"{"imageLayoutVersion":7}"#, "does not parse"),
    ] {
        fs::write(folder.join("oci-layout"), text).unwrap();
        bed.refuses("oci:bad-layout", words);
    }
    bed.end();
}
