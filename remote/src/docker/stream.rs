//! Archives between a daemon and blocking code, through bounded channels.
//!
//! A task on the daemon's runtime moves the bytes. It watches the daemon's signs of life, the [`Cancel`] flag,
//! and the blocking side's end. When either side is dropped, the connection closes, and the daemon discards its
//! part.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bollard::query_parameters::ImportImageOptionsBuilder;
use bytes::{Buf, Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use pcocc_core::cancel::Cancel;
use tokio::sync::{mpsc, oneshot};

use super::client::Daemon;
use super::link::{TRANSFER, cancelled, one_line};
use pcocc_image::{Error, Result};

/// Chunks between the task and the blocking side.
const DEPTH: usize = 32;

/// Size of the chunks of an upload.
const CHUNK: usize = 128 << 10;

/// Bytes that arrive: the archive of one image, or a layer.
#[derive(Debug)]
pub(super) struct Arriving {
    chunks: mpsc::Receiver<Result<Bytes>>,
    current: Bytes,
}

impl Arriving {
    /// Reads `body` in a task, until `cancel` is raised, `daemon` gives no more signs of life, or nobody wants the bytes.
    pub(super) fn new(
        daemon: &Daemon,
        body: impl Stream<Item = Result<Bytes>> + Send + 'static,
        cancel: &Cancel,
    ) -> Result<Self> {
        let (sender, chunks) = mpsc::channel(DEPTH);
        let link = Arc::clone(daemon.link());
        let cancel = cancel.clone();
        daemon.runtime()?.spawn(async move {
            let mut body = Box::pin(body);
            loop {
                let chunk = tokio::select! {
                    chunk = body.next() => match chunk {
                        Some(chunk) => chunk,
                        None => return,
                    },
                    error = link.silence(TRANSFER) => Err(error),
                    error = cancelled(&cancel) => Err(error),
                    () = sender.closed() => return,
                };
                let failed = chunk.is_err();
                if sender.send(chunk).await.is_err() || failed {
                    return;
                }
            }
        });
        Ok(Self {
            chunks,
            current: Bytes::new(),
        })
    }

    /// Requests the archive of the image `id` from `daemon`; the user knows the image as `name`.
    pub(super) fn saved(daemon: &Daemon, id: &str, name: &str, cancel: &Cancel) -> Result<Self> {
        let link = Arc::clone(daemon.link());
        let action = format!("save image {name}");
        let body = daemon.docker().export_image(id);
        let body = body.map(move |chunk| chunk.map_err(|error| link.explain(&action, error)));
        Self::new(daemon, body, cancel)
    }
}

impl Read for Arriving {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.chunks.blocking_recv() {
                Some(chunk) => self.current = chunk?,
                None => return Ok(0),
            }
        }
        let n = buf.len().min(self.current.len());
        self.current.copy_to_slice(&mut buf[..n]);
        Ok(n)
    }
}

/// As `cancelled`, but only before `complete` is set; then it waits for ever. `complete` means that all of the
/// archive was sent: the daemon loads such an archive in any case, so its answer is worth more than an early
/// end.
async fn cancelled_before(complete: &AtomicBool, cancel: &Cancel) -> Error {
    let error = cancelled(cancel).await;
    if complete.load(Ordering::Acquire) {
        return std::future::pending().await;
    }
    error
}

/// An archive that is sent to a daemon. Dropping it before [`LoadStream::finish`] breaks the request off.
#[derive(Debug)]
pub(super) struct LoadStream {
    chunks: mpsc::Sender<Part>,
    buffer: BytesMut,
    answer: oneshot::Receiver<Result<()>>,
    early: Option<Result<()>>,
    // Keeps the runtime alive.
    daemon: Daemon,
}

#[derive(Debug)]
enum Part {
    Data(Bytes),
    End,
}

