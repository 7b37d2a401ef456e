//! What QEMU and slirp4netns say on standard output and error.
//!
//! A guest that got hold of the program could make it write without an end. So the words go through a pipe to a thread,
//! which keeps the last of them in memory: they are for the error of a program that ended.

use std::collections::VecDeque;
use std::io::{self, PipeReader, PipeWriter, Read as _};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use parking_lot::Mutex;

/// Most bytes that are kept.
const MOST: usize = 16 << 10;
/// How long the last words of a program that has ended may be on their way.
const ON_ITS_WAY: Duration = Duration::from_secs(1);

/// The last words of a program.
#[derive(Debug)]
pub(crate) struct Words {
    kept: Arc<Mutex<VecDeque<u8>>>,
    /// Disconnected when the program has closed its end.
    end: Mutex<Receiver<()>>,
}

impl Words {
    /// Makes the pipe; the program gets its ends for the two streams.
    pub(crate) fn new() -> io::Result<(Self, (PipeWriter, PipeWriter))> {
        let (reader, writer) = io::pipe()?;
        let writers = (writer.try_clone()?, writer);
        let kept = Arc::new(Mutex::new(VecDeque::new()));
        let (ended, end) = mpsc::channel();
        let keeps = Arc::clone(&kept);
        std::thread::Builder::new()
            .name("words".into())
            .spawn(move || {
                let _ended: mpsc::Sender<()> = ended;
                keep(reader, &keeps);
            })?;
        let end = Mutex::new(end);
        Ok((Self { kept, end }, writers))
    }

    /// What the program said last, to be asked for when it has ended.
    pub(crate) fn last(&self) -> String {
        // A program that still runs goes on talking.
        let _ = self.end.lock().recv_timeout(ON_ITS_WAY);
        let kept = self.kept.lock().iter().copied().collect::<Vec<u8>>();
        String::from_utf8_lossy(&kept).into_owned()
    }
}

/// Reads to the end and keeps the last bytes.
fn keep(mut reader: PipeReader, kept: &Mutex<VecDeque<u8>>) {
    let mut buffer = vec![0; 4 << 10];
    loop {
        let count = match reader.read(&mut buffer) {
            Ok(0) => return,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => return,
        };
        let mut kept = kept.lock();
        kept.extend(buffer.get(..count).unwrap_or_default());
        let surplus = kept.len().saturating_sub(MOST);
        kept.drain(..surplus);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn the_last_words_are_kept_and_no_more() {
        let (words, (output, errors)) = Words::new().unwrap();
        let script = "yes nonsense | head -c 20000000; echo; echo out of memory >&2";
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command.stdout(output).stderr(errors);
        assert!(command.status().unwrap().success());
        drop(command);
        let last = words.last();
        assert!(last.ends_with("\nout of memory\n"), "{last}");
        assert_eq!(last.len(), MOST);
    }

    #[test]
    fn who_says_nothing_is_not_waited_for_without_an_end() {
        let (words, writers) = Words::new().unwrap();
        assert_eq!(words.last(), "");
        drop(writers);
        assert_eq!(words.last(), "");
    }
}
