//! Images in memory, sound and faulty, as sources for the tests of transfers.
#![cfg_attr(
    not(test),
    expect(
        clippy::unwrap_used,
        reason = "a test is to stop at the first surprise"
    )
)]

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Cursor, Read, Write};
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::error::Result;
use crate::oci::{Image, Layer, Platform};
use crate::transfer::{Context, Layout};
use pcocc_layers::{Compression, DiffId, Digest};

/// An image with its layers' blobs.
#[derive(Debug)]
pub struct MemoryImage {
    /// The image.
    pub image: Image,
    /// Its blobs as stored.
    pub blobs: HashMap<Digest, Vec<u8>>,
    /// Layer whose reading fails, and the number of bytes before the failure.
    pub breaks: Option<(usize, u64)>,
}

impl MemoryImage {
    /// Makes an image with one layer for each of `contents`; a layer's tar has one file of that content.
    pub fn new(contents: &[&[u8]], compression: Compression) -> Self {
        let mut blobs = HashMap::new();
        let mut layers = Vec::new();
        for (i, content) in contents.iter().enumerate() {
            let plain = tar_of(&format!("file{i}"), content);
            let diff_id = DiffId(Digest::of(&plain));
            let blob = compress(&plain, compression);
            let digest = Digest::of(&blob);
            layers.push(Layer {
                digest,
                size: blob.len() as u64,
                compression,
                diff_id,
            });
            blobs.insert(digest, blob);
        }
        let image = Image::assemble(config(&layers), layers).unwrap();
        Self {
            image,
            blobs,
            breaks: None,
        }
    }
}

/// A config for these layers, with this machine's platform.
pub fn config(layers: &[Layer]) -> Vec<u8> {
    let platform = Platform::host().to_string();
    let mut parts = platform.split('/');
    let (os, architecture) = (parts.next(), parts.next());
    let diff_ids: Vec<String> = layers.iter().map(|l| l.diff_id.to_string()).collect();
    json!({
        "architecture": architecture, "os": os, "config": {"Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    })
    .to_string()
    .into_bytes()
}

/// A tar of one file.
pub fn tar_of(name: &str, content: &[u8]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(content.len() as u64);
    tar.append_data(&mut header, name, content).unwrap();
    tar.into_inner().unwrap()
}

/// Compresses a plain tar as other programs do.
pub fn compress(plain: &[u8], compression: Compression) -> Vec<u8> {
    match compression {
        Compression::None => plain.to_vec(),
        Compression::Gzip => {
            let mut encoder =
                flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(plain).unwrap();
            encoder.finish().unwrap()
        }
        Compression::Zstd => zstd::encode_all(plain, 1).unwrap(),
    }
}

impl Layout for MemoryImage {
    fn image(&self, _: &Context) -> Result<Image> {
        Ok(self.image.clone())
    }

    fn open_layer<'a>(&'a self, layer: &Layer) -> Result<Box<dyn Read + Send + 'a>> {
        let blob = Cursor::new(&self.blobs[&layer.digest]);
        let place = self.image.layers().iter().position(|l| l == layer);
        match self.breaks {
            Some((broken, after)) if place == Some(broken) => {
                Ok(Box::new(blob.take(after).chain(Broken)))
            }
            _ => Ok(Box::new(blob)),
        }
    }

    fn layer_file(&self, _: &Layer) -> Option<File> {
        None
    }
}

/// Fails on the first read.
struct Broken;

impl Read for Broken {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::Error::other("the source broke"))
    }
}

/// Every path below `folder` with its content, to be compared before and after a failure.
pub fn snapshot(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let kind = std::fs::symlink_metadata(&path).unwrap().file_type();
        if kind.is_dir() {
            found.extend(snapshot(&path));
            found.insert(path, b"folder".to_vec());
        } else if kind.is_file() {
            let content = std::fs::read(&path).unwrap();
            found.insert(path, content);
        } else {
            found.insert(path, b"special".to_vec());
        }
    }
    found
}
