//! Images of docker's classic store with the graph driver overlay2.
//!
//! On disk, below docker's root:
//!
//! ```text
//! image/overlay2/imagedb/content/sha256/IMAGE-ID                  config, verbatim
//! image/overlay2/layerdb/sha256/CHAIN-ID/cache-id                 name of the layer's folder
//! image/overlay2/layerdb/sha256/CHAIN-ID/tar-split.json.gz        the tar without the content of files
//! overlay2/CACHE-ID/diff/                                         what was in the tar
//! ```

use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write};
use std::path::Path;

use super::Error;
use super::beneath::{Folder, copy};
use super::tar_split::{Part, TarSplit};
use crate::protocol::Digest;

/// Largest config that is read, in bytes.
const MAX_CONFIG: u64 = 8 << 20;

/// Longest name of a layer's folder; docker's have 64 characters.
const MAX_CACHE_ID: u64 = 128;

/// The store of a docker daemon.
#[derive(Debug)]
pub struct GraphDriver {
    root: Folder,
}

impl GraphDriver {
    /// Opens the store below docker's root.
    pub fn open(root: &Path) -> Result<Self, Error> {
        let root = Folder::open(root).map_err(Error::read("docker's root"))?;
        Ok(Self { root })
    }

    /// The config of the image with this ID, as it was.
    pub fn config(&self, id: &Digest) -> Result<Vec<u8>, Error> {
        let path = format!("image/overlay2/imagedb/content/sha256/{}", id.hex());
        self.document(&path, MAX_CONFIG, &format!("image {id}"))
    }

    /// The layer that is the topmost of this chain ID.
    pub fn layer(&self, chain_id: &Digest) -> Result<Layer, Error> {
        let what = format!("layer {chain_id}");
        let notes = format!("image/overlay2/layerdb/sha256/{}", chain_id.hex());
        let cache_id = self.document(&format!("{notes}/cache-id"), MAX_CACHE_ID, &what)?;
        let cache_id = String::from_utf8_lossy(&cache_id);
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '-';
        if cache_id.is_empty() || !cache_id.chars().all(is_name) {
            let why = format!("it names the folder {cache_id:?}");
            return Err(Error::invalid("cache-id", why));
        }
        let path = format!("{notes}/tar-split.json.gz");
        let (mut tar_split, _) = self.root.file(path.as_bytes()).map_err(missing(&what))?;
        let bytes = length(&tar_split)?;
        tar_split.rewind().map_err(Error::read(&path))?;
        let path = format!("overlay2/{cache_id}/diff");
        Ok(Layer {
            content: self.root.folder(&path).map_err(missing(&what))?,
            tar_split,
            bytes,
        })
    }

    fn document(&self, path: &str, most: u64, what: &str) -> Result<Vec<u8>, Error> {
        let (file, size) = self.root.file(path.as_bytes()).map_err(missing(what))?;
        if size > most {
            return Err(Error::invalid(path, format!("it has {size} bytes")));
        }
        let mut content = Vec::new();
        file.take(most)
            .read_to_end(&mut content)
            .map_err(Error::read(path))?;
        Ok(content)
    }
}

fn missing(what: &str) -> impl FnOnce(io::Error) -> Error {
    Error::find(what, "overlay2")
}

/// The length of the tar that is noted in `tar_split`.
fn length(tar_split: &File) -> Result<u64, Error> {
    let mut parts = TarSplit::gzip(tar_split);
    let mut bytes: u64 = 0;
    while let Some(part) = parts.next_part()? {
        let more = match part {
            Part::Segment(segment) => segment.len(),
            Part::File { size, .. } => size,
            Part::Empty => 0,
        };
        bytes = bytes
            .checked_add(more)
            .ok_or_else(|| Error::invalid("tar-split.json.gz", "its sizes overflow"))?;
    }
    Ok(bytes)
}

/// One layer, opened.
#[derive(Debug)]
pub struct Layer {
    content: Folder,
    tar_split: File,
    bytes: u64,
}

impl Layer {
    /// Length of the tar.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Writes the tar.
    pub fn write_to(self, out: &mut dyn Write) -> Result<(), Error> {
        let mut parts = TarSplit::gzip(&self.tar_split);
        let mut buffer = Vec::new();
        let mut written = 0;
        while let Some(part) = parts.next_part()? {
            match part {
                Part::Empty => {}
                Part::Segment(segment) => {
                    buffer.clear();
                    segment.decode(&mut buffer)?;
                    out.write_all(&buffer).map_err(Error::Send)?;
                    written += buffer.len() as u64;
                }
                Part::File { name, size } => {
                    self.write_file(&name, size, &mut buffer, out)?;
                    written += size;
                }
            }
        }
        match written == self.bytes {
            true => out.flush().map_err(Error::Send),
            false => Err(Error::invalid(
                "tar-split.json.gz",
                "it has other lengths than it seemed",
            )),
        }
    }

    fn write_file(
        &self,
        name: &[u8],
        size: u64,
        buffer: &mut Vec<u8>,
        out: &mut dyn Write,
    ) -> Result<(), Error> {
        let shown = String::from_utf8_lossy(name);
        let (mut file, found) = self.content.file(name).map_err(Error::read(&shown))?;
        if found != size {
            let why = format!("it has {found} bytes instead of {size}");
            return Err(Error::invalid(&shown, why));
        }
        copy(&mut file, size, &shown, buffer, out)
    }
}
