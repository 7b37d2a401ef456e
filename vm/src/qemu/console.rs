//! What the guest writes to its serial console, in a file of bounded size.
//!
//! A guest may write without an end, and the file is in the user's home. QEMU gives the console to a socket, from which a thread
//! here writes the file. A file that has half of the room becomes the [`older`] one, in the place of the one before, and
//! a new one begins.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use crate::job::older;

/// Least bytes of a file.
const LEAST: u64 = 4 << 10;

/// A connection to the console of a running QEMU. Dropped, it ends with what was said until then.
#[derive(Debug)]
pub(crate) struct Console {
    socket: UnixStream,
    writer: Option<JoinHandle<()>>,
}

impl Console {
    /// Connects to QEMU's socket; `log` and the file before it have `most` bytes together.
    pub(crate) fn connect(socket: &Path, log: &Path, most: u64) -> io::Result<Self> {
        let socket = UnixStream::connect(socket)?;
        let mut reader = socket.try_clone()?;
        let mut log = BoundedLog::open(log, most)?;
        let writer = std::thread::Builder::new()
            .name("console".into())
            .spawn(move || {
                let mut buffer = vec![0; 16 << 10];
                // A broken connection is the end of the console.
                while let Ok(count @ 1..) = reader.read(&mut buffer) {
                    if let Err(error) = log.write(buffer.get(..count).unwrap_or_default()) {
                        tracing::debug!(%error, "a part of the console is lost");
                    }
                }
            })?;
        Ok(Self {
            socket,
            writer: Some(writer),
        })
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        // What is on its way is still read.
        let _ = self.socket.shutdown(Shutdown::Read);
        if let Some(writer) = self.writer.take() {
            // A thread that broke down has nothing more to write.
            let _ = writer.join();
        }
    }
}

/// A file that is written to its end, and replaced when it is long.
#[derive(Debug)]
struct BoundedLog {
    path: PathBuf,
    file: File,
    size: u64,
    /// Most bytes of one of the two files.
    half: u64,
}

impl BoundedLog {
    /// Goes on at the end of a file that is there.
    fn open(path: &Path, most: u64) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        Ok(Self {
            path: path.to_owned(),
            size: file.metadata()?.len(),
            file,
            half: (most / 2).max(LEAST),
        })
    }

    fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            if self.size >= self.half {
                fs::rename(&self.path, older(&self.path))?;
                *self = Self::open(&self.path, 2 * self.half)?;
            }
            let room = usize::try_from(self.half - self.size).unwrap_or(usize::MAX);
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.file.write_all(now)?;
            self.size += u64::try_from(now.len()).unwrap_or(0);
            bytes = later;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn a_guest_that_writes_without_an_end_fills_no_disk() {
        const MOST: u64 = 64 << 10;
        let folder = tempfile::tempdir().unwrap();
        let (socket, log) = (folder.path().join("s"), folder.path().join("console.log"));
        fs::write(&log, "an earlier start\n").unwrap();
        let listener = UnixListener::bind(&socket).unwrap();
        let console = Console::connect(&socket, &log, MOST).unwrap();
        let (mut guest, _) = listener.accept().unwrap();
        let mut lines = 0_u32;
        for _ in 0..500 {
            let mut piece = String::new();
            for _ in 0..200 {
                lines += 1;
                piece += &format!("line {lines}\n");
            }
            guest.write_all(piece.as_bytes()).unwrap();
            let size = |path: &Path| fs::metadata(path).map_or(0, |metadata| metadata.len());
            assert!(size(&log) + size(&older(&log)) <= MOST);
        }
        drop(guest);
        drop(console);
        let read = |path: &Path| fs::read_to_string(path).unwrap();
        let text = read(&older(&log)) + &read(&log);
        assert!(text.ends_with(&format!("line {lines}\n")));
        assert!(text.len() as u64 > MOST / 2 - 1 && text.len() as u64 <= MOST);
        // Nothing is missing in between.
        let numbers: Vec<u32> = text
            .lines()
            .skip(1)
            .map(|line| line.trim_start_matches("line ").parse().unwrap())
            .collect();
        assert!(numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]));
    }

    #[test]
    fn the_last_words_are_there_when_it_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let (socket, log) = (folder.path().join("s"), folder.path().join("console.log"));
        let listener = UnixListener::bind(&socket).unwrap();
        let console = Console::connect(&socket, &log, 1 << 20).unwrap();
        let (mut guest, _) = listener.accept().unwrap();
        guest.write_all(b"kernel panic").unwrap();
        drop(console);
        assert_eq!(fs::read_to_string(&log).unwrap(), "kernel panic");
    }
}
