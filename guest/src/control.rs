//! The control channel: JSON lines over a virtio-serial port.
//!
//! A thread reads the port, because its readiness is lost when the host disconnects: without a host, reads end at once
//! and are tried again. Writes block until the host reads.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pcocc_guest::protocol::{CONTROL_PORT, FromGuest, MAX_LINE, ToGuest};
use tokio::sync::mpsc;

use crate::{Failure, say};

/// Pause between two reads without a host.
const ABSENT: Duration = Duration::from_millis(10);

/// The guest's end of the channel; clones write to the same port.
#[derive(Clone, Debug)]
pub(crate) struct Control {
    port: Arc<Mutex<File>>,
}

impl Control {
    /// Opens the port and starts to read from it.
    pub(crate) fn open() -> Result<(Self, mpsc::UnboundedReceiver<ToGuest>), Failure> {
        let path = find_port()?;
        let port = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .map_err(Failure::of(format!("open {}", path.display())))?;
        let reader = port
            .try_clone()
            .map_err(Failure::of("share the control port"))?;
        let (sender, receiver) = mpsc::unbounded_channel();
        std::thread::Builder::new()
            .name("control".into())
            .spawn(move || listen(reader, &sender))
            .map_err(Failure::of("start a thread"))?;
        let control = Self {
            port: Arc::new(Mutex::new(port)),
        };
        Ok((control, receiver))
    }

    /// Sends a message to the host.
    pub(crate) fn send(&self, message: &FromGuest) {
        let mut line = match serde_json::to_vec(message) {
            Ok(line) => line,
            Err(error) => return say(&format!("failed to write a message: {error}")),
        };
        line.push(b'\n');
        let mut port = self.port.lock();
        if let Err(error) = port.write_all(&line) {
            say(&format!("failed to speak to the host: {error}"));
        }
    }
}

/// Finds the port's device by its name.
fn find_port() -> Result<PathBuf, Failure> {
    let begun = Instant::now();
    loop {
        for entry in std::fs::read_dir("/sys/class/virtio-ports")
            .into_iter()
            .flatten()
            .flatten()
        {
            let name = std::fs::read_to_string(entry.path().join("name")).unwrap_or_default();
            if name.trim() == CONTROL_PORT {
                return Ok(PathBuf::from("/dev").join(entry.file_name()));
            }
        }
        if begun.elapsed() > Duration::from_secs(20) {
            return Err(Failure(format!("there is no port {CONTROL_PORT}")));
        }
        std::thread::sleep(ABSENT);
    }
}

fn listen(mut port: File, sender: &mpsc::UnboundedSender<ToGuest>) {
    let mut line = Vec::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        let got = match port.read(&mut buffer) {
            Ok(0) => {
                std::thread::sleep(ABSENT);
                continue;
            }
            Ok(got) => buffer.get(..got).unwrap_or_default(),
            Err(error) => {
                say(&format!("failed to listen to the host: {error}"));
                std::thread::sleep(ABSENT);
                continue;
            }
        };
        for byte in got {
            if *byte != b'\n' {
                line.push(*byte);
                if line.len() > MAX_LINE {
                    say("dropped a line of the host that never ended");
                    line.clear();
                }
                continue;
            }
            match serde_json::from_slice(&line) {
                Ok(message) => {
                    if sender.send(message).is_err() {
                        return;
                    }
                }
                Err(error) => say(&format!("did not understand the host: {error}")),
            }
            line.clear();
        }
    }
}
