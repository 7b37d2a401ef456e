//! The services that send content: images' configs, layers, and blobs.
//!
//! Data path: docker's files → a thread that puts the bytes together ([`pcocc_guest::layers`]) → a bounded channel → the
//! client's connection. If the thread cannot go on, the connection ends before the last byte, and the console says why.

use std::io::{self, Write};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pcocc_guest::layers::{ContentStore, Error, GraphDriver, Layer, Take};
use pcocc_guest::protocol::Digest;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_blocking};

/// dockerd's root, as its settings name it.
const DOCKER_ROOT: &str = "/data/docker";

/// containerd's root, as its settings name it.
const CONTAINERD_ROOT: &str = "/data/containerd";

/// Bytes of a chunk, and chunks between the thread and the connection.
const CHUNK: usize = 128 << 10;
const DEPTH: usize = 8;

/// Content on its way.
#[derive(Debug)]
pub(crate) struct Content {
    /// Number of all bytes.
    pub(crate) bytes: u64,
    /// The bytes.
    pub(crate) chunks: mpsc::Receiver<Vec<u8>>,
    /// How it ended.
    pub(crate) sent: JoinHandle<Result<(), Error>>,
}

/// The config of an image.
pub(crate) async fn config(id: Digest) -> Result<Content, String> {
    let found = blocking(move || docker()?.config(&id)).await?;
    let bytes = found.len() as u64;
    Ok(sending(bytes, move |out| {
        out.write_all(&found).map_err(Error::Send)
    }))
}

/// The tar of a layer, or what is taken of it.
pub(crate) async fn layer(chain_id: Digest, take: Take) -> Result<Content, String> {
    let found: Layer = blocking(move || docker()?.layer(&chain_id, take)).await?;
    let bytes = found.bytes();
    Ok(sending(bytes, move |out| found.write_to(out)))
}

/// A part of a file of a layer; `path` is base64.
pub(crate) async fn file(
    chain_id: Digest,
    path: String,
    offset: u64,
    length: u64,
) -> Result<Content, String> {
    let path = STANDARD
        .decode(path)
        .map_err(|error| format!("does not understand the path: {error}"))?;
    let find = move || docker()?.file(&chain_id, &path, offset, length);
    let found = blocking(find).await?;
    let bytes = found.bytes();
    Ok(sending(bytes, move |out| found.write_to(out)))
}

/// A blob of containerd's.
pub(crate) async fn blob(digest: Digest) -> Result<Content, String> {
    let find = move || ContentStore::open(Path::new(CONTAINERD_ROOT))?.blob(&digest);
    let found = blocking(find).await?;
    let bytes = found.bytes();
    Ok(sending(bytes, move |out| found.write_to(out)))
}

fn docker() -> Result<GraphDriver, Error> {
    GraphDriver::open(Path::new(DOCKER_ROOT))
}

async fn blocking<T: Send + 'static>(
    find: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, String> {
    match spawn_blocking(find).await {
        Ok(found) => found.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    }
}

fn sending(
    bytes: u64,
    send: impl FnOnce(&mut dyn Write) -> Result<(), Error> + Send + 'static,
) -> Content {
    let (sender, chunks) = mpsc::channel(DEPTH);
    let sent = spawn_blocking(move || {
        let mut out = Chunks {
            sender,
            chunk: Vec::new(),
        };
        send(&mut out)?;
        out.flush().map_err(Error::Send)
    });
    Content {
        bytes,
        chunks,
        sent,
    }
}

/// Sends what is written, in chunks.
struct Chunks {
    sender: mpsc::Sender<Vec<u8>>,
    chunk: Vec<u8>,
}

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.chunk.is_empty() {
            self.chunk.reserve_exact(CHUNK);
        }
        let room = CHUNK.saturating_sub(self.chunk.len());
        let taken = bytes.get(..room).unwrap_or(bytes);
        self.chunk.extend_from_slice(taken);
        if self.chunk.len() >= CHUNK {
            self.flush()?;
        }
        Ok(taken.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let chunk = std::mem::take(&mut self.chunk);
        match chunk.is_empty() {
            true => Ok(()),
            // Fails once the client is gone.
            false => self
                .sender
                .blocking_send(chunk)
                .map_err(|_| io::ErrorKind::BrokenPipe.into()),
        }
    }
}
