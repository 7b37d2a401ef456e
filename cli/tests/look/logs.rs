//! The log of a VM's console, which is put aside when it is long.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use pcocc_vm::job::{State, older};

use crate::sandbox::Sandbox;

/// Puts the log aside, as the launcher does, and begins a new one with `words`.
fn put_aside(log: &Path, words: &str) {
    fs::rename(log, older(log)).unwrap();
    append(log, words);
}

fn append(log: &Path, words: &str) {
    let mut file = File::options().create(true).append(true).open(log).unwrap();
    file.write_all(words.as_bytes()).unwrap();
}

#[test]
fn a_log_that_is_put_aside_is_followed_without_a_gap() {
    let sandbox = Sandbox::new();
    let job = sandbox.job("vm", State::Ready);
    let log = job.console_log();
    fs::write(older(&log), "1\n").unwrap();
    append(&log, "2\n");
    let id = job.id().to_string();
    let mut command = sandbox.command(&["docker", "logs", "-f", "-j", &id]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut out = child.stdout.take().unwrap();
    let mut said = String::new();
    let mut until = |end: &str| {
        let mut bytes = [0; 4096];
        let begun = Instant::now();
        while !said.ends_with(end) {
            assert!(
                begun.elapsed() < Duration::from_secs(60),
                "{said:?} lacks {end:?}"
            );
            let count = out.read(&mut bytes).unwrap();
            assert!(count > 0, "{said:?} ends before {end:?}");
            said += std::str::from_utf8(&bytes[..count]).unwrap();
        }
    };
    until("2\n");
    append(&log, "3\n");
    put_aside(&log, "4\n");
    until("4\n");
    // Twice between two looks.
    append(&log, "5\n");
    put_aside(&log, "6\n");
    put_aside(&log, "7\n");
    until("7\n");
    let mut record = job.read().unwrap();
    record.state = State::Ended;
    append(&log, "8\n");
    job.write(&record).unwrap();
    until("8\n");
    assert!(child.wait().unwrap().success());
    assert_eq!(out.read_to_end(&mut Vec::new()).unwrap(), 0);
    assert_eq!(said, "1\n2\n3\n4\n5\n6\n7\n8\n");
}
