//! The host's end of the control channel to the guest's agent.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::Duration;

use pcocc_guest::protocol::{FromGuest, MAX_LINE, ToGuest};

use crate::machine::{MachineError, MachineEvent};

/// A connection to the agent.
#[derive(Debug)]
pub(crate) struct Channel {
    socket: UnixStream,
    messages: Receiver<FromGuest>,
    /// Events in the guest that were reported while another message was awaited.
    pub(crate) events: Vec<MachineEvent>,
}

impl Channel {
    /// Connects to the socket of the virtio-serial port.
    pub(crate) fn connect(path: &Path) -> io::Result<Self> {
        let socket = UnixStream::connect(path)?;
        // A guest that does not read must not stop its launcher.
        socket.set_write_timeout(Some(Duration::from_secs(30)))?;
        let mut reader = BufReader::new(socket.try_clone()?);
        let (sender, messages) = mpsc::channel();
        std::thread::Builder::new()
            .name("agent".into())
            .spawn(move || {
                let mut line = Vec::new();
                loop {
                    line.clear();
                    let mut limited = (&mut reader).take(MAX_LINE as u64);
                    match limited.read_until(b'\n', &mut line) {
                        Ok(0) | Err(_) => return,
                        Ok(_) => {}
                    }
                    // Other lines are not the agent's; the console has a file of its own.
                    if let Ok(message) = serde_json::from_slice(&line)
                        && sender.send(message).is_err()
                    {
                        return;
                    }
                }
            })?;
        Ok(Self {
            socket,
            messages,
            events: Vec::new(),
        })
    }

    /// Sends a message to the agent.
    pub(crate) fn send(&mut self, message: &ToGuest) -> Result<(), MachineError> {
        let failed = |error: io::Error| MachineError::Guest(format!("does not listen: {error}"));
        let mut line = serde_json::to_vec(message).map_err(|error| failed(error.into()))?;
        line.push(b'\n');
        self.socket.write_all(&line).map_err(failed)
    }

    /// Waits for the message from which `wanted` makes a value; fails when `check`, which is called every 20 ms, does.
    pub(crate) fn expect<T>(
        &mut self,
        mut wanted: impl FnMut(&FromGuest) -> Option<T>,
        mut check: impl FnMut() -> Result<(), MachineError>,
    ) -> Result<T, MachineError> {
        loop {
            check()?;
            match self.messages.recv_timeout(Duration::from_millis(20)) {
                Ok(message) => {
                    if let Some(value) = wanted(&message) {
                        return Ok(value);
                    }
                    self.note(message)?;
                }
                Err(RecvTimeoutError::Timeout) => {}
                // QEMU has ended or is about to: `check` fails with the reason.
                Err(RecvTimeoutError::Disconnected) => {
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
        }
    }

    /// Collects the messages that have arrived.
    pub(crate) fn collect(&mut self) {
        while let Ok(message) = self.messages.try_recv() {
            match message {
                FromGuest::DaemonFailed { why } => {
                    self.events.push(MachineEvent::DaemonFailed { why });
                }
                message => {
                    if let Err(error) = self.note(message) {
                        self.events.push(MachineEvent::Note(error.to_string()));
                    }
                }
            }
        }
    }

    fn note(&mut self, message: FromGuest) -> Result<(), MachineError> {
        self.events.push(match message {
            FromGuest::DaemonRestarted { how } => MachineEvent::DaemonRestarted { how },
            FromGuest::DaemonFailed { why } => {
                return Err(MachineError::Guest(format!("has no docker daemon: {why}")));
            }
            FromGuest::Failed { why } => return Err(MachineError::Guest(format!("says: {why}"))),
            // Steps of a start that is over.
            _ => return Ok(()),
        });
        Ok(())
    }
}
