//! Answers of outside systems, requested with a short timeout and cached for a few seconds.
//!
//! Data path of [`Recent::lines`]: a fresh cached answer → else the query's answer, if it comes in time → else the last
//! cached answer. A slower query goes on in the background for ten seconds at most, and its answer serves the next TAB:
//! without this, a slow daemon or scheduler would never complete anything.

use std::fs::{self, DirBuilder};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{self, Read as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use pcocc_core::named;

/// How long a TAB waits for an answer.
const PATIENCE: Duration = Duration::from_millis(150);
/// How long an answer is fresh.
const FRESH: Duration = Duration::from_secs(5);
/// How long an answer is used if there is no fresher one.
const USABLE: Duration = Duration::from_secs(600);
/// How long a query may go on.
const LIMIT: Duration = Duration::from_secs(10);
/// Longest answer, in bytes.
const MOST: u64 = 4 << 20;

/// Runs the query in `"$@"` into the file `$1`, which appears whole or not at all; ends at once when another does so.
const RUN: &str = r#"set -C; umask 077; file=$1; limit=$2; shift 2
: >"$file.part" || exit 1
if timeout "$limit" "$@" >|"$file.part"; then mv -f "$file.part" "$file"; else rm -f "$file.part"; fi"#;

/// The answers that are kept.
#[derive(Clone, Debug)]
pub struct Recent {
    folder: PathBuf,
}

impl Recent {
    /// Keeps answers in `folder`, which is made if need be.
    pub fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
        }
    }

    /// Gives the lines that `query` prints; `key` is what it asks whom.
    pub fn lines(&self, key: &str, query: Command) -> Vec<String> {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        let file = self.folder.join(format!("{:016x}", hasher.finish()));
        if age(&file).is_none_or(|age| age >= FRESH) {
            // Without an answer the last one stands.
            let _ = self.ask(&file, &query);
        }
        match age(&file) {
            Some(age) if age < USABLE => read(&file).unwrap_or_default(),
            _ => Vec::new(),
        }
    }

    /// Starts the query and waits for its answer, but not long.
    fn ask(&self, file: &Path, query: &Command) -> io::Result<()> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.folder)?;
        let part = file.with_extension("part");
        match age(&part) {
            // One is under way.
            Some(age) if age < LIMIT * 2 => return Ok(()),
            // One was killed.
            Some(_) => fs::remove_file(&part)?,
            None => {}
        }
        let mut child = Command::new("sh");
        child
            .args(["-c", RUN, "sh"])
            .arg(file)
            .arg(LIMIT.as_secs().to_string())
            .arg(query.get_program())
            .args(query.get_args());
        for (name, value) in query.get_envs() {
            match value {
                Some(value) => child.env(name, value),
                None => child.env_remove(name),
            };
        }
        let mut child = child
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // A Ctrl-C for the command line is none for the query.
            .process_group(0)
            .spawn()?;
        let start = Instant::now();
        while child.try_wait()?.is_none() && start.elapsed() < PATIENCE {
            thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }
}

/// How long ago a file was written.
fn age(file: &Path) -> Option<Duration> {
    let written = fs::metadata(file).ok()?.modified().ok()?;
    // A clock that was set back makes the file as old as can be.
    Some(
        SystemTime::now()
            .duration_since(written)
            .unwrap_or(Duration::MAX),
    )
}

fn read(file: &Path) -> io::Result<Vec<String>> {
    let mut text = Vec::new();
    named::open(file)?.take(MOST).read_to_end(&mut text)?;
    let text = String::from_utf8_lossy(&text);
    let shown = |line: &&str| !line.is_empty() && !line.contains(char::is_control);
    Ok(text.lines().filter(shown).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(code: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", code]);
        command
    }

    #[test]
    fn answers_are_kept_and_slow_ones_come_later() {
        let folder = tempfile::tempdir().unwrap();
        let recent = Recent::new(&folder.path().join("answers"));
        assert_eq!(
            recent.lines("a", shell("echo one; echo two")),
            ["one", "two"]
        );
        assert_eq!(
            recent.lines("a", shell("echo other")),
            ["one", "two"],
            "kept for a while"
        );
        assert_eq!(recent.lines("b", shell("echo no; exit 1")), [] as [&str; 0]);
        assert_eq!(recent.lines("c", Command::new("/no/such")), [] as [&str; 0]);

        let start = Instant::now();
        assert_eq!(
            recent.lines("slow", shell("sleep 0.8; echo late")),
            [] as [&str; 0]
        );
        // A second TAB does not ask a second time.
        assert_eq!(recent.lines("slow", shell("echo twice")), [] as [&str; 0]);
        assert!(
            start.elapsed() < Duration::from_millis(700),
            "{:?}",
            start.elapsed()
        );
        let deadline = Instant::now() + Duration::from_secs(10);
        while recent.lines("slow", shell("sleep 9")) != ["late"] {
            assert!(Instant::now() < deadline, "the slow answer never came");
            thread::sleep(Duration::from_millis(50));
        }
        let files = fs::read_dir(folder.path().join("answers")).unwrap().count();
        assert_eq!(files, 2, "failures and what was under way leave nothing");
    }
}
