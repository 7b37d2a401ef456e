//! The terminal, or the three streams, of a container.
//!
//! Docker answers `POST /containers/NAME/attach` by taking the connection out of HTTP: bytes written go to the
//! container's standard input, bytes read come from the container. A terminal's bytes come as they are. Without
//! a terminal they come in frames of a stream's number, three zeros, a length (u32, big endian) and the content
//! (Docker Engine API, "Attach to a container"). Two tasks on the daemon's runtime move the bytes through
//! bounded channels.

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use hyper::header::{CONNECTION, UPGRADE};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::mpsc;

use super::client::Daemon;
use super::link::one_line;
use pcocc_image::{Error, Result};

/// Pieces in flight.
const DEPTH: usize = 16;

/// Longest accepted frame; docker's own have 32 KiB.
const MAX_FRAME: usize = 1 << 20;

/// Leaving a container by keys is prevented: the container would run on without its terminal. Docker cannot
/// turn the keys off, so these are four keys that no program asks for in a row.
const DETACH_KEYS: &str = "ctrl-@,ctrl-%5E,ctrl-@,ctrl-%5D";

type Connection = TokioIo<Upgraded>;

/// The streams that a container writes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Its standard output, or its terminal.
    Output,
    /// Its standard error.
    Error,
}

/// What [`Attached::receive`] got in time.
#[derive(Debug)]
pub enum Received {
    /// Bytes of one of the streams.
    Data(Stream, Bytes),
    /// Nothing yet.
    Nothing,
    /// The container closed its streams, usually by ending.
    End,
}

/// The streams of one container, closed when dropped.
#[derive(Debug)]
pub struct Attached {
    output: mpsc::Receiver<Result<(Stream, Bytes)>>,
    input: Input,
    // The tasks run on the daemon's runtime.
    daemon: Daemon,
}

/// A container's standard input. Clones write to the same input.
#[derive(Clone, Debug)]
pub struct Input(mpsc::Sender<Option<Bytes>>);

impl Input {
    /// Writes; `false` when nobody reads any more. Blocks while the container does not read.
    pub fn write(&self, data: &[u8]) -> bool {
        let data = Bytes::copy_from_slice(data);
        self.0.blocking_send(Some(data)).is_ok()
    }

    /// Closes the input.
    pub fn close(&self) {
        // A container that has ended needs no end of input.
        let _ = self.0.blocking_send(None);
    }
}

impl Attached {
    /// The container's input.
    pub fn input(&self) -> Input {
        self.input.clone()
    }

    /// Waits at most `patience` for output of the container.
    pub fn receive(&mut self, patience: Duration) -> Result<Received> {
        let output = &mut self.output;
        let next = self
            .daemon
            .runtime()?
            .block_on(async { tokio::time::timeout(patience, output.recv()).await });
        match next {
            Err(_) => Ok(Received::Nothing),
            Ok(None) => Ok(Received::End),
            Ok(Some(received)) => received.map(|(stream, data)| Received::Data(stream, data)),
        }
    }
}

impl Daemon {
    /// Takes over the streams of a container, preferably before its start.
    pub(super) fn attach(&self, name: &str, terminal: bool) -> Result<Attached> {
        let action = format!("attach to container {name}");
        let path = format!(
            "/containers/{name}/attach?stream=1&stdin=1&stdout=1&stderr=1&detachKeys={DETACH_KEYS}"
        );
        let request = hyper::Request::post(&path)
            .header(CONNECTION, "Upgrade")
            .header(UPGRADE, "tcp")
            .body(bollard::body_full(Bytes::new()))
            .map_err(|error| {
                Error::invalid(format!("docker request {path:?}"), error.to_string())
            })?;
        let connection = self.quick(async {
            let answer = self.link().send(request).await?;
            let status = answer.status();
            if status != hyper::StatusCode::SWITCHING_PROTOCOLS {
                let refused = |message: &str| Error::Daemon {
                    action: action.clone(),
                    message: format!("{status}: {}", one_line(message)),
                };
                let mut body = Box::pin(answer.into_body());
                let next =
                    std::future::poll_fn(|cx| hyper::body::Body::poll_frame(body.as_mut(), cx));
                let frame = next.await.and_then(std::result::Result::ok);
                let words = frame.and_then(|frame| frame.into_data().ok());
                return Err(refused(&String::from_utf8_lossy(
                    &words.unwrap_or_default(),
                )));
            }
            hyper::upgrade::on(answer)
                .await
                .map_err(|error| Error::Unreachable {
                    endpoint: self.endpoint().to_string(),
                    why: format!("broke the connection: {error}"),
                })
        })?;
        let (reader, writer) = tokio::io::split(TokioIo::new(connection));
        let (to_output, output) = mpsc::channel(DEPTH);
        let (to_input, input) = mpsc::channel(DEPTH);
        let endpoint = self.endpoint().to_string();
        let runtime = self.runtime()?;
        runtime.spawn(async move {
            let ended = match terminal {
                true => read_terminal(reader, &to_output).await,
                false => read_frames(reader, &to_output).await,
            };
            if let Err(why) = ended {
                // A session that was given up does not listen.
                let _ = to_output
                    .send(Err(Error::Unreachable { endpoint, why }))
                    .await;
            }
        });
        runtime.spawn(write(writer, input));
        Ok(Attached {
            output,
            input: Input(to_input),
            daemon: self.clone(),
        })
    }
}

