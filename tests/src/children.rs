//! Child processes: run one to its end, or keep one for as long as the test lives.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// What a command that ended said.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The command line, for messages.
    pub command: String,
    /// How it ended.
    pub status: ExitStatus,
    /// Standard output, lossily decoded.
    pub stdout: String,
    /// Standard error, lossily decoded.
    pub stderr: String,
}

impl Outcome {
    /// Gives standard output without its last newline, or panics when the command failed.
    #[track_caller]
    pub fn ok(&self) -> &str {
        assert!(
            self.status.success(),
            "this failed, and should not have:\n{self}"
        );
        self.stdout.trim_end_matches('\n')
    }

    /// Gives standard error, or panics when the command succeeded, died of a signal or said nothing.
    #[track_caller]
    pub fn failed(&self) -> &str {
        assert!(
            !self.status.success(),
            "this succeeded, and should not have:\n{self}"
        );
        assert!(
            self.status.code().is_some(),
            "this died of a signal:\n{self}"
        );
        assert!(
            !self.stderr.trim().is_empty(),
            "this failed without a word:\n{self}"
        );
        assert!(
            !self.stderr.contains("panicked at"),
            "this panicked:\n{self}"
        );
        &self.stderr
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "$ {}\n{}\n--- stdout\n{}\n--- stderr\n{}",
            self.command, self.status, self.stdout, self.stderr
        )
    }
}

/// Runs `command` to its end with no standard input, and gives what it said.
#[track_caller]
pub fn run(command: &mut Command) -> Outcome {
    let shown = show(command);
    let output = command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("cannot run {shown}: {error}"));
    Outcome {
        command: shown,
        status: output.status,
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Shows a command as one would type it, near enough.
fn show(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words
        .map(OsStr::to_string_lossy)
        .collect::<Vec<_>>()
        .join(" ")
}

/// Asks `done` every 20 ms until it holds; panics with `what` after `deadline`.
#[track_caller]
pub fn wait_until(what: &str, deadline: Duration, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(
            start.elapsed() < deadline,
            "waited {deadline:?} in vain until {what}"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A child that ends with the test, however the test ends.
///
/// The child watches a pipe on its standard input: when the test process goes, by a panic or by SIGKILL,
/// the pipe breaks and the child stops. It is in a process group of its own, so that a signal to the
/// test's group does not reach it before it can clean up.
#[derive(Debug)]
pub struct Guarded {
    child: Child,
    pipe: Option<ChildStdin>,
}

impl Guarded {
    /// Starts a command that itself ends when its standard input does. Its words go to `log`.
    pub fn spawn(mut command: Command, log: &Path) -> (Self, std::process::ChildStdout) {
        let shown = show(&command);
        let log = File::create(log).expect("make a log file");
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {shown}: {error}"));
        let stdout = child.stdout.take().expect("a piped stdout");
        let pipe = child.stdin.take();
        (Self { child, pipe }, stdout)
    }

    /// Starts any command, under a shell that kills it when the test is gone. Its words go to `log`.
    ///
    /// Its environment is PATH and what the command sets: nothing of the test's own.
    pub fn watch(command: &Command, log: &Path) -> Self {
        const WATCH: &str = r#""$@" </dev/null >&2 & pid=$!
            read -r _
            kill $pid 2>/dev/null
            for _ in 1 2 3 4 5 6 7 8 9 10; do kill -0 $pid 2>/dev/null || break; sleep 0.1; done
            kill -9 $pid 2>/dev/null; wait $pid 2>/dev/null; exit 0"#;
        let mut shell = Command::new("bash");
        shell
            .args(["-c", WATCH, "watch"])
            .arg(command.get_program())
            .args(command.get_args());
        // Whether the command clears its environment cannot be asked, so the shell's is always clear.
        shell
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default());
        shell.envs(
            command
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        );
        if let Some(folder) = command.get_current_dir() {
            shell.current_dir(folder);
        }
        Self::spawn(shell, log).0
    }

    /// Says whether the child is still there.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Ends the child and waits until it is gone.
    pub fn stop(&mut self) {
        drop(self.pipe.take());
        let deadline = Instant::now() + Duration::from_secs(30);
        while self.is_running() {
            if Instant::now() > deadline {
                let _ = self.child.kill();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Reads a log file for a message; an unreadable one is an empty text.
pub(crate) fn read_log(path: &Path) -> String {
    let mut text = String::new();
    if let Ok(mut file) = File::open(path) {
        let _ = file.read_to_string(&mut text);
    }
    text
}
