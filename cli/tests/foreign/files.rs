//! What is no file in the place of a file: nothing waits for a pipe, and no device fills the memory.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, Mode, mkfifoat};

use crate::sandbox::Sandbox;

/// Puts a pipe that nobody writes to, or an endless device, at a path.
fn put(path: &Path, is_pipe: bool) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    // A case before may have left its own.
    let _ = std::fs::remove_file(path);
    match is_pipe {
        true => mkfifoat(CWD, path, Mode::RUSR | Mode::WUSR).unwrap(),
        false => symlink("/dev/zero", path).unwrap(),
    }
}

/// Runs a command that must end by itself; returns what it said.
#[track_caller]
fn ended(command: &mut Command) -> String {
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = child.spawn().unwrap();
    let begun = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if begun.elapsed() > Duration::from_secs(60) {
            child.kill().unwrap();
            panic!("{command:?} waits");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let output = child.wait_with_output().unwrap();
    String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout)
}

#[test]
fn what_is_no_file_holds_nothing_up() {
    let mut wrong = Vec::new();
    for is_pipe in [true, false] {
        for (file, words, expected) in [
            (
                ".pcocc/repos.yaml",
                &["image", "list"][..],
                "not a regular file",
            ),
            ("etc/repos.yaml", &["image", "list"], "not a regular file"),
            (
                ".pcocc/containers.yaml",
                &["image", "import", "docker://127.0.0.1:1/x", "y"],
                "not a regular file",
            ),
            (".pcocc/batch.yaml", &["docker", "ls"], ""),
            (
                ".pcocc/templates.yaml",
                &["config", "show"],
                "not a regular file",
            ),
            (
                ".docker/config.json",
                &["image", "import", "docker://127.0.0.1:1/x", "y"],
                "not a regular file",
            ),
            (
                ".config/containers/certs.d/127.0.0.1:1/ca.crt",
                &["image", "import", "docker://127.0.0.1:1/x", "y"],
                "not a regular file",
            ),
            (
                "certs/ca.pem",
                &["docker", "import", "x", "y"],
                "not a regular file",
            ),
            (
                "x.tar",
                &["image", "import", "docker-archive:x.tar", "y"],
                "not a file",
            ),
            (
                "x.any",
                &["image", "import", "x.any", "y"],
                "no known image format",
            ),
            ("oci/index.json", &["image", "import", "oci:oci", "y"], ""),
            (
                "oci/oci-layout",
                &["image", "import", "oci:oci", "y"],
                "oci-layout",
            ),
            (
                ".pcocc/job_7/console.log",
                &["docker", "logs", "-j", "7"],
                "",
            ),
            (
                "m/.pcocc/status.json",
                &["docker", "umount", "m"],
                "nothing mounted",
            ),
            (
                ".pcocc/images/.config",
                &["image", "list"],
                "bad config file",
            ),
        ] {
            let sandbox = Sandbox::new();
            let path = match file.strip_prefix("etc/") {
                Some(name) => sandbox.home().parent().unwrap().join("etc").join(name),
                None => sandbox.home().join(file),
            };
            put(&path, is_pipe);
            let mut command = sandbox.command(words);
            if file.starts_with("certs/") {
                command
                    .env("DOCKER_HOST", "tcp://127.0.0.1:1")
                    .env("DOCKER_TLS_VERIFY", "1")
                    .env("DOCKER_CERT_PATH", sandbox.home().join("certs"));
            }
            let said = ended(&mut command);
            if !said.contains(expected) {
                wrong.push(format!("{file}, pipe {is_pipe}: {said}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn completion_waits_for_nothing() {
    for file in [
        ".pcocc/repos.yaml",
        ".pcocc/images/.config",
        ".pcocc/images/meta/a@0",
        ".pcocc/job_7/job.json",
    ] {
        let sandbox = Sandbox::new();
        put(&sandbox.home().join(file), true);
        for words in [
            &["pcocc", "image", "show", ""][..],
            &["pcocc", "docker", "logs", "-j", ""],
        ] {
            let mut command = sandbox.command(&["--"]);
            command.args(words).env("COMPLETE", "bash");
            command.env("_CLAP_COMPLETE_INDEX", (words.len() - 1).to_string());
            ended(&mut command);
        }
    }
}
