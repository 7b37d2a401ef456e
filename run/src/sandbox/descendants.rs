//! Ends the processes that a command leaves running, where no process namespace ends them.
//!
//! An orphan becomes a child of the container's first process and, once that is gone, of the process that serves the
//! image's files (prctl(2), `PR_SET_CHILD_SUBREAPER`). After the command's end, each of the two kills its children until
//! none is left.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use rustix::process::{Pid, Signal, WaitOptions};

/// The numbers of this thread's children; kernels may lack it (`CONFIG_PROC_CHILDREN`).
const CHILDREN: &str = "/proc/thread-self/children";

/// The children of this thread, orphans included.
#[derive(Debug)]
pub(super) struct Descendants(File);

impl Descendants {
    /// Makes this process the parent of all later orphans. `/proc` has to be the machine's.
    pub(super) fn adopt() -> io::Result<Self> {
        let children = File::open(CHILDREN).map_err(|error| {
            let why = format!("{CHILDREN}: {error}; leave `pid` in the `ns` of containers.yaml");
            io::Error::new(error.kind(), why)
        })?;
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
        Ok(Self(children))
    }

    /// Kills all children and their descendants.
    pub(super) fn end(&self) -> io::Result<()> {
        loop {
            for pid in self.children()? {
                // No number has been reused: children are only waited for below.
                match rustix::process::kill_process(pid, Signal::KILL) {
                    Ok(()) | Err(rustix::io::Errno::SRCH) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            match rustix::process::wait(WaitOptions::empty()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::CHILD) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn children(&self) -> io::Result<Vec<Pid>> {
        let mut text = Vec::new();
        let mut piece = [0; 4096];
        loop {
            match self.0.read_at(&mut piece, text.len() as u64)? {
                0 => break,
                n => text.extend_from_slice(piece.get(..n).unwrap_or_default()),
            }
        }
        let text = String::from_utf8_lossy(&text);
        let numbers = text.split_ascii_whitespace();
        Ok(numbers
            .filter_map(|number| Pid::from_raw(number.parse().ok()?))
            .collect())
    }
}
