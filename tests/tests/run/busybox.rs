//! An image of busybox, and runs of it.

use std::path::Path;

use pcocc_tests::layout::{self, Entry};
use pcocc_tests::{Outcome, Pcocc, leaks, run};
use serde_json::Value;

/// A home with the image `bb` in its repository.
pub struct Busybox {
    pub pcocc: Pcocc,
    watch: leaks::Watch,
}

impl Busybox {
    /// An image that says nothing about how it is run.
    pub fn plain() -> Self {
        Self::with(serde_json::json!({"Env": ["PATH=/bin"]}), &[])
    }

    /// An image with this configuration and these files.
    pub fn with(config: Value, files: &[Entry<'_>]) -> Self {
        Self::of(Pcocc::new(), config, files)
    }

    /// The same in a home that is there.
    pub fn of(pcocc: Pcocc, config: Value, files: &[Entry<'_>]) -> Self {
        let watch = leaks::Watch::new(pcocc.home());
        let image = Self { pcocc, watch };
        image.add("bb", config, files);
        image
    }

    /// Puts one more image into the repository.
    pub fn add(&self, name: &str, config: Value, files: &[Entry<'_>]) {
        let folder = self.pcocc.home().join(format!("{name}.oci"));
        layout::busybox(&folder, config, files);
        self.pcocc
            .run(&["image", "import", "-t", "oci", text(&folder), name]);
    }

    /// Runs `pcocc run -s` with more arguments, whatever comes of it.
    #[track_caller]
    pub fn try_run(&self, arguments: &[&str]) -> Outcome {
        let mut command = self.pcocc.command(&["run", "-s"]);
        run(command.args(arguments))
    }

    /// Runs a line of shell in the image `bb`, with options, and gives what it printed.
    #[track_caller]
    pub fn shell(&self, options: &[&str], line: &str) -> String {
        let arguments = [options, &["-I", "bb", "sh", "-c", line]].concat();
        self.try_run(&arguments).ok().to_owned()
    }

    /// Runs `pcocc run -s` in a terminal of 33 lines of 77 letters: waits for each word to be shown, and then
    /// types what belongs to it (or `resize LINES LETTERS`). Gives the exit code, and all that was shown.
    #[track_caller]
    pub fn in_terminal(&self, arguments: &[&str], steps: &[(&str, &str)]) -> (i32, String) {
        let inside = self.pcocc.command(&["run", "-s"]);
        let words = std::iter::once(inside.get_program()).chain(inside.get_args());
        let mut words: Vec<_> = words
            .map(|word| word.to_string_lossy().into_owned())
            .collect();
        words.extend(arguments.iter().map(|word| (*word).to_owned()));
        let mut python = self.pcocc.any("python3");
        python
            .args(["-c", include_str!("terminal.py")])
            .env("TERM", "xterm");
        python.arg(serde_json::json!({"argv": words, "steps": steps}).to_string());
        let outcome = run(&mut python);
        let (code, seen) = outcome
            .ok()
            .split_once('\n')
            .expect("a code, and what was shown");
        (code.parse().expect("an exit code"), seen.to_owned())
    }

    /// Writes a file in the home, which commands can read, and gives its path.
    pub fn write(&self, name: &str, content: &str) -> String {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.pcocc.home().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        text(&path).to_owned()
    }

    /// Fails when anything stayed.
    #[track_caller]
    pub fn end(self) {
        self.watch.assert_clean();
        let left = leaks::unfinished_in(&self.pcocc.cache());
        assert_eq!(left, Vec::<String>::new());
    }
}

pub fn text(path: &Path) -> &str {
    path.to_str().expect("paths of tests are text")
}

/// The exit code, and what was said on standard error.
#[track_caller]
pub fn refused(outcome: &Outcome) -> (i32, String) {
    let code = outcome.status.code().expect("an exit code");
    (code, outcome.stderr.clone())
}
