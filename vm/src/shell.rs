//! A client's terminal on a shell in the guest.
//!
//! Data path: the terminal becomes raw → its bytes go to the guest's terminal over the endpoint's TLS, and back → either
//! side's end ends both, and the terminal is as it was.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::time::Duration;

use pcocc_core::cancel::Cancel;
use pcocc_guest::protocol::Service;
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use crate::service::EndpointClient;

/// How often the end of the shell is checked.
const TICK: Duration = Duration::from_millis(50);

/// Runs a root shell of the guest, or `command` in one, on `input` and `output` until it ends or `cancel` is raised.
///
/// `term` is the terminal's type, as in TERM. Bytes of an `input` that is no terminal are sent as if typed.
pub fn run(
    client: &EndpointClient,
    term: &str,
    command: Option<String>,
    input: File,
    mut output: File,
    cancel: &Cancel,
) -> io::Result<()> {
    let size = tcgetwinsize(&input).ok();
    let service = Service::Shell {
        term: term.to_owned(),
        rows: size.map_or(24, |size| size.ws_row),
        columns: size.map_or(80, |size| size.ws_col),
        command,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let stream = client.open(&service).await?;
        let _raw = Raw::new(&input)?;
        let mut typed = read_in_thread(input)?;
        let (mut from, mut to) = tokio::io::split(stream);
        let mut buffer = vec![0; 1 << 14];
        let mut ended = false;
        while !cancel.is_cancelled() {
            tokio::select! {
                got = from.read(&mut buffer) => match got? {
                    0 => return Ok(()),
                    got => {
                        output.write_all(buffer.get(..got).unwrap_or_default())?;
                        output.flush()?;
                    }
                },
                bytes = typed.recv(), if !ended => match bytes {
                    Some(bytes) => {
                        to.write_all(&bytes).await?;
                        to.flush().await?;
                    }
                    None => {
                        ended = true;
                        to.shutdown().await?;
                    }
                },
                () = tokio::time::sleep(TICK) => {}
            }
        }
        Err(io::ErrorKind::Interrupted.into())
    })
}

/// Reads in a thread of its own, which ends with the process: a read of a terminal cannot be called off.
fn read_in_thread(mut input: File) -> io::Result<mpsc::Receiver<Vec<u8>>> {
    let (sender, receiver) = mpsc::channel(16);
    std::thread::Builder::new()
        .name("input".into())
        .spawn(move || {
            let mut buffer = vec![0; 1 << 12];
            while let Ok(got @ 1..) = input.read(&mut buffer) {
                let bytes = buffer.get(..got).unwrap_or_default().to_vec();
                if sender.blocking_send(bytes).is_err() {
                    return;
                }
            }
        })?;
    Ok(receiver)
}

/// A terminal in raw mode; restored when dropped.
struct Raw(Option<(OwnedFd, Termios)>);

impl Raw {
    fn new(terminal: &File) -> io::Result<Self> {
        if !isatty(terminal) {
            return Ok(Self(None));
        }
        let handle = OwnedFd::from(terminal.try_clone()?);
        let before = tcgetattr(&handle)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&handle, OptionalActions::Drain, &raw)?;
        Ok(Self(Some((handle, before))))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Some((terminal, before)) = &self.0 {
            // Fails when the terminal is gone.
            let _ = tcsetattr(terminal, OptionalActions::Drain, before);
        }
    }
}
