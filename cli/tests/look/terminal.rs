//! A terminal that keeps its screen.

use std::fs::File;
use std::io::Read as _;
use std::num::NonZero;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

/// `pcocc` on a terminal of its own.
pub(crate) struct Terminal {
    pub(crate) keys: File,
    output: Receiver<Vec<u8>>,
    pub(crate) raw: Vec<u8>,
    pub(crate) screen: vt100::Parser,
    /// Longest wait for what a test expects.
    pub(crate) patience: Duration,
    child: Child,
}

/// Whether a line of the screen is `WHAT`, a spinner, and some seconds; nothing stands for whatever it may be.
pub(crate) fn spins(text: &str, what: &str) -> bool {
    text.lines().any(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [stage @ .., spinner, time] = words.as_slice() else {
            return false;
        };
        line.starts_with(what)
            && (what.is_empty() || stage.join(" ") == what)
            && !stage.is_empty()
            && ["|", "/", "-", "\\"].contains(spinner)
            && !time.starts_with('0')
            && time.ends_with('s')
    })
}

impl Terminal {
    pub(crate) fn run(rows: u16, columns: u16, mut command: Command) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
        let size = Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let side = File::options().read(true).write(true).open(name).unwrap();
        tcsetwinsize(&side, size).unwrap();
        // A session of its own, whose terminal this is: keys make signals.
        let mut session = Command::new("setsid");
        session
            .args(["--ctty", "--wait"])
            .arg(command.get_program());
        session
            .args(command.get_args())
            .env_clear()
            .env("TERM", "xterm");
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => session.env(name, value),
                None => session.env_remove(name),
            };
        }
        let child = session
            .stdin(side.try_clone().unwrap())
            .stdout(side.try_clone().unwrap())
            .stderr(side)
            .spawn()
            .expect("setsid of util-linux");
        command.stdin(Stdio::null());
        let keys = File::from(master);
        let mut reader = keys.try_clone().unwrap();
        let (sender, output) = mpsc::channel();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            // The end is an error (EIO), once nobody has the other side open.
            while let Ok(count @ 1..) = reader.read(&mut buffer) {
                if sender.send(buffer[..count].to_vec()).is_err() {
                    break;
                }
            }
        });
        Self {
            keys,
            output,
            raw: Vec::new(),
            screen: vt100::Parser::new(
                NonZero::new(rows).unwrap(),
                NonZero::new(columns).unwrap(),
                0,
            ),
            patience: Duration::from_secs(30),
            child,
        }
    }

    pub(crate) fn text(&self) -> String {
        // Row by row: a bar fills its row to the end, which an emulator takes for a line that goes on.
        let rows: Vec<String> = self.screen.screen().rows(0, 500).collect();
        rows.iter()
            .map(|row| format!("{}\n", row.trim_end()))
            .collect::<String>()
            .trim_end()
            .to_owned()
    }

    /// Reads on until the screen is as wanted.
    #[track_caller]
    pub(crate) fn until(&mut self, what: &str, wanted: impl Fn(&str) -> bool) {
        let deadline = Instant::now() + self.patience;
        while !wanted(&self.text()) {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.output.recv_timeout(left) {
                Ok(bytes) => {
                    self.screen.process(&bytes);
                    self.raw.extend(bytes);
                }
                Err(error) => panic!("no {what} ({error}):\n{}", self.text()),
            }
        }
    }

    /// Reads to the end; gives the exit code.
    pub(crate) fn end(&mut self) -> Option<i32> {
        while let Ok(bytes) = self.output.recv_timeout(self.patience) {
            self.screen.process(&bytes);
            self.raw.extend(bytes);
        }
        self.child.wait().unwrap().code()
    }

    /// The terminal is as a shell wants it: cursor shown, at the beginning of a line with nothing on it.
    #[track_caller]
    pub(crate) fn assert_clean(&self) {
        let screen = self.screen.screen();
        let (row, column) = screen.cursor_position();
        assert_eq!(column, 0, "{}", self.text());
        assert!(!screen.hide_cursor());
        let below: String = screen.rows(0, 500).skip(usize::from(row)).collect();
        assert_eq!(below.trim(), "", "{}", self.text());
    }
}
