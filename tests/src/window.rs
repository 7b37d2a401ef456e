//! A shell in a real terminal: a window of a private tmux server.
//!
//! tmux gives the shell a pseudo-terminal and draws what it writes, so that a test sees what a user would.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::children::run;
use crate::scratch;

/// How long a shell may take for anything here; machines are busy.
const PATIENCE: Duration = Duration::from_secs(30);

/// A window with a shell in it, which ends with the test. The shell's prompt has to end in `> `.
#[derive(Debug)]
pub struct Window {
    folder: tempfile::TempDir,
    marks: AtomicU32,
}

impl Window {
    /// Starts `command` in a window of 120 by 50 characters, with the environment, folder and arguments it has, and
    /// nothing of the test's own environment but PATH.
    #[track_caller]
    pub fn start(command: &Command) -> Self {
        let terminal = Self {
            folder: scratch(),
            marks: AtomicU32::new(0),
        };
        let mut tmux = terminal.tmux(&["new-session", "-d", "-x", "120", "-y", "50"]);
        if let Some(folder) = command.get_current_dir() {
            tmux.arg("-c").arg(folder);
        }
        // Removed variables are not there in the first place.
        tmux.arg("env")
            .arg("-u")
            .arg("TMUX")
            .arg("-u")
            .arg("TMUX_PANE");
        for (name, value) in command.get_envs() {
            if let Some(value) = value {
                let mut pair = name.to_owned();
                pair.push("=");
                pair.push(value);
                tmux.arg(pair);
            }
        }
        tmux.arg(command.get_program()).args(command.get_args());
        run(&mut tmux).ok();
        terminal
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("tmux")
    }

    fn tmux(&self, arguments: &[&str]) -> Command {
        let mut tmux = Command::new("tmux");
        tmux.env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("LC_ALL", "C.UTF-8")
            .env("SHELL", "/bin/sh")
            .args(["-u", "-f", "/dev/null", "-S"])
            .arg(self.socket())
            .args(arguments);
        tmux
    }

    /// What is on the screen, without blanks at the ends of lines and empty lines at the end.
    #[track_caller]
    pub fn screen(&self) -> String {
        run(&mut self.tmux(&["capture-pane", "-p", "-J"]))
            .ok()
            .trim_end()
            .to_owned()
    }

    /// Types text as it is.
    #[track_caller]
    pub fn text(&self, text: &str) {
        run(&mut self.tmux(&["send-keys", "-l", "--", text])).ok();
    }

    /// Presses a key that tmux has a name for: Enter, Tab, C-c.
    #[track_caller]
    pub fn key(&self, key: &str) {
        run(&mut self.tmux(&["send-keys", key])).ok();
    }

    /// Waits until the screen is as it should be, and gives it.
    #[track_caller]
    pub fn wait(&self, what: &str, done: impl Fn(&str) -> bool) -> String {
        let start = Instant::now();
        loop {
            let screen = self.screen();
            if done(&screen) {
                return screen;
            }
            assert!(
                start.elapsed() < PATIENCE,
                "waited {PATIENCE:?} in vain until {what}; the screen:\n{screen}"
            );
            std::thread::sleep(Duration::from_millis(30));
        }
    }

    /// Waits for the first prompt, and gives it.
    #[track_caller]
    pub fn prompt(&self) -> String {
        let screen = self.wait("there is a prompt", |screen| screen.ends_with('>'));
        last_line(&screen)
    }

    /// Enters a command line and waits for the next prompt; gives what is between the two, and the prompt.
    #[track_caller]
    pub fn enter(&self, line: &str) -> (String, String) {
        let mark = format!("M{}:", self.marks.fetch_add(1, Ordering::Relaxed));
        self.text(&format!(": {mark}; {line}"));
        self.key("Enter");
        let after = |screen: &str| {
            let at = screen.rfind(&mark)?;
            let (_, after) = screen.get(at..)?.split_once('\n')?;
            let after = after.trim_end();
            after.ends_with('>').then(|| after.to_owned())
        };
        let screen = self.wait(&format!("{line:?} is done"), |screen| {
            after(screen).is_some()
        });
        let after = after(&screen).expect("what was waited for");
        let after: Vec<_> = after.lines().map(str::trim_end).collect();
        let after = after.join("\n");
        match after.rsplit_once('\n') {
            Some((output, prompt)) => (output.to_owned(), prompt.to_owned()),
            None => (String::new(), after),
        }
    }

    /// Types text, presses TAB, and waits until the command line is `expected`.
    #[track_caller]
    pub fn complete(&self, typed: &str, expected: &str) {
        self.key("C-u");
        self.text(typed);
        self.key("Tab");
        self.wait(&format!("{typed:?} becomes {expected:?}"), |screen| {
            last_line(screen)
                .split_once("> ")
                .is_some_and(|(_, line)| line.trim_end() == expected.trim_end())
        });
    }

    /// The same for what is only known once something slow was asked: TAB is pressed until the line is `expected`.
    #[track_caller]
    pub fn complete_at_last(&self, typed: &str, expected: &str) {
        self.key("C-u");
        self.text(typed);
        let pressed = std::cell::Cell::new(0);
        let start = Instant::now();
        self.wait(&format!("{typed:?} becomes {expected:?}"), |screen| {
            let done = last_line(screen)
                .split_once("> ")
                .is_some_and(|(_, line)| line.trim_end() == expected.trim_end());
            if !done && start.elapsed() > Duration::from_secs(2) * pressed.get() {
                pressed.set(pressed.get() + 1);
                self.key("Tab");
            }
            done
        });
    }

    /// Whether the shell has ended.
    pub fn is_over(&self) -> bool {
        !self
            .tmux(&["list-sessions"])
            .output()
            .is_ok_and(|output| output.status.success())
    }

    /// Where a test may put files.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.tmux(&["kill-server"]).output();
    }
}

fn last_line(screen: &str) -> String {
    screen.lines().last().unwrap_or_default().to_owned()
}
