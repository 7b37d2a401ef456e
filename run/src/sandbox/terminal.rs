//! Passes bytes between the user's terminal and the container's.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::thread::JoinHandle;

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize};

/// The near end of a container's terminal. Dropping it puts the user's terminal back in order.
#[derive(Debug)]
pub(super) struct Relay {
    master: Arc<File>,
    output: Option<JoinHandle<()>>,
    before: Option<Termios>,
}

impl Relay {
    /// Starts to pass bytes: those from standard input to the container, the container's to standard output.
    pub(super) fn start(master: OwnedFd) -> io::Result<Self> {
        let master = Arc::new(File::from(master));
        let stdin = io::stdin();
        let mut relay = Self {
            output: None,
            before: tcgetattr(&stdin).ok(),
            master: Arc::clone(&master),
        };
        relay.resize();
        if let Some(before) = &relay.before {
            let mut raw = before.clone();
            raw.make_raw();
            tcsetattr(&stdin, OptionalActions::Drain, &raw)?;
        }
        let output = Arc::clone(&master);
        relay.output = Some(
            std::thread::Builder::new()
                .name("pcocc-output".into())
                .spawn(move || pass(&*output, &mut io::stdout()))?,
        );
        // Reads until the process ends: a blocked read cannot be interrupted.
        std::thread::Builder::new()
            .name("pcocc-input".into())
            .spawn(move || {
                pass(&mut io::stdin().lock(), &mut &*master);
                // A reader of the terminal sees the end of the input as the end of a file.
                let _ = (&*master).write_all(&[END_OF_FILE]);
            })?;
        Ok(relay)
    }

    /// Gives the container's terminal the size of the user's.
    pub(super) fn resize(&self) {
        if let Ok(size) = tcgetwinsize(io::stdout().as_fd())
            && let Err(error) = tcsetwinsize(&*self.master, size)
        {
            tracing::debug!(%error, "the terminal keeps its size");
        }
    }
}

/// What the key Ctrl-D sends.
const END_OF_FILE: u8 = 4;

impl Drop for Relay {
    fn drop(&mut self) {
        // The remaining output is passed first. The other end is closed by now, or belongs to a straggler.
        if let Some(output) = self.output.take()
            && output.join().is_err()
        {
            tracing::debug!("the terminal's output ended in an unforeseen way");
        }
        if let Some(before) = &self.before
            && let Err(error) = tcsetattr(io::stdin(), OptionalActions::Drain, before)
        {
            tracing::debug!(%error, "the terminal stays as it is");
        }
    }
}

/// Copies until either side ends; a terminal whose other end was closed reads as an error.
fn pass(mut from: impl Read, to: &mut impl Write) {
    let mut buffer = [0; 16 << 10];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return,
            Ok(length) => {
                let bytes = buffer.get(..length).unwrap_or_default();
                if to.write_all(bytes).and_then(|()| to.flush()).is_err() {
                    return;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}
