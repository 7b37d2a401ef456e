//! Asking another program, which may hang or not be there.

use std::io::{self, Read as _};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use pcocc_core::child;

/// What a program said.
#[derive(Debug)]
pub(super) struct Said {
    /// Whether it exited with 0.
    pub(super) succeeded: bool,
    /// Its standard output.
    pub(super) out: String,
    /// Its standard error.
    pub(super) err: String,
}

impl Said {
    /// The first line of what it complained about, or printed.
    pub(super) fn words(&self) -> &str {
        [&self.err, &self.out]
            .into_iter()
            .flat_map(|text| text.lines())
            .map(str::trim)
            .find(|line| !line.is_empty())
            .unwrap_or("nothing")
    }
}

/// Runs a program for `patience` at most; one that takes longer is killed, and what it said until then counts.
pub(super) fn ask(program: &str, arguments: &[&str], patience: Duration) -> io::Result<Said> {
    // Files rather than pipes: no reader waits for what a killed program's children hold open.
    let (mut out, mut err) = (tempfile::tempfile()?, tempfile::tempfile()?);
    let mut child = child::spawn(
        Command::new(program)
            .args(arguments)
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
        succeeded: status.is_some_and(|status| status.success()),
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
        let said = ask(
            "sh",
            &["-c", "echo half; exec sleep 60"],
            Duration::from_secs(5),
        )
        .unwrap();
        assert!(!said.succeeded);
        assert_eq!(said.words(), "half");
        assert!(begun.elapsed() < Duration::from_secs(50));
        assert!(
            ask("sh", &["-c", "exit 0"], Duration::from_secs(50))
                .unwrap()
                .succeeded
        );
        let missing = ask("no-such-program", &[], Duration::from_secs(1)).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }
}
