//! A root shell of the guest on a terminal of its own.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::process::{Command, Stdio};
use std::task::{Context, Poll, ready};

use rustix::fs::OFlags;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::reaper::{Reaper, Started};

/// The master side of a terminal.
pub(crate) struct Terminal(AsyncFd<OwnedFd>);

/// Starts a shell, or `command` in one.
pub(crate) fn open(
    term: &str,
    rows: u16,
    columns: u16,
    command: Option<&str>,
    reaper: &Reaper,
) -> io::Result<(Terminal, Started)> {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    let size = Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(&master, size)?;
    let name = ptsname(&master, Vec::new())?;
    let slave: File = OpenOptions::new()
        .read(true)
        .write(true)
        .open(name.to_string_lossy().as_ref())?;
    let side = || slave.try_clone().map(Stdio::from);
    let mut shell = Command::new("/usr/bin/busybox");
    // `setsid -c` makes the terminal the shell's controlling one.
    shell.args(["setsid", "-c", "/bin/sh"]);
    match command {
        Some(command) => shell.args(["-c", command]),
        None => shell.arg("-l"),
    };
    shell
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("HOME", "/root")
        .env("DOCKER_HOST", "unix:///run/docker.sock")
        .env("TERM", term)
        .current_dir("/")
        .stdin(side()?)
        .stdout(side()?)
        .stderr(side()?);
    let started = reaper.spawn(&mut shell)?;
    let flags = rustix::fs::fcntl_getfl(&master)?;
    rustix::fs::fcntl_setfl(&master, flags | OFlags::NONBLOCK)?;
    Ok((Terminal(registered(master)?), started))
}

#[expect(unsafe_code, reason = "registering a descriptor")]
fn registered(master: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the descriptor is owned, is the same for as long as it is registered, and nobody closes it before.
    Ok(unsafe { AsyncFd::register(master)? })
}

impl AsyncRead for Terminal {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.0.poll_read_ready(context))?;
            let tried = guard.try_io(|fd| {
                let mut part = [0; 4096];
                let room = part.len().min(buffer.remaining());
                let into = part.get_mut(..room).unwrap_or_default();
                match rustix::io::read(fd.get_ref(), into) {
                    Ok(got) => {
                        buffer.put_slice(part.get(..got).unwrap_or_default());
                        Ok(())
                    }
                    // The last process on the terminal ended.
                    Err(rustix::io::Errno::IO) => Ok(()),
                    Err(error) => Err(error.into()),
                }
            });
            if let Ok(result) = tried {
                return Poll::Ready(result);
            }
        }
    }
}

impl AsyncWrite for Terminal {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.0.poll_write_ready(context))?;
            let tried =
                guard.try_io(|fd| rustix::io::write(fd.get_ref(), bytes).map_err(io::Error::from));
            if let Ok(result) = tried {
                return Poll::Ready(result);
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Sends the end of input, as typed.
    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_write(context, b"\x04"))?;
        Poll::Ready(Ok(()))
    }
}