impl LoadStream {
    /// Starts `docker load`; `name` is the user's name for the image.
    pub(super) fn open(daemon: &Daemon, name: &str, cancel: &Cancel) -> Result<Self> {
        let (chunks, parts) = mpsc::channel(DEPTH);
        let (sender, answer) = oneshot::channel();
        let link = Arc::clone(daemon.link());
        let docker = daemon.docker().clone();
        let action = format!("load image {name}");
        let cancel = cancel.clone();
        let complete = Arc::new(AtomicBool::new(false));
        let is_complete = Arc::clone(&complete);
        // A chunked body is complete only with `End`: a channel that closes without it breaks the request off.
        let body =
            futures_util::stream::unfold((Some(parts), complete), |(parts, complete)| async {
                let mut parts = parts?;
                match parts.recv().await {
                    Some(Part::Data(data)) => Some((Ok(data), (Some(parts), complete))),
                    Some(Part::End) => {
                        complete.store(true, Ordering::Release);
                        None
                    }
                    None => {
                        let given_up = io::Error::other("the transfer was given up");
                        Some((Err(given_up), (None, complete)))
                    }
                }
            });
        daemon.runtime()?.spawn(async move {
            let options = ImportImageOptionsBuilder::default().quiet(true).build();
            let mut messages = Box::pin(docker.import_image_stream(options, body, None));
            let mut outcome = Ok(());
            loop {
                let message = tokio::select! {
                    message = messages.next() => message,
                    error = link.silence(TRANSFER) => { outcome = Err(error); None }
                    error = cancelled_before(&is_complete, &cancel) => { outcome = Err(error); None }
                };
                match message {
                    Some(Ok(message)) => {
                        let text = message.stream.or(message.status).unwrap_or_default();
                        tracing::debug!(text, "docker load");
                        // Some daemons report a failed unpack only as text.
                        if text.contains("Error unpacking image") && outcome.is_ok() {
                            outcome = Err(Error::Daemon {
                                action: action.clone(),
                                message: one_line(&text),
                            });
                        }
                    }
                    // The first error counts; the rest is read as well.
                    Some(Err(error @ bollard::errors::Error::DockerStreamError { .. })) => {
                        if outcome.is_ok() {
                            outcome = Err(link.explain(&action, error));
                        }
                    }
                    Some(Err(error)) => {
                        if outcome.is_ok() {
                            outcome = Err(link.explain(&action, error));
                        }
                        break;
                    }
                    None => break,
                }
            }
            // Nobody listens after a cancelled transfer.
            let _ = sender.send(outcome);
        });
        Ok(Self {
            chunks,
            buffer: BytesMut::with_capacity(CHUNK),
            answer,
            early: None,
            daemon: daemon.clone(),
        })
    }

    /// Ends the archive and waits until the daemon has loaded it.
    pub(super) fn finish(mut self) -> Result<()> {
        let sent = self.push().is_ok() && self.send(Part::End).is_ok();
        let answer = self.outcome();
        match (answer, sent) {
            (Ok(()), false) => Err(Error::Daemon {
                action: "load an image".to_owned(),
                message: "it answered before it had the whole archive".to_owned(),
            }),
            (answer, _) => answer,
        }
    }

    /// The reason why the daemon stopped reading, after a failed write.
    pub(super) fn outcome(self) -> Result<()> {
        drop(self.chunks);
        match self.early {
            Some(answer) => answer,
            None => self.answer.blocking_recv().unwrap_or(Err(Error::Cancelled)),
        }
    }

    fn send(&mut self, part: Part) -> io::Result<()> {
        let broken = || io::Error::from(io::ErrorKind::BrokenPipe);
        if self.early.is_some() {
            return Err(broken());
        }
        let (chunks, answer) = (&self.chunks, &mut self.answer);
        self.early = self.daemon.runtime()?.block_on(async {
            // An answer ends the wait for room: a daemon that has answered may never read on.
            tokio::select! {
                sent = chunks.send(part) => match sent {
                    Ok(()) => None,
                    Err(_) => Some(answer.await.unwrap_or(Err(Error::Cancelled))),
                },
                early = &mut *answer => Some(early.unwrap_or(Err(Error::Cancelled))),
            }
        });
        if self.early.is_some() {
            return Err(broken());
        }
        Ok(())
    }

    fn push(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let data = self.buffer.split().freeze();
        self.buffer.reserve(CHUNK);
        self.send(Part::Data(data))
    }
}

impl Write for LoadStream {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let room = CHUNK - self.buffer.len().min(CHUNK);
        let n = room.min(data.len());
        self.buffer.extend_from_slice(&data[..n]);
        if self.buffer.len() >= CHUNK {
            self.push()?;
        }
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.push()
    }
}
