//! File systems that only one test sees: small ones, to be filled up.

use std::path::Path;
use std::process::Command;

use crate::children::run;

const INSIDE: &str = "PCOCC_TEST_INSIDE";

/// Runs the test `name` (its path within the test program) again in a mount namespace of its own and
/// returns false, or returns true when it runs there. What is mounted in there goes with its processes,
/// however they end.
///
/// ```no_run
/// if !pcocc_tests::in_own_namespace("module::test_as_root") {
///     return;
/// }
/// ```
#[track_caller]
pub fn in_own_namespace(name: &str) -> bool {
    again(name, &["--mount", "--propagation", "private"])
}

/// Runs the test `name` again in a network namespace of its own, which has no way out, and returns false, or
/// returns true when it runs there.
#[track_caller]
pub fn in_own_network(name: &str) -> bool {
    again(name, &["--net"])
}

#[track_caller]
fn again(name: &str, namespaces: &[&str]) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let status = Command::new("unshare")
        .args(namespaces)
        .arg("--")
        .arg(std::env::current_exe().expect("the test's own path"))
        .args(["--exact", name, "--nocapture"])
        .env(INSIDE, "yes")
        .status()
        .expect("run unshare");
    assert!(status.success(), "{name} failed in its namespace");
    false
}

/// Mounts an empty file system of `size` (as mount(8) writes it) on `folder`, which is made. Only to be
/// called in a namespace of the test's own.
#[track_caller]
pub fn small_disk(folder: &Path, size: &str) {
    assert!(std::env::var_os(INSIDE).is_some(), "not in a namespace");
    std::fs::create_dir_all(folder).expect("make a folder");
    let options = format!("size={size},mode=1777");
    run(Command::new("mount")
        .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
        .arg(folder))
    .ok();
}

/// Fills the file system of `folder` but for about `left` bytes; removing the file given back undoes it.
#[track_caller]
pub fn fill(folder: &Path, left: u64) -> std::path::PathBuf {
    let found = rustix::fs::statvfs(folder).expect("look at a file system");
    let free = found.f_bavail * found.f_frsize;
    let file = folder.join("filler");
    let size = free.saturating_sub(left);
    run(Command::new("fallocate")
        .args(["-l", &size.to_string()])
        .arg(&file))
    .ok();
    file
}
