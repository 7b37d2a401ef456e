//! A home of its own for the command under test: empty environment, fixed names.

#![allow(dead_code, reason = "every test program uses another part of it")]

pub(crate) mod images;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use pcocc_vm::job::{Backend, Here, JobFolder, Jobs, Record, State};

/// A temporary home with the command in it.
#[derive(Debug)]
pub(crate) struct Sandbox(tempfile::TempDir);

impl Sandbox {
    /// Makes an empty home.
    pub(crate) fn new() -> Self {
        let sandbox = Self(tempfile::tempdir().unwrap());
        fs::create_dir_all(sandbox.home()).unwrap();
        sandbox
    }

    /// The home directory.
    pub(crate) fn home(&self) -> PathBuf {
        self.0.path().join("home")
    }

    /// Writes a file below the home.
    pub(crate) fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.home().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// Writes the record of a job on this machine for which this process stands.
    pub(crate) fn job(&self, name: &str, state: State) -> JobFolder {
        let jobs = Jobs::open(&self.home().join(".pcocc")).unwrap();
        let folder = jobs.create_local().unwrap();
        let mut record = Record::new(folder.id(), name, Backend::Local, "doe", 1_767_323_045);
        record.state = state;
        let here = Here::read().unwrap();
        record.launcher = Some(here.holder(std::process::id()).unwrap());
        folder.write(&record).unwrap();
        folder
    }

    /// The command, ready to run.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pcocc"));
        command
            .args(args)
            .env_clear()
            .env("HOME", self.home())
            .env("USER", "doe")
            .env("TZ", "UTC")
            .env("PATH", "/usr/bin:/bin")
            .env("TMPDIR", self.0.path())
            .env("PCOCC_SYSTEM_CONF_DIR", self.0.path().join("etc"))
            .env("DOCKER_HOST", self.socket())
            .current_dir(self.home());
        command
    }

    /// The address of a docker daemon that is not there.
    pub(crate) fn socket(&self) -> String {
        format!("unix://{}/no.sock", self.0.path().display())
    }

    /// Runs the command.
    pub(crate) fn run(&self, args: &[&str]) -> Shown {
        Shown::of(&self.command(args).output().unwrap(), self.0.path())
    }
}

/// What a run showed.
#[derive(Debug)]
pub(crate) struct Shown {
    /// Exit code; `None` when a signal ended it.
    pub(crate) code: Option<i32>,
    /// Standard output.
    pub(crate) out: String,
    /// Standard error.
    pub(crate) err: String,
}

impl Shown {
    fn of(output: &Output, root: &Path) -> Self {
        let text = |bytes: &[u8]| {
            String::from_utf8(bytes.to_vec())
                .unwrap()
                .replace(&*root.to_string_lossy(), "[ROOT]")
        };
        Self {
            code: output.status.code(),
            out: text(&output.stdout),
            err: text(&output.stderr),
        }
    }

    /// Everything in one text, for snapshots.
    pub(crate) fn all(&self) -> String {
        let mut text = String::new();
        if !self.out.is_empty() {
            text += &format!("{}\n", self.out.trim_end());
        }
        if !self.err.is_empty() {
            text += &format!("--- stderr\n{}\n", self.err.trim_end());
        }
        text + &format!("--- exit {}", self.code.unwrap_or(-1))
    }

    /// The same with columns two spaces apart, where their width depends on the temporary folder.
    pub(crate) fn squeezed(&self) -> String {
        let mut text = self.all();
        while text.contains("   ") {
            text = text.replace("   ", "  ");
        }
        text
    }

    /// The output of a run that must have succeeded.
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{}", self.all());
        self.out
    }
}
