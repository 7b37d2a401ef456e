//! Connects the user's terminal, or standard input and output, with a container's.
//!
//! This thread shows the container's output and watches for signals. Another thread passes on keys and the
//! terminal's size. The terminal is raw meanwhile: every key, Ctrl-C included, goes to the container.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use pcocc_core::cancel::Cancel;
use pcocc_image::{Error, Result};
use pcocc_remote::docker::edit::EditContainer;
use pcocc_remote::docker::{Attached, Input, Received, Stream};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::stdio::stdin;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use signal_hook::consts::SIGWINCH;
use signal_hook::low_level::{pipe, unregister};

/// Longest delay of a signal.
const TICK: Duration = Duration::from_millis(50);

/// One session between the user and a container.
pub(super) struct Relay<'a> {
    pub(super) container: &'a EditContainer,
    /// Whether the container has a terminal, and we do.
    pub(super) on_terminal: bool,
    /// Whether our standard input is the container's.
    pub(super) reads_input: bool,
    pub(super) cancel: &'a Cancel,
}

impl Relay<'_> {
    /// Runs until the container's output ends; fails when the connection is cut before.
    ///
    /// The shell is ended in any case, and the terminal is restored.
    pub(super) fn run(&self, mut attached: Attached) -> Result<()> {
        let _raw = match self.on_terminal {
            true => {
                Some(Raw::new().map_err(Error::io("change the terminal on", "standard input"))?)
            }
            false => None,
        };
        let failed = Error::io("open", "a pipe");
        let (end, ended) = UnixStream::pair().map_err(failed)?;
        let resizes = match self.on_terminal {
            true => Some(Resizes::new().map_err(Error::io("watch", "the terminal's size"))?),
            false => None,
        };
        let input = attached.input();
        thread::scope(|scope| {
            let feeder = thread::Builder::new().name("input".to_owned());
            let feeder = feeder.spawn_scoped(scope, || {
                self.feed(
                    &input,
                    &ended,
                    resizes.as_ref().map(|resizes| &resizes.pipe),
                );
            });
            let outcome = match feeder {
                Ok(_) => self.show(&mut attached),
                Err(error) => Err(Error::io("start thread", "input")(error)),
            };
            if outcome.is_err()
                && let Err(error) = self.container.stop()
            {
                // The shell has ended, or its daemon is gone.
                tracing::debug!(%error, "cannot end the shell");
            }
            drop(end);
            outcome
        })
    }

    fn show(&self, attached: &mut Attached) -> Result<()> {
        loop {
            match attached.receive(TICK)? {
                Received::Data(stream, data) => {
                    // The reader of our output wants no more; the shell goes on.
                    let _ = match stream {
                        Stream::Output => put(&mut io::stdout().lock(), &data),
                        Stream::Error => put(&mut io::stderr().lock(), &data),
                    };
                }
                Received::Nothing if self.cancel.is_cancelled() => return Err(Error::Cancelled),
                Received::Nothing => {}
                Received::End => return Ok(()),
            }
        }
    }

    /// Passes on keys until `ended` is closed.
    fn feed(&self, input: &Input, ended: &UnixStream, resized: Option<&UnixStream>) {
        if self.on_terminal {
            self.resize();
        }
        if !self.reads_input {
            input.close();
        }
        let mut reads = self.reads_input;
        let mut buffer = vec![0; 16 << 10];
        loop {
            // The set changes from turn to turn: a file that has ended is always readable.
            let mut fds = vec![PollFd::new(ended, PollFlags::IN)];
            let resize_at = resized.map(|pipe| {
                fds.push(PollFd::new(pipe, PollFlags::IN));
                fds.len() - 1
            });
            let input_at = reads.then(|| {
                fds.push(PollFd::from_borrowed_fd(stdin(), PollFlags::IN));
                fds.len() - 1
            });
            match poll(&mut fds, None) {
                Ok(_) => {}
                Err(Errno::INTR) => continue,
                Err(error) => {
                    tracing::debug!(%error, "cannot wait for input");
                    return;
                }
            }
            let is_ready = |at: Option<usize>| {
                at.and_then(|at| fds.get(at))
                    .is_some_and(|fd| !fd.revents().is_empty())
            };
            let (over, resize, readable) =
                (is_ready(Some(0)), is_ready(resize_at), is_ready(input_at));
            if over {
                return;
            }
            if let Some(pipe) = resized.filter(|_| resize) {
                // Each signal wrote one byte; only the present size counts.
                let _ = rustix::io::read(pipe, &mut buffer);
                self.resize();
            }
            if !readable {
                continue;
            }
            match rustix::io::read(stdin(), &mut buffer) {
                Err(Errno::INTR | Errno::AGAIN) => {}
                Ok(0) | Err(_) => {
                    reads = false;
                    input.close();
                }
                Ok(n) => {
                    if !input.write(buffer.get(..n).unwrap_or_default()) {
                        reads = false;
                    }
                }
            }
        }
    }

    fn resize(&self) {
        let Ok(size) = tcgetwinsize(stdin()) else {
            return;
        };
        if let Err(error) = self.container.resize(size.ws_col, size.ws_row) {
            // Ugly, but no reason to stop.
            tracing::debug!(%error, "cannot resize the shell's terminal");
        }
    }
}

fn put(to: &mut impl io::Write, data: &[u8]) -> io::Result<()> {
    to.write_all(data)?;
    to.flush()
}

/// The terminal on standard input is raw until this is dropped.
struct Raw(Termios);

impl Raw {
    fn new() -> io::Result<Self> {
        let before = tcgetattr(stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(stdin(), OptionalActions::Now, &raw)?;
        Ok(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Err(error) = tcsetattr(stdin(), OptionalActions::Now, &self.0) {
            tracing::debug!(%error, "cannot set the terminal as it was");
        }
    }
}

/// A pipe that is readable after each change of the terminal's size.
struct Resizes {
    pipe: UnixStream,
    signal: signal_hook::SigId,
}

impl Resizes {
    fn new() -> io::Result<Self> {
        let (pipe, writer) = UnixStream::pair()?;
        let signal = pipe::register(SIGWINCH, OwnedFd::from(writer))?;
        Ok(Self { pipe, signal })
    }
}

impl Drop for Resizes {
    fn drop(&mut self) {
        unregister(self.signal);
    }
}
