//! Asking another program, which may hang or not be there.

use std::io::{self, Read as _};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use pcocc_core::child;

/// What a program said.
#[derive(Debug)]
pub(crate) struct Said {
    /// How it ended; `None` for one that took too long.
    pub(crate) status: Option<ExitStatus>,
    /// Its standard output.
    pub(crate) out: String,
    /// Its standard error.
    pub(crate) err: String,
}

impl Said {
    /// Whether it exited with 0.
    pub(crate) fn succeeded(&self) -> bool {
        self.status.is_some_and(|status| status.success())
    }

    /// The first line of what it complained about, or printed.
    pub(crate) fn words(&self) -> &str {
        [&self.err, &self.out]
            .into_iter()
            .flat_map(|text| text.lines())
            .map(str::trim)
            .find(|line| !line.is_empty())
            .unwrap_or("nothing")
    }
}

/// Runs a program for `patience` at most; one that takes longer is killed, and what it said until then counts.
pub(crate) fn ask(command: &mut Command, patience: Duration) -> io::Result<Said> {
    // Files rather than pipes: no reader waits for what a killed program's children hold open.
    let (mut out, mut err) = (tempfile::tempfile()?, tempfile::tempfile()?);
    let mut child = child::spawn(
        command
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(err.try_clone()?),
    )?;
    let begun = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break Some(status);
        }
        if begun.elapsed() > patience {
            child.kill()?;
            child.wait()?;
            break None;
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    let text = |file: &mut std::fs::File| -> io::Result<String> {
        use std::io::Seek as _;
        file.rewind()?;
        let mut bytes = Vec::new();
        file.take(1 << 20).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    Ok(Said {
        status,
        out: text(&mut out)?,
        err: text(&mut err)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hangs_is_given_up_and_what_it_said_counts() {
        let begun = Instant::now();
        // Long enough for a shell to start beside everything else that a machine does.
        let sh = |script: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            command
        };
        let said = ask(&mut sh("echo half; exec sleep 60"), Duration::from_secs(5)).unwrap();
        assert!(said.status.is_none() && !said.succeeded());
        assert_eq!(said.words(), "half");
        assert!(begun.elapsed() < Duration::from_secs(50));
        assert!(
            ask(&mut sh("exit 0"), Duration::from_secs(50))
                .unwrap()
                .succeeded()
        );
        let missing =
            ask(&mut Command::new("no-such-program"), Duration::from_secs(1)).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }
}
