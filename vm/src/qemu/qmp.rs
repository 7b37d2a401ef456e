//! A small client of QEMU's machine protocol: one JSON document a line, one command at a time.
//!
//! A guest that breaks out of QEMU can say anything here, so lines, waiting lines and texts are bounded.

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

/// Longest text of QEMU's that is kept, in characters.
pub(crate) const MAX_TEXT: usize = 1000;

/// A connection to QEMU.
#[derive(Debug)]
pub(crate) struct Qmp {
    socket: UnixStream,
    lines: Receiver<Value>,
    events: Events,
}

impl Qmp {
    /// Connects and leaves the negotiation mode. Fails like a missing file until QEMU listens.
    pub(crate) fn connect(path: &Path) -> io::Result<Self> {
        let socket = UnixStream::connect(path)?;
        let reader = BufReader::new(socket.try_clone()?);
        let (sender, lines) = mpsc::sync_channel(WAITING);
        std::thread::Builder::new()
            .name("qmp".into())
            .spawn(move || read_lines(reader, |line| sender.send(line).is_ok()))?;
        let mut qmp = Self {
            socket,
            lines,
            events: Events::default(),
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
            match self.events.take(&line) {
                Some(Ok(value)) => return Ok(value),
                Some(Err(words)) => return Err(failed(format!("says: {words}"))),
                None => {}
            }
        }
    }

    /// The reason for the machine's shutdown, as QEMU gives it.
    pub(crate) fn shutdown_reason(&mut self) -> Option<&str> {
        self.collect();
        self.events.shutdown.as_deref()
    }

    /// Whether QEMU has stopped the machine for a full disk since the last call.
    pub(crate) fn disk_was_full(&mut self) -> bool {
        self.collect();
        std::mem::take(&mut self.events.disk_full)
    }

    fn collect(&mut self) {
        while let Ok(line) = self.lines.try_recv() {
            // An answer that nobody waits for says nothing.
            let _ = self.events.take(&line);
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
                    let words = text(answer.get("error-desc"), "no reason given");
                    return Err(MachineError::Hypervisor {
                        program: "qemu-system-x86_64".into(),
                        why: format!("cannot move the state: {words}"),
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

/// What QEMU's events said.
#[derive(Debug, Default)]
pub(crate) struct Events {
    /// Why the machine has shut down.
    shutdown: Option<String>,
    /// Whether the machine was stopped for a full disk.
    disk_full: bool,
}

impl Events {
    /// Takes a line; returns the answer to a command, or QEMU's words for its failure, if that is what the line is.
    pub(crate) fn take(&mut self, line: &Value) -> Option<Result<Value, String>> {
        if let Some(value) = line.get("return") {
            return Some(Ok(value.clone()));
        }
        if let Some(error) = line.get("error") {
            return Some(Err(text(error.get("desc"), "nothing")));
        }
        match line.get("event").and_then(Value::as_str) {
            Some("BLOCK_IO_ERROR")
                if line.pointer("/data/nospace").and_then(Value::as_bool) == Some(true) =>
            {
                self.disk_full = true;
            }
            Some("SHUTDOWN") => {
                self.shutdown = Some(text(line.pointer("/data/reason"), "unknown"));
            }
            _ => {}
        }
        None
    }
}

/// A text of QEMU's, of bearable length; `otherwise` where there is none.
fn text(value: Option<&Value>, otherwise: &str) -> String {
    let words = value.and_then(Value::as_str).unwrap_or(otherwise);
    words.chars().take(MAX_TEXT).collect()
}

/// Reads lines and gives `take` each JSON document, until the end or until `take` says no.
pub(crate) fn read_lines(mut reader: impl BufRead, mut take: impl FnMut(Value) -> bool) {
    let mut line = Vec::new();
    loop {
        line.clear();
        match reader.by_ref().take(MAX_LINE).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        if let Ok(value) = serde_json::from_slice(&line)
            && !take(value)
        {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is made of lines: the answers, and the events.
    fn taken(lines: &str) -> (Vec<Result<Value, String>>, Events) {
        let (mut answers, mut events) = (Vec::new(), Events::default());
        read_lines(lines.as_bytes(), |line| {
            answers.extend(events.take(&line));
            true
        });
        (answers, events)
    }

    #[test]
    fn answers_and_events_are_told_apart() {
        let (answers, events) = taken(concat!(
            "{\"QMP\": {\"version\": {}}}\n{\"return\": {\"running\": true}}\nnot json\n",
            "{\"event\": \"BLOCK_IO_ERROR\", \"data\": {\"nospace\": false}}\n",
            "{\"error\": {\"class\": \"GenericError\", \"desc\": \"no such device\"}}\n{\"error\": 7}\n",
            "{\"event\": \"SHUTDOWN\", \"data\": {\"guest\": true, \"reason\": \"guest-reset\"}}",
        ));
        let refused = |words: &str| Err(words.to_owned());
        let expected = [
            Ok(json!({"running": true})),
            refused("no such device"),
            refused("nothing"),
        ];
        assert_eq!(answers, expected);
        assert_eq!(events.shutdown.as_deref(), Some("guest-reset"));
        assert!(!events.disk_full);
        let full = "{\"event\": \"BLOCK_IO_ERROR\", \"data\": {\"nospace\": true}}";
        assert!(taken(full).1.disk_full);
    }

    #[test]
    fn texts_of_any_length_are_cut() {
        let long = "x".repeat(100_000);
        let (answers, events) = taken(&format!(
            "{{\"error\": {{\"desc\": \"{long}\"}}}}\n{{\"event\": \"SHUTDOWN\", \"data\": {{\"reason\": \"{long}\"}}}}"
        ));
        assert_eq!(answers[0].as_ref().unwrap_err().len(), MAX_TEXT);
        assert_eq!(events.shutdown.unwrap().len(), MAX_TEXT);
    }
}
