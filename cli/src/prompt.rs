//! A question on the terminal.

use std::time::Duration;

use pcocc_core::cancel::Cancel;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::stdio::stdin;

use crate::messages::{complain, printable};

/// Longest delay of a signal.
const TICK: Duration = Duration::from_millis(50);

/// Longest answer, in bytes.
const MAX_ANSWER: usize = 1024;

/// Asks until the answer is yes or no. An empty answer and the end of input mean yes; a signal gives `None`.
pub(crate) fn yes(question: &str, cancel: &Cancel) -> Option<bool> {
    loop {
        complain(&format!("{} [Y/n] ", printable(question)));
        let answer = line(cancel)?;
        match answer.trim().to_ascii_lowercase().as_str() {
            "" | "y" | "yes" => return Some(true),
            "n" | "no" => return Some(false),
            _ => complain("Please answer y or n.\n"),
        }
    }
}

fn line(cancel: &Cancel) -> Option<String> {
    let mut answer = Vec::new();
    let tick = Timespec::try_from(TICK).ok();
    loop {
        if cancel.is_cancelled() {
            complain("\n");
            return None;
        }
        let mut fds = [PollFd::from_borrowed_fd(stdin(), PollFlags::IN)];
        match poll(&mut fds, tick.as_ref()) {
            Ok(0) | Err(Errno::INTR) => continue,
            Ok(_) => {}
            Err(_) => break,
        }
        let mut byte = [0];
        match rustix::io::read(stdin(), &mut byte) {
            Err(Errno::INTR | Errno::AGAIN) => {}
            Ok(0) | Err(_) => {
                complain("\n");
                break;
            }
            Ok(_) if byte == *b"\n" || answer.len() > MAX_ANSWER => break,
            Ok(_) => answer.extend(byte),
        }
    }
    Some(String::from_utf8_lossy(&answer).into_owned())
}
