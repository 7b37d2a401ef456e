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
use std::io::{self, Read as _, Seek as _, SeekFrom, Write};
use std::path::Path;

use super::Error;
use super::beneath::{Folder, copy};
use super::tar_split::{Part, TarSplit, is_beneath};
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

    /// The layer that is the topmost of this chain ID: all of its tar, or its entries without the content of files.
    pub fn layer(&self, chain_id: &Digest, take: Take) -> Result<Layer, Error> {
        let what = format!("layer {chain_id}");
        let path = format!("{}/tar-split.json.gz", notes(chain_id));
        let (mut tar_split, _) = self.root.file(path.as_bytes()).map_err(missing(&what))?;
        let bytes = length(&tar_split, take)?;
        tar_split.rewind().map_err(Error::read(&path))?;
        Ok(Layer {
            content: self.content(chain_id)?,
            tar_split,
            bytes,
            take,
        })
    }

    /// `length` bytes of one file of a layer from `offset` on, or fewer where it ends.
    pub fn file(
        &self,
        chain_id: &Digest,
        path: &[u8],
        offset: u64,
        length: u64,
    ) -> Result<Stretch, Error> {
        let what = String::from_utf8_lossy(path).into_owned();
        if !is_beneath(path) {
            return Err(Error::invalid("a path", format!("it is {what:?}")));
        }
        let content = self.content(chain_id)?;
        let (mut file, size) = content.file(path).map_err(missing(&what))?;
        let bytes = size.saturating_sub(offset).min(length);
        file.seek(SeekFrom::Start(offset.min(size)))
            .map_err(Error::read(&what))?;
        Ok(Stretch { file, bytes, what })
    }

    /// The folder in which a layer is unpacked.
    fn content(&self, chain_id: &Digest) -> Result<Folder, Error> {
        let what = format!("layer {chain_id}");
        let path = format!("{}/cache-id", notes(chain_id));
        let cache_id = self.document(&path, MAX_CACHE_ID, &what)?;
        let cache_id = String::from_utf8_lossy(&cache_id);
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '-';
        if cache_id.is_empty() || !cache_id.chars().all(is_name) {
            let why = format!("it names the folder {cache_id:?}");
            return Err(Error::invalid("cache-id", why));
        }
        let path = format!("overlay2/{cache_id}/diff");
        self.root.folder(&path).map_err(missing(&what))
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

/// Where docker's notes about a layer are.
fn notes(chain_id: &Digest) -> String {
    format!("image/overlay2/layerdb/sha256/{}", chain_id.hex())
}

/// The length of what is taken of the tar that is noted in `tar_split`.
fn length(tar_split: &File, take: Take) -> Result<u64, Error> {
    let mut parts = TarSplit::gzip(tar_split);
    let mut bytes: u64 = 0;
    while let Some(part) = parts.next_part()? {
        let more = match part {
            Part::Segment(segment) => segment.len(),
            Part::File { size, .. } if take == Take::All => size,
            Part::File { .. } | Part::Empty => 0,
        };
        bytes = bytes
            .checked_add(more)
            .ok_or_else(|| Error::invalid("tar-split.json.gz", "its sizes overflow"))?;
    }
    Ok(bytes)
}

/// What is taken of a layer's tar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Take {
    /// All of it.
    All,
    /// Its entries without the content of files.
    Entries,
}

/// One layer, opened.
#[derive(Debug)]
pub struct Layer {
    content: Folder,
    tar_split: File,
    bytes: u64,
    take: Take,
}

/// A part of a file, opened.
#[derive(Debug)]
pub struct Stretch {
    file: File,
    bytes: u64,
    what: String,
}

impl Stretch {
    /// Its length.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Writes it.
    pub fn write_to(mut self, out: &mut dyn Write) -> Result<(), Error> {
        let mut buffer = Vec::new();
        copy(&mut self.file, self.bytes, &self.what, &mut buffer, out)?;
        out.flush().map_err(Error::Send)
    }
}

impl Layer {
    /// Length of what is taken.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Writes what is taken.
    pub fn write_to(self, out: &mut dyn Write) -> Result<(), Error> {
        let mut parts = TarSplit::gzip(&self.tar_split);
        let mut buffer = Vec::new();
        let mut written = 0;
        while let Some(part) = parts.next_part()? {
            match part {
                Part::Empty => {}
                Part::File { .. } if self.take == Take::Entries => {}
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