type Sender = mpsc::Sender<Result<(Stream, Bytes)>>;

async fn read_terminal(mut reader: ReadHalf<Connection>, to: &Sender) -> Result<(), String> {
    let mut buffer = BytesMut::with_capacity(32 << 10);
    loop {
        buffer.reserve(8 << 10);
        let n = read(&mut reader, &mut buffer, to).await?;
        let data = buffer.split().freeze();
        if n == 0 || to.send(Ok((Stream::Output, data))).await.is_err() {
            return Ok(());
        }
    }
}

async fn read_frames(mut reader: ReadHalf<Connection>, to: &Sender) -> Result<(), String> {
    let mut buffer = BytesMut::with_capacity(32 << 10);
    loop {
        while let Some((stream, data)) = frame(&mut buffer)? {
            if to.send(Ok((stream, data))).await.is_err() {
                return Ok(());
            }
        }
        buffer.reserve(8 << 10);
        if read(&mut reader, &mut buffer, to).await? == 0 {
            return match buffer.is_empty() {
                true => Ok(()),
                false => Err("closed the container's streams in the middle".to_owned()),
            };
        }
    }
}

/// Reads some bytes; none when the stream ends or nobody listens any more.
async fn read(
    reader: &mut ReadHalf<Connection>,
    buffer: &mut BytesMut,
    to: &Sender,
) -> Result<usize, String> {
    tokio::select! {
        read = reader.read_buf(buffer) => {
            read.map_err(|error| format!("broke the connection: {error}"))
        }
        () = to.closed() => Ok(0),
    }
}

/// Takes the first frame off `buffer`, if it is complete.
pub(super) fn frame(buffer: &mut BytesMut) -> Result<Option<(Stream, Bytes)>, String> {
    let Some((header, _)) = buffer.split_first_chunk::<8>() else {
        return Ok(None);
    };
    let [number, _, _, _, length @ ..] = *header;
    let length = u32::from_be_bytes(length) as usize;
    let stream = match number {
        0 | 1 => Stream::Output,
        2 => Stream::Error,
        other => return Err(format!("speaks of a stream {other} that no container has")),
    };
    if length > MAX_FRAME {
        return Err(format!("announces {length} bytes in one piece"));
    }
    if buffer.len() < 8 + length {
        buffer.reserve(8 + length - buffer.len());
        return Ok(None);
    }
    buffer.advance(8);
    Ok(Some((stream, buffer.split_to(length).freeze())))
}

async fn write(mut writer: WriteHalf<Connection>, mut input: mpsc::Receiver<Option<Bytes>>) {
    while let Some(Some(data)) = input.recv().await {
        if writer.write_all(&data).await.is_err() || writer.flush().await.is_err() {
            return;
        }
    }
    // Only one direction is closed: the container sees the end of its input, and its output still comes.
    let _ = writer.shutdown().await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_out_whole_however_they_arrive() {
        let mut wire = Vec::new();
        for (number, data) in [(1, &b"out"[..]), (2, b""), (2, b"err"), (0, b"in")] {
            wire.extend([number, 0, 0, 0]);
            wire.extend(u32::try_from(data.len()).unwrap().to_be_bytes());
            wire.extend(data);
        }
        for step in [1, 3, 8, 100] {
            let mut buffer = BytesMut::new();
            let mut found = Vec::new();
            for piece in wire.chunks(step) {
                buffer.extend_from_slice(piece);
                while let Some((stream, data)) = frame(&mut buffer).unwrap() {
                    found.push((stream, data.to_vec()));
                }
            }
            assert!(buffer.is_empty());
            let expected = [
                (Stream::Output, b"out".to_vec()),
                (Stream::Error, b"".to_vec()),
                (Stream::Error, b"err".to_vec()),
                (Stream::Output, b"in".to_vec()),
            ];
            assert_eq!(found, expected, "in steps of {step}");
        }
    }

    #[test]
    fn what_no_daemon_sends_is_refused() {
        for wire in [&b"\x03\0\0\0\0\0\0\0"[..], b"\x01\0\0\0\xff\0\0\0"] {
            assert!(frame(&mut BytesMut::from(wire)).is_err());
        }
    }
}
