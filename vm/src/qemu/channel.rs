//! The host's end of the control channel to the guest's agent.
//!
//! Who is root in the guest can be the agent, and say anything at any speed. So lines, texts, waiting messages and events
//! are bounded: a guest that says more waits until the host reads, and of its events some are passed on in a time.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use pcocc_guest::protocol::{FromGuest, MAX_GUEST_LINE, ToGuest};

use crate::machine::{MachineError, MachineEvent};

/// Messages that may wait to be looked at.
const WAITING: usize = 16;
/// Messages that are looked at in one go.
const AT_ONCE: usize = 2 * WAITING;
/// Longest text of a message, in characters.
const MAX_TEXT: usize = 1000;
/// Most texts of a list in a message.
const MAX_TEXTS: usize = 16;

/// A connection to the agent.
#[derive(Debug)]
pub(crate) struct Channel {
    socket: UnixStream,
    messages: Receiver<FromGuest>,
    /// Events in the guest that were reported while another message was awaited.
    events: Events,
}

impl Channel {
    /// Connects to the socket of the virtio-serial port.
    pub(crate) fn connect(path: &Path) -> io::Result<Self> {
        let socket = UnixStream::connect(path)?;
        // A guest that does not read must not stop its launcher.
        socket.set_write_timeout(Some(Duration::from_secs(30)))?;
        let mut reader = BufReader::new(socket.try_clone()?);
        let (sender, messages) = mpsc::sync_channel(WAITING);
        std::thread::Builder::new()
            .name("agent".into())
            .spawn(move || {
                let mut line = Vec::new();
                loop {
                    line.clear();
                    let mut limited = (&mut reader).take(MAX_GUEST_LINE as u64);
                    match limited.read_until(b'\n', &mut line) {
                        Ok(0) | Err(_) => return,
                        Ok(_) => {}
                    }
                    // Other lines are not the agent's; the console has a file of its own.
                    if let Some(message) = parse(&line)
                        && sender.send(message).is_err()
                    {
                        return;
                    }
                }
            })?;
        Ok(Self {
            socket,
            messages,
            events: Events::new(),
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

    /// Takes the events of the messages that have arrived.
    pub(crate) fn events(&mut self) -> Vec<MachineEvent> {
        for _ in 0..AT_ONCE {
            let Ok(message) = self.messages.try_recv() else {
                break;
            };
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
        std::mem::take(&mut self.events.kept)
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

/// Parses a line of the agent's; the texts of the message are of bearable length. `None` for other lines.
pub(crate) fn parse(line: &[u8]) -> Option<FromGuest> {
    serde_json::from_slice(line).ok().map(shortened)
}

/// The same message with texts of bearable length.
fn shortened(message: FromGuest) -> FromGuest {
    let short = |text: String| match text.char_indices().nth(MAX_TEXT) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    };
    match message {
        FromGuest::Hello { protocol, kernel } => FromGuest::Hello {
            protocol,
            kernel: short(kernel),
        },
        FromGuest::Adopted { warnings } => FromGuest::Adopted {
            warnings: warnings.into_iter().take(MAX_TEXTS).map(short).collect(),
        },
        FromGuest::DaemonRestarted { how } => FromGuest::DaemonRestarted { how: short(how) },
        FromGuest::DaemonFailed { why } => FromGuest::DaemonFailed { why: short(why) },
        FromGuest::Failed { why } => FromGuest::Failed { why: short(why) },
        message @ (FromGuest::Prepared | FromGuest::Quiesced | FromGuest::ShuttingDown) => message,
    }
}

/// Events that wait to be taken: a handful at once, and one in each [`Events::PAUSE`] for ever.
#[derive(Debug)]
struct Events {
    kept: Vec<MachineEvent>,
    /// How many more are kept now.
    room: u32,
    /// When there was last room for one more.
    since: Instant,
}

impl Events {
    const ROOM: u32 = 16;
    const PAUSE: Duration = Duration::from_secs(60);

    fn new() -> Self {
        Self {
            kept: Vec::new(),
            room: Self::ROOM,
            since: Instant::now(),
        }
    }

    fn push(&mut self, event: MachineEvent) {
        while self.room < Self::ROOM && self.since.elapsed() >= Self::PAUSE {
            self.since += Self::PAUSE;
            self.room += 1;
        }
        if self.room == Self::ROOM {
            self.since = Instant::now();
        }
        match self.room {
            0 => return,
            1 => {
                let word = "the guest reports more than is shown";
                self.kept.push(MachineEvent::Note(word.to_owned()));
            }
            _ => self.kept.push(event),
        }
        self.room -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    fn connected() -> (tempfile::TempDir, Channel, UnixStream) {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("control");
        let listener = UnixListener::bind(&socket).unwrap();
        let channel = Channel::connect(&socket).unwrap();
        let (guest, _) = listener.accept().unwrap();
        (folder, channel, guest)
    }

    /// Writes lines without an end, and gives how many bytes the host took.
    fn flood(mut guest: UnixStream, line: Vec<u8>) -> std::thread::JoinHandle<usize> {
        guest
            .set_write_timeout(Some(Duration::from_secs(1)))
            .unwrap();
        std::thread::spawn(move || {
            let mut written = 0;
            while written < 256 << 20 {
                match guest.write(&line) {
                    Ok(count) => written += count,
                    Err(_) => break,
                }
            }
            written
        })
    }

    fn line(message: &FromGuest) -> Vec<u8> {
        let mut line = serde_json::to_vec(message).unwrap();
        line.push(b'\n');
        line
    }

    #[test]
    fn a_guest_that_says_too_much_waits() {
        let (_folder, channel, guest) = connected();
        let restarted = FromGuest::DaemonRestarted {
            how: "x".repeat(50_000),
        };
        let written = flood(guest, line(&restarted)).join().unwrap();
        assert!(written < 4 << 20, "the host took {written} bytes");
        drop(channel);
    }

    #[test]
    fn events_are_few_and_short() {
        let (_folder, mut channel, guest) = connected();
        let restarted = FromGuest::DaemonRestarted {
            how: "x".repeat(50_000),
        };
        let flood = flood(guest, line(&restarted));
        let mut events = Vec::new();
        for _ in 0..50 {
            // It returns, however fast the guest is.
            events.extend(channel.events());
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(events.len(), Events::ROOM as usize);
        for event in &events {
            assert!(format!("{event:?}").len() < MAX_TEXT + 100);
        }
        let last = MachineEvent::Note("the guest reports more than is shown".to_owned());
        assert_eq!(events.last(), Some(&last));
        drop(channel);
        flood.join().unwrap();
    }

    #[test]
    fn room_for_events_comes_back() {
        let mut events = Events::new();
        let event = || MachineEvent::Note("x".to_owned());
        for _ in 0..100 {
            events.push(event());
        }
        assert_eq!(events.kept.len(), Events::ROOM as usize);
        events.since -= 3 * Events::PAUSE;
        for _ in 0..100 {
            events.push(event());
        }
        assert_eq!(events.kept.len(), Events::ROOM as usize + 3);
    }

    #[test]
    fn what_no_agent_says_is_passed_over() {
        let (_folder, mut channel, mut guest) = connected();
        guest.write_all(&vec![b' '; 3 * MAX_GUEST_LINE]).unwrap();
        guest
            .write_all(b"\nnot json\n{\"say\":\"dance\"}\n")
            .unwrap();
        let warnings = vec!["y".repeat(600); 80];
        guest
            .write_all(&line(&FromGuest::Adopted { warnings }))
            .unwrap();
        let begun = Instant::now();
        let wanted = |message: &FromGuest| match message {
            FromGuest::Adopted { warnings } => Some(warnings.len()),
            _ => None,
        };
        let check = || match begun.elapsed() > Duration::from_secs(20) {
            true => Err(MachineError::Cancelled),
            false => Ok(()),
        };
        assert_eq!(channel.expect(wanted, check).unwrap(), MAX_TEXTS);
    }
}
