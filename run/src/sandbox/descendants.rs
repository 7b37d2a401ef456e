//! Ends what a command leaves running where no process namespace does.
//!
//! Processes that lose their parent become children of the container's first process, and when that is gone of the
//! one that serves the image's files (prctl(2), `PR_SET_CHILD_SUBREAPER`). Each of the two, when the other or the
//! command has ended, kills its children until there are none.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use rustix::process::{Pid, Signal, WaitOptions};

/// The numbers of this thread's children; kernels may lack it (`CONFIG_PROC_CHILDREN`).
const CHILDREN: &str = "/proc/thread-self/children";

/// The children of this thread, whom others may leave to it.
#[derive(Debug)]
pub(super) struct Descendants(File);

impl Descendants {
    /// Takes care of all who lose their parent from now on. `/proc` has to be the machine's.
    pub(super) fn adopt() -> io::Result<Self> {
        let children = File::open(CHILDREN).map_err(|error| {
            let why = format!("{CHILDREN}: {error}; leave `pid` in the `ns` of containers.yaml");
            io::Error::new(error.kind(), why)
        })?;
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
        Ok(Self(children))
    }

    /// Kills them all, and theirs.
    pub(super) fn end(&self) -> io::Result<()> {
        loop {
            for pid in self.children()? {
                // None of them is anybody else by now: they are waited for below.
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
