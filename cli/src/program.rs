//! Running another program that may hang or be missing.

use std::io::{self, Read as _};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use pcocc_core::child;

/// The output of a program.
#[derive(Debug)]
pub(crate) struct ProgramOutput {
    /// Its exit status; `None` if it took too long.
    pub(crate) status: Option<ExitStatus>,
    /// Its standard output.
    pub(crate) out: String,
    /// Its standard error.
    pub(crate) err: String,
}

impl ProgramOutput {
    /// Whether it exited with 0.
    pub(crate) fn succeeded(&self) -> bool {
        self.status.is_some_and(|status| status.success())
    }

    /// The first line of its errors, or else of its output.
    pub(crate) fn words(&self) -> &str {
        [&self.err, &self.out]
            .into_iter()
            .flat_map(|text| text.lines())
            .map(str::trim)
            .find(|line| !line.is_empty())
            .unwrap_or("nothing")
    }
}

/// Runs a program for `patience` at most. A slower program is killed; its output up to then counts.
pub(crate) fn run_for(command: &mut Command, patience: Duration) -> io::Result<ProgramOutput> {
    // Files instead of pipes: a killed program's children may hold a pipe open, and no reader must wait for
    // them.
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
    Ok(ProgramOutput {
        status,
        out: text(&mut out)?,
        err: text(&mut err)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_hangs_is_killed_and_its_output_counts() {
        let begun = Instant::now();
        // Long enough for a shell to start on a busy machine.
        let sh = |script: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            command
        };
        let output = run_for(&mut sh("echo half; exec sleep 60"), Duration::from_secs(5)).unwrap();
        assert!(output.status.is_none() && !output.succeeded());
        assert_eq!(output.words(), "half");
        assert!(begun.elapsed() < Duration::from_secs(50));
        assert!(
            run_for(&mut sh("exit 0"), Duration::from_secs(50))
                .unwrap()
                .succeeded()
        );
        let missing =
            run_for(&mut Command::new("no-such-program"), Duration::from_secs(1)).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }
}
