//! `pcocc docker logs`: the logs of a VM.

use std::fs::File;
use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use pcocc_core::beneath;
use pcocc_vm::job::older;

use crate::errors::{Failure, Outcome, WRITE_RESULT, While as _};
use crate::host::jobs::JobOption;
use crate::invocation::{Invocation, Run};
use crate::messages::is_shown;

/// Show what a docker VM's console said
///
/// Also of a VM that is over. With --launcher, what the process beside the VM said. On a terminal without the control
/// sequences in it: a guest must not move your cursor.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  pcocc docker logs -f -j 1756495")]
pub(crate) struct Args {
    #[command(flatten)]
    job: JobOption,
    /// Go on until the job is over, or Ctrl-C
    #[arg(short, long)]
    follow: bool,
    /// The launcher's words instead
    #[arg(long)]
    launcher: bool,
}

impl Run for Args {
    fn action(&self) -> String {
        "show the log of a docker VM".to_owned()
    }

    fn run(self, invocation: &Invocation) -> Outcome {
        let source = match self.launcher {
            true => Source::Launcher,
            false => Source::Console,
        };
        show(invocation, &self.job, source, self.follow)
    }
}

/// The log that is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// The VM's console.
    Console,
    /// The log of the process beside the VM.
    Launcher,
}

/// Shows the present log, and with `follow` the new lines, until the job is over.
pub(crate) fn show(
    invocation: &Invocation,
    job: &JobOption,
    source: Source,
    follow: bool,
) -> Outcome {
    let job = job.find(&invocation.host)?;
    let path = match source {
        Source::Launcher => job.folder.launcher_log(),
        Source::Console => job.folder.console_log(),
    };
    let mut log = Log::new(path);
    let mut looked = Instant::now();
    loop {
        // The state is read before the log, so that the last lines are shown.
        let over = !follow
            || job.folder.read().is_ok_and(|record| record.state.is_over())
            || (looked.elapsed() > Duration::from_secs(2) && {
                looked = Instant::now();
                let now = invocation.host.job_now(job.id());
                now.is_ok_and(|job| job.record.state.is_over())
            });
        log.show().map_err(|error| match error {
            LogError::Output(failure) => failure,
            LogError::Read(error) => Failure::new(format!("read {}", log.path.display()), error),
        })?;
        if over || invocation.cancel.is_cancelled() {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    if !log.seen && !follow {
        let why = format!("job {} has not written one yet", job.id());
        return Err(Failure::because(why));
    }
    Ok(())
}

/// A file that grows.
struct Log {
    path: PathBuf,
    file: Option<File>,
    seen: bool,
    /// Removes control sequences, for a terminal.
    terminal: Option<vte::Parser>,
}

/// The readable part of a console.
#[derive(Default)]
struct Words(String);

impl vte::Perform for Words {
    fn print(&mut self, c: char) {
        if is_shown(c) {
            self.0.push(c);
        }
    }

    fn execute(&mut self, byte: u8) {
        if matches!(byte, b'\n' | b'\t') {
            self.0.push(byte.into());
        }
    }
}

enum LogError {
    Read(io::Error),
    Output(Failure),
}

impl Log {
    fn new(path: PathBuf) -> Self {
        Self {
            path,
            file: None,
            seen: false,
            terminal: io::stdout().is_terminal().then(vte::Parser::new),
        }
    }

    /// Writes new lines to stdout.
    fn show(&mut self) -> Result<(), LogError> {
        let open = |path: &Path| match beneath::open_file(path) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(LogError::Read(error)),
        };
        if self.file.is_none() {
            self.file = match open(&older(&self.path))? {
                Some(file) => Some(file),
                None => open(&self.path)?,
            };
        }
        let Some(mut file) = self.file.take() else {
            return Ok(());
        };
        self.seen = true;
        self.copy(&mut file)?;
        // A long log is put aside, and a new one begins in its place.
        while let Some(mut next) = open(&self.path)?
            && !is_same(&file, &next).map_err(LogError::Read)?
        {
            // What came since.
            self.copy(&mut file)?;
            // The log was put aside more than once: of several, the last is still there.
            if let Some(mut between) = open(&older(&self.path))?
                && !is_same(&file, &between).map_err(LogError::Read)?
                && !is_same(&next, &between).map_err(LogError::Read)?
            {
                self.copy(&mut between)?;
            }
            self.copy(&mut next)?;
            file = next;
        }
        self.file = Some(file);
        Ok(())
    }

    /// Writes the rest of a file to stdout.
    fn copy(&mut self, file: &mut File) -> Result<(), LogError> {
        let mut buffer = vec![0; 64 << 10];
        loop {
            let count = file.read(&mut buffer).map_err(LogError::Read)?;
            if count == 0 {
                return Ok(());
            }
            let new = buffer.get(..count).unwrap_or_default();
            let words = match &mut self.terminal {
                Some(parser) => {
                    let mut words = Words::default();
                    parser.advance(&mut words, new);
                    words.0.into_bytes()
                }
                None => new.to_owned(),
            };
            let mut stdout = io::stdout().lock();
            stdout
                .write_all(&words)
                .and_then(|()| stdout.flush())
                .when(|| WRITE_RESULT)
                .map_err(LogError::Output)?;
        }
    }
}

fn is_same(one: &File, other: &File) -> io::Result<bool> {
    let (one, other) = (one.metadata()?, other.metadata()?);
    Ok((one.dev(), one.ino()) == (other.dev(), other.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_sequences_are_taken_out_even_across_reads() {
        let said = "[\x1b[1;31m0.1\x1b[0m] caf\u{e9}\r\n\x1b]0;title\x07\tb\x08\u{9b}2Jx\x1b(B\n";
        let mut parser = vte::Parser::new();
        let mut words = Words::default();
        for byte in said.as_bytes() {
            parser.advance(&mut words, &[*byte]);
        }
        assert!(
            !words
                .0
                .contains(|c: char| c.is_control() && !matches!(c, '\n' | '\t'))
        );
        assert!(words.0.starts_with("[0.1] caf\u{e9}\n\tb"), "{:?}", words.0);
        assert!(words.0.ends_with("x\n"), "{:?}", words.0);
    }
}
