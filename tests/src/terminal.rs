//! A program on a terminal of its own, and somebody who types.

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

/// Longest wait for what a test expects.
const DEADLINE: Duration = Duration::from_secs(60);

/// A program that runs on a pseudo-terminal, which is its controlling one. It is killed on drop.
#[derive(Debug)]
pub struct Terminal {
    child: Child,
    keys: Option<File>,
    shown: Arc<Mutex<String>>,
    /// How much of what was shown a test has waited for.
    seen: usize,
}

impl Terminal {
    /// Starts `command` on a terminal of 80 columns and 24 rows.
    ///
    /// Its environment is PATH and what the command sets: nothing of the test's own.
    pub fn start(command: &Command) -> Self {
        let keys = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)
            .expect("open a pseudo-terminal");
        grantpt(&keys).expect("use the pseudo-terminal");
        unlockpt(&keys).expect("unlock the pseudo-terminal");
        let name = ptsname(&keys, Vec::new()).expect("the pseudo-terminal's name");
        let name = name.to_str().expect("a name in ASCII").to_owned();
        resize(&keys, 80, 24);
        let open = || {
            let mut options = File::options();
            options.read(true).write(true).open(&name)
        };
        let stdin = open().expect("open the terminal");
        let again = || stdin.try_clone().expect("open the terminal again");
        // Not being the first of a process group, setsid becomes the program: they are one process.
        let mut session = Command::new("setsid");
        session
            .arg("--ctty")
            .arg(command.get_program())
            .args(command.get_args());
        session
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("TERM", "xterm");
        session.envs(
            command
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        );
        if let Some(folder) = command.get_current_dir() {
            session.current_dir(folder);
        }
        session.stdout(again()).stderr(again());
        let child = session.stdin(stdin).spawn().expect("start on a terminal");
        drop(session);
        let keys = File::from(keys);
        let shown = Arc::new(Mutex::new(String::new()));
        let (mut reader, text) = (
            keys.try_clone().expect("read the terminal"),
            Arc::clone(&shown),
        );
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            // The terminal ends with an error when its last program closes it.
            while let Ok(n @ 1..) = reader.read(&mut buffer) {
                let new = String::from_utf8_lossy(&buffer[..n]).into_owned();
                let mut text = text.lock().unwrap_or_else(PoisonError::into_inner);
                text.push_str(&new);
            }
        });
        Self {
            child,
            keys: Some(keys),
            shown,
            seen: 0,
        }
    }

    /// Everything that was shown so far.
    pub fn shown(&self) -> String {
        let text = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        text.clone()
    }

    /// Types `text`; `\r` is the enter key, `\x03` is Ctrl-C, `\x04` Ctrl-D.
    pub fn keys(&mut self, text: &str) {
        let keys = self.keys.as_mut().expect("the terminal is closed");
        keys.write_all(text.as_bytes()).expect("type");
    }

    /// Waits until `text` is shown behind what was waited for before.
    #[track_caller]
    pub fn wait_for(&mut self, text: &str) {
        let start = Instant::now();
        loop {
            let shown = self.shown();
            if let Some(at) = shown[self.seen..].find(text) {
                self.seen += at + text.len();
                return;
            }
            assert!(
                start.elapsed() < DEADLINE,
                "waited {DEADLINE:?} in vain for {text:?} behind byte {} of:\n{shown}",
                self.seen
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Gives the terminal another size.
    pub fn resize(&self, columns: u16, rows: u16) {
        resize(
            self.keys.as_ref().expect("the terminal is closed"),
            columns,
            rows,
        );
    }

    /// Sends a signal to the program alone.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("send a signal");
    }

    /// Closes the terminal, as when its window is closed.
    pub fn hang_up(&mut self) {
        // The reader has a copy: a hang-up is what the kernel then sends to the session's first process.
        self.keys = None;
        self.signal(Signal::HUP);
    }

    /// Waits for the program's end, and gives its exit status.
    #[track_caller]
    pub fn end(&mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("wait for the program") {
                // What it wrote last may still be on its way.
                std::thread::sleep(Duration::from_millis(50));
                return status;
            }
            assert!(
                start.elapsed() < DEADLINE,
                "waited {DEADLINE:?} in vain for the end of:\n{}",
                self.shown()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It has ended, if all went well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn resize(keys: impl std::os::fd::AsFd, columns: u16, rows: u16) {
    let size = Winsize {
        ws_col: columns,
        ws_row: rows,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(keys, size).expect("set the terminal's size");
}
