//! What a test left behind: mounts, processes, temporary files.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A folder under watch: nothing may stay mounted below it, run from it, or lie about in it.
#[derive(Debug)]
pub struct Watch {
    folder: PathBuf,
    before: BTreeSet<PathBuf>,
}

impl Watch {
    /// Remembers what is in TMPDIR, and watches `folder`, the home of the test's commands.
    pub fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            before: our_temporary_files(),
        }
    }

    /// Panics with a list when something stayed. Processes get five seconds to end.
    #[track_caller]
    pub fn assert_clean(&self) {
        let deadline = Instant::now() + Duration::from_secs(5);
        let mut found = self.find();
        while !found.is_empty() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(50));
            found = self.find();
        }
        assert!(found.is_empty(), "left behind:\n{}", found.join("\n"));
    }

    /// Lists what stayed, one line for each thing.
    pub fn find(&self) -> Vec<String> {
        let mut found: Vec<String> = mounts_below(&self.folder)
            .into_iter()
            .map(|mount| format!("mount {mount}"))
            .chain(
                processes_naming(&self.folder)
                    .into_iter()
                    .map(|line| format!("process {line}")),
            )
            .collect();
        for path in our_temporary_files().difference(&self.before) {
            found.push(format!("temporary file {}", path.display()));
        }
        found
    }
}

/// Lists mount points below `folder`; what is mounted inside another one of these counts with it.
pub fn mounts_below(folder: &Path) -> Vec<String> {
    let top = format!("{}/", folder.display());
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = table.lines().filter_map(|line| line.split(' ').nth(4));
    let mut found: Vec<String> = Vec::new();
    for point in points.filter(|point| point.starts_with(&top)) {
        let inside = |outer: &String| point.starts_with(&format!("{outer}/"));
        if !found.iter().any(inside) {
            found.push(point.to_owned());
        }
    }
    found
}

/// Lists `pcocc` processes that name `folder` in their arguments or in HOME, as `pid command line`.
pub fn processes_naming(folder: &Path) -> Vec<String> {
    let needle = folder.to_string_lossy();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<u32>().ok())
        else {
            continue;
        };
        let read = |file: &str| {
            let bytes = fs::read(entry.path().join(file)).unwrap_or_default();
            String::from_utf8_lossy(&bytes).replace('\0', " ")
        };
        // A process that has ended and waits for its parent has no command line.
        let line = read("cmdline");
        let ours = line.contains("pcocc") && pid != std::process::id();
        if ours
            && (line.contains(needle.as_ref())
                || read("environ").contains(&format!("HOME={needle} ")))
        {
            found.push(format!("{pid} {line}"));
        }
    }
    found
}

/// Lists unfinished work in a repository or cache: what lies in its `.tmp` folder.
pub fn unfinished_in(repository: &Path) -> Vec<String> {
    let entries = fs::read_dir(repository.join(".tmp"))
        .into_iter()
        .flatten()
        .flatten();
    entries
        .map(|entry| entry.path().display().to_string())
        .collect()
}

/// Lists what pcocc itself put into TMPDIR. Fixtures use the prefix `pcocc-t`, which is not counted;
/// nor is what private daemons and benchmarks beside the tests put there.
fn our_temporary_files() -> BTreeSet<PathBuf> {
    let entries = fs::read_dir(std::env::temp_dir())
        .into_iter()
        .flatten()
        .flatten();
    let ours = |name: &str| {
        name.starts_with("pcocc")
            && !name.starts_with("pcocc-t")
            && !name.starts_with("pcocc-dockerd")
            && !name.starts_with("pcocc-bench")
    };
    entries
        .filter(|entry| ours(&entry.file_name().to_string_lossy()))
        .map(|entry| entry.path())
        .collect()
}
