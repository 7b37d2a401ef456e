//! A small client of QEMU's machine protocol: one JSON document a line, one command at a time.

use std::io::{self, BufRead, BufReader, Read as _, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::machine::MachineError;

/// How long a command may take to be answered; a busy emulator can be slow.
const PATIENCE: Duration = Duration::from_secs(60);

/// Longest line of QEMU's that is read, in bytes.
const MAX_LINE: u64 = 1 << 20;

/// Lines that may wait to be looked at; QEMU keeps others.
const WAITING: usize = 256;

/// A connection to QEMU.
#[derive(Debug)]
pub(crate) struct Qmp {
    socket: UnixStream,
    lines: Receiver<Value>,
    shutdown: Option<String>,
    disk_full: bool,
}

impl Qmp {
    /// Connects and leaves the negotiation mode. Fails like a missing file until QEMU listens.
    pub(crate) fn connect(path: &Path) -> io::Result<Self> {
        let socket = UnixStream::connect(path)?;
        let mut reader = BufReader::new(socket.try_clone()?);
        let (sender, lines) = mpsc::sync_channel(WAITING);
        std::thread::Builder::new()
            .name("qmp".into())
            .spawn(move || {
                let mut line = Vec::new();
                loop {
                    line.clear();
                    let mut limited = (&mut reader).take(MAX_LINE);
                    match limited.read_until(b'\n', &mut line) {
                        Ok(0) | Err(_) => return,
                        Ok(_) => {}
                    }
                    if let Ok(value) = serde_json::from_slice(&line)
                        && sender.send(value).is_err()
                    {
                        return;
                    }
                }
            })?;
        let mut qmp = Self {
            socket,
            lines,
            shutdown: None,
            disk_full: false,
        };
        qmp.execute("qmp_capabilities", json!({}))
            .map_err(|error| io::Error::other(error.to_string()))?;
        Ok(qmp)
    }

    /// Runs a command and gives its result.
    pub(crate) fn execute(
        &mut self,
        command: &str,
        arguments: Value,
    ) -> Result<Value, MachineError> {
        let failed = |why: String| MachineError::Hypervisor {
            program: "qemu-system-x86_64".into(),
            why: format!("{why} (on {command})"),
        };
        let question = json!({"execute": command, "arguments": arguments});
        self.socket
            .write_all(format!("{question}\n").as_bytes())
            .map_err(|error| failed(format!("does not take commands: {error}")))?;
        let begun = Instant::now();
        loop {
            let left = PATIENCE.saturating_sub(begun.elapsed());
            let line = match self.lines.recv_timeout(left) {
                Ok(line) => line,
                Err(RecvTimeoutError::Timeout) => return Err(failed("does not answer".into())),
                Err(RecvTimeoutError::Disconnected) => return Err(failed("ended".into())),
            };
            if let Some(value) = line.get("return") {
                return Ok(value.clone());
            }
            if let Some(error) = line.get("error") {
                let words = error.get("desc").and_then(Value::as_str);
                return Err(failed(format!("says: {}", words.unwrap_or("nothing"))));
            }
            self.note(&line);
        }
    }

    /// The reason for the machine's shutdown, as QEMU gives it.
    pub(crate) fn shutdown_reason(&mut self) -> Option<&str> {
        self.collect();
        self.shutdown.as_deref()
    }

    /// Whether QEMU has stopped the machine for a full disk since the last call.
    pub(crate) fn disk_was_full(&mut self) -> bool {
        self.collect();
        std::mem::take(&mut self.disk_full)
    }

    fn collect(&mut self) {
        while let Ok(line) = self.lines.try_recv() {
            self.note(&line);
        }
    }

    fn note(&mut self, line: &Value) {
        if line.get("event").and_then(Value::as_str) == Some("BLOCK_IO_ERROR")
            && line.pointer("/data/nospace").and_then(Value::as_bool) == Some(true)
        {
            self.disk_full = true;
        }
        if line.get("event").and_then(Value::as_str) == Some("SHUTDOWN") {
            let reason = line.pointer("/data/reason").and_then(Value::as_str);
            self.shutdown = Some(reason.unwrap_or("unknown").to_owned());
        }
    }

    /// Waits until the migration that is under way is complete.
    pub(crate) fn wait_migrated(
        &mut self,
        longest: Duration,
        mut check: impl FnMut() -> Result<(), MachineError>,
    ) -> Result<(), MachineError> {
        let begun = Instant::now();
        loop {
            let answer = self.execute("query-migrate", json!({}))?;
            match answer.get("status").and_then(Value::as_str) {
                Some("completed") => return Ok(()),
                Some("failed" | "cancelled") => {
                    let words = answer.get("error-desc").and_then(Value::as_str);
                    return Err(MachineError::Hypervisor {
                        program: "qemu-system-x86_64".into(),
                        why: format!(
                            "cannot move the state: {}",
                            words.unwrap_or("no reason given")
                        ),
                    });
                }
                _ if begun.elapsed() > longest => {
                    return Err(MachineError::Hypervisor {
                        program: "qemu-system-x86_64".into(),
                        why: "does not finish moving the state".into(),
                    });
                }
                _ => {}
            }
            check()?;
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
