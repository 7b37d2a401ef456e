//! A daemon on a unix socket that answers as a test wants.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::super::client::{Daemon, Inspected};
use super::super::endpoint::Endpoint;

/// Takes a request with its path; true when it answered.
type Handler = dyn Fn(&str, &mut Exchange) -> bool + Send + Sync;

pub(super) struct Fake {
    folder: tempfile::TempDir,
    gone: Arc<AtomicBool>,
}

/// One request, its body still to be read.
pub(super) struct Exchange {
    reader: BufReader<UnixStream>,
}

impl Exchange {
    /// Reads the next chunk of the body; empty at the end.
    pub(super) fn chunk(&mut self) -> io::Result<Vec<u8>> {
        let mut line = String::new();
        self.reader.read_line(&mut line)?;
        let size = usize::from_str_radix(line.trim(), 16)
            .map_err(|_| io::Error::from(io::ErrorKind::UnexpectedEof))?;
        let mut data = vec![0; size + 2];
        self.reader.read_exact(&mut data)?;
        data.truncate(size);
        Ok(data)
    }

    /// Reads the whole body.
    pub(super) fn body(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let chunk = self.chunk()?;
            if chunk.is_empty() {
                return Ok(body);
            }
            body.extend(chunk);
        }
    }

    pub(super) fn raw(&mut self, data: &[u8]) {
        // The other side may be gone: what some tests are about.
        let _ = self.try_raw(data);
    }

    /// The same, and tells when the other side is gone.
    pub(super) fn try_raw(&mut self, data: &[u8]) -> io::Result<()> {
        self.reader.get_mut().write_all(data)
    }

    pub(super) fn answer(&mut self, status: &str, body: &str) {
        let head = format!(
            "HTTP/1.1 {status}\r\nApi-Version: 1.41\r\nContent-Type: application/json\r\n\
             Connection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        self.raw(head.as_bytes());
    }

    /// Blocks until the other side closes.
    pub(super) fn wait_for_close(&mut self) {
        let _ = io::copy(&mut self.reader, &mut io::sink());
    }
}

impl Fake {
    /// Starts a daemon that tells `image` of every image it is asked for. Requests that `handler`
    /// leaves alone are answered as a good daemon would.
    pub(super) fn start(
        image: Inspected,
        handler: impl Fn(&str, &mut Exchange) -> bool + Send + Sync + 'static,
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("d.sock")).unwrap();
        let gone = Arc::new(AtomicBool::new(false));
        let handler: Arc<Handler> = Arc::new(handler);
        let ended = Arc::clone(&gone);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if ended.load(Ordering::Acquire) {
                    return;
                }
                let (handler, image) = (Arc::clone(&handler), image.clone());
                let stream = stream.unwrap();
                std::thread::spawn(move || serve(stream, &image, &*handler));
            }
        });
        Self { folder, gone }
    }

    pub(super) fn endpoint(&self) -> Endpoint {
        Endpoint::Unix(self.folder.path().join("d.sock"))
    }

    pub(super) fn daemon(&self) -> Daemon {
        Daemon::connect(self.endpoint()).unwrap()
    }

    /// Takes no more connections.
    pub(super) fn vanish(&self) {
        self.gone.store(true, Ordering::Release);
        let path = self.folder.path().join("d.sock");
        let _ = UnixStream::connect(&path);
        std::fs::remove_file(path).unwrap();
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.gone.store(true, Ordering::Release);
        let _ = UnixStream::connect(self.folder.path().join("d.sock"));
    }
}

fn serve(stream: UnixStream, image: &Inspected, handler: &Handler) {
    let mut exchange = Exchange {
        reader: BufReader::new(stream),
    };
    let mut request = String::new();
    if exchange.reader.read_line(&mut request).is_err() {
        return;
    }
    let mut line = String::new();
    while exchange.reader.read_line(&mut line).is_ok_and(|n| n > 2) {
        line.clear();
    }
    let path = request.split(' ').nth(1).unwrap_or("").to_owned();
    let path = path.strip_prefix("/v1.41").unwrap_or(&path);
    if handler(path, &mut exchange) {
        return;
    }
    match path {
        "/_ping" => exchange.answer("200 OK", "OK"),
        "/info" => exchange.answer(
            "200 OK",
            r#"{"ServerVersion":"20.10.24","Driver":"overlay2"}"#,
        ),
        "/images/load?quiet=true" => {
            if exchange.body().is_ok() {
                exchange.answer("200 OK", "{\"stream\":\"Loaded image: bb:latest\\n\"}\n");
            }
        }
        path if path.starts_with("/images/json") => exchange.answer("200 OK", "[]"),
        path if path.ends_with("/json") => {
            let json = serde_json::json!({
                "Id": image.id,
                "RepoTags": image.tags,
                "Size": image.size,
                "RootFS": {"Type": "layers", "Layers": image.diff_ids},
            });
            exchange.answer("200 OK", &json.to_string());
        }
        _ => exchange.answer("404 Not Found", r#"{"message":"page not found"}"#),
    }
}
